"""The blob store: bytes by a tenant's content hash, behind one small interface; here in NATS.

What the bytes mean is not known here.
"""

from __future__ import annotations

import contextlib
from typing import IO, Protocol

from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError, NotFoundError
from nats.js.kv import KeyValue
from nats.js.object_store import ObjectStore

from services.mesh.bus import topology
from services.mesh.bus.topology import Bus
from services.mesh.errors import NotFound
from services.mesh.tenancy import Tenant


class BlobStore(Protocol):
    """Bytes by key. Keys come from `Tenant.blob`; equal content has an equal key, so writing twice is harmless."""

    async def put(self, key: str, content: bytes) -> None:
        """Store content; does nothing when the key exists."""

    async def put_file(self, key: str, file: IO[bytes], size_bytes: int) -> None:
        """Store what an open file holds from its start on, never all of it in memory; else as `put`."""

    async def get(self, key: str) -> bytes:
        """Read content. Raises NotFound."""

    async def exists(self, key: str) -> bool:
        """Whether something is stored under the key."""

    async def delete(self, key: str) -> None:
        """Remove content; does nothing when there is none."""

    async def drop(self, tenant: Tenant) -> None:
        """Remove everything of a namespace."""


# What fits into one NATS message (1 MB by default) beside its headers.
_SMALL_BYTES_MAX = 900_000


class NatsBlobStore:
    """Blobs in NATS: no further server needed on a laptop.

    Small blobs are one message each, which costs one request to write and one to read; the object store, which needs
    about five and a consumer, takes the larger ones.
    """

    def __init__(self, bus: Bus, small: KeyValue, large: ObjectStore) -> None:
        self._bus = bus
        self._small = small
        self._large = large

    @classmethod
    async def open(cls, bus: Bus) -> NatsBlobStore:
        """Open the store."""
        return cls(bus, await bus.bucket(topology.SMALL_BLOBS), await bus.js.object_store(topology.BLOBS))

    async def put(self, key: str, content: bytes) -> None:
        """Store content; does nothing when the key exists."""
        if len(content) <= _SMALL_BYTES_MAX:
            with contextlib.suppress(KeyWrongLastSequenceError):
                await self._small.create(_small_key(key), content)
        elif not await self._is_large(key):
            await self._large.put(key, content)

    async def put_file(self, key: str, file: IO[bytes], size_bytes: int) -> None:
        """Store what an open file holds from its start on, never all of it in memory; else as `put`."""
        file.seek(0)
        if size_bytes <= _SMALL_BYTES_MAX:
            await self.put(key, file.read())
        elif not await self._is_large(key):
            # Reads in a thread, 128 KiB at a time.
            await self._large.put(key, file)  # type: ignore[arg-type]

    async def get(self, key: str) -> bytes:
        """Read content.

        Raises:
            NotFound: nothing is stored under the key.
        """
        try:
            return (await self._small.get(_small_key(key))).value or b""
        except KeyNotFoundError:
            pass
        try:
            return (await self._large.get(key)).data or b""
        except NotFoundError:
            raise NotFound("no such file in this namespace") from None

    async def exists(self, key: str) -> bool:
        """Whether something is stored under the key."""
        try:
            await self._small.get(_small_key(key))
        except KeyNotFoundError:
            return await self._is_large(key)
        return True

    async def delete(self, key: str) -> None:
        """Remove content; does nothing when there is none."""
        await self._small.delete(_small_key(key))
        with contextlib.suppress(NotFoundError):
            await self._large.delete(key)

    async def drop(self, tenant: Tenant) -> None:
        """Remove everything of a namespace."""
        subject = topology.bucket_subject(topology.SMALL_BLOBS, _small_key(tenant.blob(">")))
        await self._bus.js.purge_stream(topology.bucket_stream(topology.SMALL_BLOBS), subject=subject)
        with contextlib.suppress(NotFoundError):
            for each in await self._large.list(ignore_deletes=True):
                if each.name and tenant.owns_blob(each.name):
                    await self._large.delete(each.name)

    async def _is_large(self, key: str) -> bool:
        try:
            await self._large.get_info(key)
        except NotFoundError:
            return False
        return True


def _small_key(key: str) -> str:
    # A subject of two tokens, so that a namespace's can be removed at once.
    return key.replace("/", ".")
