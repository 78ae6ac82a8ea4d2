"""Calls to addresses that strangers gave: which of them may be reached, for photos and for webhooks alike."""
