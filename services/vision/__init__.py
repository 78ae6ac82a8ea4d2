"""Fetches images safely and says what they show."""
