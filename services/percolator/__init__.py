"""Owns the stored queries: matches new vectors against them, and keeps the matches."""
