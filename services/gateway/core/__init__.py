"""What the gateway does, once for both doors; the messages of the contracts are its types."""
