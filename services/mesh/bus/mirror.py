"""A bucket's content in memory, kept up to date by following it.

For small buckets that every request reads: keys, namespaces, collections, stored queries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from google.protobuf.message import Message

from services.mesh.bus import topology
from services.mesh.bus.follow import follow
from services.mesh.bus.topology import Bus
from services.mesh.cancelling import cancelled
from services.mesh.errors import Unavailable

MessageT = TypeVar("MessageT", bound=Message)

# How long a writer waits to see its own write here.
_SEEN_S_MAX = 5.0


class Mirror(Generic[MessageT]):
    """The values of a bucket by key.

    Args:
        on_change: called with each key and its new value, or None when it was removed, before readers see it.
    """

    def __init__(
        self,
        bus: Bus,
        bucket: str,
        kind: type[MessageT],
        on_change: Callable[[str, MessageT | None], None] | None = None,
    ) -> None:
        self._bus = bus
        self._bucket = bucket
        self._kind = kind
        self._on_change = on_change
        self._values: dict[str, MessageT] = {}
        self._sequence = 0
        self._moved = asyncio.Condition()
        self._loaded = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the bucket, and go on following it."""
        self._task = asyncio.create_task(self._follow())
        loaded = asyncio.create_task(self._loaded.wait())
        await asyncio.wait({self._task, loaded}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        """Follow no more."""
        if self._task:
            await cancelled(self._task)

    async def ping(self) -> None:
        """Raise unless the bucket is being followed."""
        if self._task is None or self._task.done() or not self._loaded.is_set():
            raise Unavailable(f"{self._bucket} is not loaded")

    def get(self, key: str) -> MessageT | None:
        """The value under a key."""
        return self._values.get(key)

    def under(self, prefix: str) -> list[MessageT]:
        """The values whose keys begin with a prefix, by key."""
        return [self._values[key] for key in sorted(self._values) if key.startswith(prefix)]

    async def seen(self, sequence: int) -> None:
        """Wait until a write of this revision has arrived here.

        Raises:
            Unavailable: it has not within a few seconds.
        """
        await self._until(lambda: self._sequence >= sequence)

    async def gone(self, key: str) -> None:
        """Wait until the removal of a key has arrived here.

        Raises:
            Unavailable: it has not within a few seconds.
        """
        await self._until(lambda: key not in self._values)

    async def _until(self, holds: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(_SEEN_S_MAX), self._moved:
                await self._moved.wait_for(holds)
        except TimeoutError:
            raise Unavailable("the write is stored, but not yet visible; try again") from None

    async def _follow(self) -> None:
        subject = topology.bucket_subject(self._bucket, ">")
        async for entry in follow(self._bus, topology.bucket_stream(self._bucket), [subject]):
            if entry is None:
                self._loaded.set()
                continue
            value = None if entry.deleted else self._kind.FromString(entry.value)
            if self._on_change:
                self._on_change(entry.key, value)
            if value is None:
                self._values.pop(entry.key, None)
            else:
                self._values[entry.key] = value
            async with self._moved:
                self._sequence = entry.sequence
                self._moved.notify_all()
