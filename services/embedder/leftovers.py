"""Images that may have no owner any more: noted when an asset goes, removed once they surely are nobody's.

An image is kept under its file's hash, so that equal files share it; and a task may be on its way that found it there.
Hence the wait: longer than a task takes between vision, which finds an image, and the embedder, which writes whose it
is.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

import nats.errors
import structlog
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.embedder.config import LeftoverSettings
from services.embedder.store import Store
from services.mesh.blobs import BlobStore
from services.mesh.bus import topology
from services.mesh.bus.follow import Entry, scan
from services.mesh.bus.topology import Bus
from services.mesh.errors import LensmeshError
from services.mesh.tenancy import Tenant

log = structlog.get_logger()

# Notes written at a time.
_TOGETHER = 100


class Leftovers:
    """The bucket of noted images."""

    def __init__(self, bus: Bus, bucket: KeyValue, store: Store, blobs: BlobStore, settings: LeftoverSettings) -> None:
        self._bus = bus
        self._bucket = bucket
        self._store = store
        self._blobs = blobs
        self._settings = settings

    async def note(self, tenant: Tenant, images: Iterable[str]) -> None:
        """Have images looked after, by the hashes of their files; the wait begins now."""
        keys = [tenant.key(image) for image in images if image]
        for first in range(0, len(keys), _TOGETHER):
            await asyncio.gather(*(self._bucket.put(key, b"") for key in keys[first : first + _TOGETHER]))

    async def remove_regularly(self) -> None:
        """Look for images whose wait is over; for ever."""
        while True:
            await asyncio.sleep(self._settings.look_s)
            try:
                await self._remove()
            except (LensmeshError, nats.errors.Error, JetStreamError, OSError) as error:
                log.info("leftover images stay for now", error=str(error) or type(error).__name__)

    async def _remove(self) -> None:
        stream = topology.bucket_stream(topology.LEFTOVERS)
        due: defaultdict[Tenant, dict[str, Entry]] = defaultdict(dict)
        async for entry in scan(self._bus, stream, [topology.bucket_subject(topology.LEFTOVERS, ">")]):
            if (datetime.now(UTC) - entry.written_at).total_seconds() >= self._settings.wait_s:
                namespace_id, image = entry.key.split(".")
                due[Tenant(namespace_id)][image] = entry
        for tenant, noted in due.items():
            # One pass over the rows for all of them: a look for each would be a pass each.
            unowned = set(noted)
            async for part in self._store.parts(tenant, "", "", ["images"]):
                unowned.difference_update(image for row in part for image in row["images"].split())
            for image, entry in noted.items():
                if image in unowned:
                    await self._blobs.delete(tenant.image(image))
                    await self._blobs.delete(tenant.upload(image))
                try:
                    await self._bucket.delete(entry.key, last=entry.sequence)
                except KeyWrongLastSequenceError:
                    # Noted again meanwhile: its wait begins anew.
                    continue
