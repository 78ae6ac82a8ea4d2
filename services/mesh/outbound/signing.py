"""Signs what is sent to a webhook, as the Standard Webhooks specification says (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

_BASE64_PREFIX = "whsec_"


def signing_key(secret: str) -> bytes:
    """The bytes that sign: those that "whsec_" and base64 spell, padded or not; of any other secret its UTF-8 bytes.

    Raises:
        ValueError: what follows "whsec_" is not base64 of at least one byte.
    """
    if not secret.startswith(_BASE64_PREFIX):
        return secret.encode()
    encoded = secret.removeprefix(_BASE64_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        raise ValueError("what follows 'whsec_' must be base64") from None
    if not key:
        raise ValueError("'whsec_' must be followed by base64")
    return key


def signed_headers(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers that let a receiver know who sent a body, and when."""
    digest = hmac.digest(key, b".".join((message_id.encode(), str(timestamp_s).encode(), body)), hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
