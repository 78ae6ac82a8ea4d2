"""The logos that namespaces upload: kept in a bucket that vision alone writes, followed into memory.

What a mark is and how it is compared, `marks` and `gallery` know.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import nats.errors
import numpy as np
import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from lensmesh.v1 import logo_pb2, vision_pb2
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue
from numpy.typing import NDArray
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.mesh.blobs import BlobStore
from services.mesh.bus import topology
from services.mesh.bus.mirror import Mirror
from services.mesh.bus.tasks import now
from services.mesh.bus.topology import Bus
from services.mesh.cancelling import cancelled
from services.mesh.errors import LensmeshError, NotFound, ResourceExhausted, Unavailable
from services.mesh.tenancy import Tenant, derived_uuid
from services.vision.acquire import Acquirer
from services.vision.gallery import Finding, Gallery, Vectors
from services.vision.marks import KnownMark, Marks, markable

log = structlog.get_logger()

# Between two tries to make a mark anew while a server is away.
_AGAIN_S = 1.0


class LogoSettings(BaseSettings):
    """Limits of what a namespace may upload."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_VISION_", extra="ignore")

    gallery_logos_max: int = Field(
        5_000, ge=1, description="Logos a namespace may have: up to 100 MB of memory, and 4 ms an image."
    )


class Logos:
    """Every uploaded logo of every namespace."""

    def __init__(
        self, bus: Bus, bucket: KeyValue, blobs: BlobStore, acquirer: Acquirer, marks: Marks, settings: LogoSettings
    ) -> None:
        self._bucket = bucket
        self._blobs = blobs
        self._acquirer = acquirer
        self._marks = marks
        self._settings = settings
        self._galleries: dict[str, Gallery] = {}
        self._mirror = Mirror(bus, topology.LOGOS, vision_pb2.LogoRecord, self._changed)
        # One write at a time, so that the limit holds.
        self._writing = asyncio.Lock()
        self._remaking: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, bus: Bus, blobs: BlobStore, acquirer: Acquirer, marks: Marks, settings: LogoSettings) -> Logos:
        """Load all logos, go on following them, and make marks of another version anew in the background."""
        logos = cls(bus, await bus.bucket(topology.LOGOS), blobs, acquirer, marks, settings)
        await logos._mirror.start()
        every = logos._mirror.under("")
        log.info("uploaded logos loaded", count=len(every))
        stale = [each for each in every if each.role_version != marks.version]
        if stale and marks.offered:
            logos._remaking = asyncio.create_task(logos._remake(stale))
        return logos

    async def close(self) -> None:
        """Follow no more."""
        if self._remaking:
            await cancelled(self._remaking)
        await self._mirror.stop()

    async def ping(self) -> None:
        """Raise unless the logos are loaded and followed."""
        await self._mirror.ping()

    def has(self, tenant: Tenant) -> bool:
        """Whether the namespace has marks to look for."""
        return self._marks.offered and bool(self._galleries.get(tenant.namespace_id))

    def unchanged(self, tenant: Tenant, since: Timestamp, found: Iterable[str]) -> bool:
        """Whether what was found among the namespace's logos then, by these ids, would be found now."""
        known = self.all(tenant)
        ids, moment = {each.logo_id for each in known}, since.ToNanoseconds()
        return ids.issuperset(found) and all(each.created_at.ToNanoseconds() < moment for each in known)

    async def find(self, tenant: Tenant, inputs: Mapping[str, NDArray[Any]]) -> list[Finding]:
        """The logos on a picture, as `Marks.find`."""
        return await self._marks.find(inputs, partial(self._near, tenant))

    async def put(self, tenant: Tenant, name: str, content: bytes) -> logo_pb2.UploadedLogo:
        """Store a logo; returns when it is being looked for. The same image and name again is the same logo.

        Args:
            content: an image file.

        Raises:
            ResourceExhausted: the namespace has as many as it may.
            LensmeshError: the image can't be decoded or shows no mark, or the models do not answer.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        logo = logo_pb2.UploadedLogo(
            logo_id=derived_uuid("logo", tenant.namespace_id, name, sha256), name=name, file_id=sha256, created_at=now()
        )
        key = tenant.key(logo.logo_id)
        known = self._mirror.get(key)
        if known and known.role_version == self._marks.version:
            return known.logo
        self._check_room(tenant, key)
        record = await self._record(tenant, known.logo if known else logo, content)
        await self._blobs.put(tenant.blob(sha256), content)
        async with self._writing:
            self._check_room(tenant, key)
            try:
                if known:
                    revision = await self._bucket.put(key, record.SerializeToString())
                else:
                    revision = await self._bucket.create(key, record.SerializeToString())
            except KeyWrongLastSequenceError:
                entry = await self._bucket.get(key)
                record, revision = vision_pb2.LogoRecord.FromString(entry.value or b""), entry.revision or 0
            await self._mirror.seen(revision)
        return record.logo

    def get(self, tenant: Tenant, logo_id: str) -> logo_pb2.UploadedLogo:
        """Read a logo.

        Raises:
            NotFound: there is none in this namespace.
        """
        record = self._mirror.get(tenant.key(logo_id))
        if record is None:
            raise NotFound(f"no logo {logo_id!r} in this namespace")
        return record.logo

    def all(self, tenant: Tenant) -> list[logo_pb2.UploadedLogo]:
        """The namespace's logos, oldest first."""
        logos = [record.logo for record in self._mirror.under(tenant.namespace_id + ".")]
        return sorted(logos, key=lambda each: (each.created_at.ToNanoseconds(), each.logo_id))

    async def remove(self, tenant: Tenant, logo_id: str) -> None:
        """Remove a logo; returns when it is not looked for any more. Its file stays.

        Raises:
            NotFound: there is none in this namespace.
        """
        self.get(tenant, logo_id)
        await self._bucket.delete(tenant.key(logo_id))
        await self._mirror.gone(tenant.key(logo_id))

    async def forget(self, tenant: Tenant) -> None:
        """Remove all logos of a namespace."""
        for logo in self.all(tenant):
            await self.remove(tenant, logo.logo_id)

    def _check_room(self, tenant: Tenant, key: str) -> None:
        limit = self._settings.gallery_logos_max
        if self._mirror.get(key) is None and len(self._mirror.under(tenant.namespace_id + ".")) >= limit:
            raise ResourceExhausted(
                f"the namespace has {limit} logos, as many as it may (LENSMESH_VISION_GALLERY_LOGOS_MAX); delete some"
            )

    def _near(self, tenant: Tenant, regions: Vectors) -> list[KnownMark]:
        records = (self._mirror.get(tenant.key(each)) for each in self._galleries[tenant.namespace_id].near(regions))
        return [
            KnownMark(each.logo.logo_id, each.logo.name, zlib.decompress(each.mark))
            for each in records
            if each is not None
        ]

    async def _record(self, tenant: Tenant, logo: logo_pb2.UploadedLogo, content: bytes) -> vision_pb2.LogoRecord:
        image = await self._acquirer.from_bytes(content)
        document, vectors = await self._marks.make(markable(content, image))
        return vision_pb2.LogoRecord(
            namespace_id=tenant.namespace_id,
            logo=logo,
            role_version=self._marks.version,
            mark=zlib.compress(document),
            vectors=vectors.astype("<f4").tobytes(),
            views=len(vectors),
        )

    async def _remake(self, stale: list[vision_pb2.LogoRecord]) -> None:
        """Make marks of another version anew, of the images that they were made of."""
        for old in stale:
            try:
                while not await self._remade(old):
                    await asyncio.sleep(_AGAIN_S)
            except LensmeshError as error:
                log.error("logo not looked for: its mark can't be made anew", logo=old.logo.logo_id, error=str(error))
        log.info("marks made anew", count=len(stale), version=self._marks.version)

    async def _remade(self, old: vision_pb2.LogoRecord) -> bool:
        """Whether nothing is left to do for a logo; False: a server does not answer now."""
        tenant = Tenant(old.namespace_id)
        key = tenant.key(old.logo.logo_id)
        try:
            fresh = await self._record(tenant, old.logo, await self._blobs.get(tenant.blob(old.logo.file_id)))
            entry = await self._bucket.get(key)
            if vision_pb2.LogoRecord.FromString(entry.value or b"").role_version != self._marks.version:
                await self._bucket.update(key, fresh.SerializeToString(), entry.revision)
        except (KeyNotFoundError, KeyWrongLastSequenceError):
            # Removed, or made anew elsewhere meanwhile.
            return True
        except (Unavailable, nats.errors.Error, JetStreamError, OSError):
            return False
        return True

    def _changed(self, key: str, record: vision_pb2.LogoRecord | None) -> None:
        namespace_id, logo_id = key.split(".")
        gallery = self._galleries.setdefault(namespace_id, Gallery())
        if record is None or record.role_version != self._marks.version:
            gallery.remove(logo_id)
            return
        try:
            gallery.put(logo_id, np.frombuffer(record.vectors, "<f4").reshape(record.views, -1))
        except ValueError as error:
            # One record that can't be read must not keep the others from being looked for.
            log.error("uploaded logo left out", logo=logo_id, error=str(error))
