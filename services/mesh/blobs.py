"""The blob store: bytes by a tenant's content hash, behind one small interface; here over NATS' object store.

What the bytes mean is not known here.
"""

from __future__ import annotations

from typing import Protocol

from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from services.mesh.bus import topology
from services.mesh.bus.topology import Bus
from services.mesh.errors import NotFound


class BlobStore(Protocol):
    """Bytes by key. Keys come from `Tenant.blob`; equal content has an equal key, so writing twice is harmless."""

    async def put(self, key: str, content: bytes) -> None:
        """Store content; does nothing when the key exists."""

    async def get(self, key: str) -> bytes:
        """Read content. Raises NotFound."""

    async def exists(self, key: str) -> bool:
        """Whether something is stored under the key."""

    async def delete(self, key: str) -> None:
        """Remove content; does nothing when there is none."""


class NatsBlobStore:
    """Blobs in NATS' object store: no further server needed on a laptop."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    async def open(cls, bus: Bus) -> NatsBlobStore:
        """Open the store."""
        return cls(await bus.js.object_store(topology.BLOBS))

    async def put(self, key: str, content: bytes) -> None:
        """Store content; does nothing when the key exists."""
        if not await self.exists(key):
            await self._store.put(key, content)

    async def get(self, key: str) -> bytes:
        """Read content.

        Raises:
            NotFound: nothing is stored under the key.
        """
        try:
            result = await self._store.get(key)
        except NotFoundError:
            raise NotFound("no such file in this namespace") from None
        return result.data or b""

    async def exists(self, key: str) -> bool:
        """Whether something is stored under the key."""
        try:
            await self._store.get_info(key)
        except NotFoundError:
            return False
        return True

    async def delete(self, key: str) -> None:
        """Remove content; does nothing when there is none."""
        try:
            await self._store.delete(key)
        except NotFoundError:
            return
