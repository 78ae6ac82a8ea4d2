"""Images that may have no owner any more: noted when an asset goes, removed once they surely are nobody's.

An image is kept under its file's hash, so that equal files share it; and a task may be on its way that found it there.
Hence the wait: longer than a task takes between vision, which finds an image, and the embedder, which writes whose it
is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

import nats.errors
import structlog
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.embedder import rows
from services.embedder.config import LeftoverSettings
from services.embedder.store import Store
from services.mesh.blobs import BlobStore
from services.mesh.bus import topology
from services.mesh.bus.follow import scan
from services.mesh.bus.topology import Bus
from services.mesh.errors import LensmeshError
from services.mesh.tenancy import Tenant

log = structlog.get_logger()


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
        for image in images:
            if image:
                await self._bucket.put(tenant.key(image), b"")

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
        noted = [e async for e in scan(self._bus, stream, [topology.bucket_subject(topology.LEFTOVERS, ">")])]
        for entry in noted:
            if (datetime.now(UTC) - entry.written_at).total_seconds() < self._settings.wait_s:
                continue
            namespace_id, image = entry.key.split(".")
            tenant = Tenant(namespace_id)
            if not await self._store.selected(tenant, "", f"images like {rows.quoted(f'%{image}%')}", ["kind"]):
                await self._blobs.delete(tenant.image(image))
                await self._blobs.delete(tenant.upload(image))
            try:
                await self._bucket.delete(entry.key, last=entry.sequence)
            except KeyWrongLastSequenceError:
                # Noted again meanwhile: its wait begins anew.
                continue
