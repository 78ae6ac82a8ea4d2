"""Assets and features as Milvus rows keep them: a compressed protobuf in a VARCHAR, or in the blob store when too long.

What is filtered on (collection, metadata) stands in columns of its own.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import TypeVar

from google.protobuf.message import Message

from services.mesh.blobs import BlobStore
from services.mesh.tenancy import Tenant

# A Milvus VARCHAR holds 65,535 bytes.
_INLINE_BYTES_MAX = 60_000
_INLINE, _BLOB = "z:", "b:"

MessageT = TypeVar("MessageT", bound=Message)


class Documents:
    """Writes and reads documents."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    async def encode(self, tenant: Tenant, message: Message) -> str:
        """The row's text for a message."""
        packed = zlib.compress(message.SerializeToString(deterministic=True), 1)
        text = _INLINE + base64.b64encode(packed).decode()
        if len(text) <= _INLINE_BYTES_MAX:
            return text
        key = tenant.blob(hashlib.sha256(packed).hexdigest() + "-d")
        await self._blobs.put(key, packed)
        return _BLOB + key

    async def decode(self, text: str, kind: type[MessageT]) -> MessageT:
        """The message of a row's text."""
        if text.startswith(_BLOB):
            packed = await self._blobs.get(text.removeprefix(_BLOB))
        else:
            packed = base64.b64decode(text.removeprefix(_INLINE))
        return kind.FromString(zlib.decompress(packed))
