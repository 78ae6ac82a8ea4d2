"""Makes the vectors that an index lacks of the model in use now, and then has it searched by them.

A feature that has them already is passed over, so a run that broke off is simply started again. What a generation is,
`generations` knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import structlog
from lensmesh.v1 import feature_pb2, namespace_pb2
from lensmesh.v1.embedder_pb2 import NamedVector

from services.embedder.config import ReembedSettings
from services.embedder.generations import Generations
from services.embedder.inputs import Inputs, info_of
from services.embedder.store import Store
from services.embedder.vectors import Index, Vectors
from services.mesh.blobs import BlobStore
from services.mesh.errors import LensmeshError, NotFound
from services.mesh.tenancy import Tenant

log = structlog.get_logger()

# Features are walked through by the first hex digits of their ids, which are random: 256 parts of about equal size.
_PREFIX_DIGITS = 2
_PARTS = 16**_PREFIX_DIGITS


class Reembed:
    """Builds generations, and switches to them."""

    def __init__(
        self, vectors: Vectors, generations: Generations, store: Store, blobs: BlobStore, settings: ReembedSettings
    ) -> None:
        self._vectors = vectors
        self._generations = generations
        self._store = store
        self._blobs = blobs
        self._settings = settings
        self._dropping: set[asyncio.Task[None]] = set()

    async def build(self, tenant: Tenant, index: Index) -> AsyncIterator[namespace_pb2.ReembedProgress]:
        """Make what is missing; from the start on, new assets get vectors of both models.

        Yields:
            The counts so far, after each part; the phase is UNCHANGED when the index is of the model in use already.
        """
        progress = namespace_pb2.ReembedProgress(
            vector_index=index,
            phase=namespace_pb2.REEMBED_PHASE_FEATURES,
            from_version=self._generations.active(tenant, index),
            to_version=self._vectors.version(index),
        )
        if progress.from_version == progress.to_version:
            progress.phase = namespace_pb2.REEMBED_PHASE_UNCHANGED
            progress.share = 1
            yield progress
            return
        await self._generations.build(tenant, index)
        free = asyncio.Semaphore(self._settings.concurrency)

        async def one(feature_id: str) -> None:
            async with free:
                await self._complete(tenant, index, feature_id, progress)

        for part in range(_PARTS):
            feature_ids = await self._store.feature_ids(tenant, f"{part:0{_PREFIX_DIGITS}x}")
            await asyncio.gather(*map(one, feature_ids))
            progress.share = (part + 1) / _PARTS
            yield progress

    async def switch(self, tenant: Tenant, index: Index) -> None:
        """Have the index searched by the model in use now; returns when the old vectors are gone.

        Raises:
            Conflict: the new vectors are not being made.
        """
        before = await self._generations.switch(tenant, index)
        if before != self._vectors.version(index):
            log.info("index switched", namespace_id=tenant.namespace_id, index=index, was=before)
            dropping = asyncio.create_task(self._drop(tenant, index, before))
            self._dropping.add(dropping)
            dropping.add_done_callback(self._dropping.discard)
            # Shielded: whoever hangs up now must not leave the old vectors behind.
            await asyncio.shield(dropping)

    async def _drop(self, tenant: Tenant, index: Index, version: str) -> None:
        await asyncio.sleep(self._settings.grace_s)
        await self._store.drop_generation(tenant, index, version)

    async def _complete(
        self, tenant: Tenant, index: Index, feature_id: str, progress: namespace_pb2.ReembedProgress
    ) -> None:
        """Give one feature the vectors of this index that it lacks."""
        newest = self._vectors.version(index)
        try:
            asset_id = (await self._store.whole_feature(tenant, feature_id)).asset_id
            async with self._store.turn(asset_id):
                # Read again: whoever had its turn before may have changed it.
                feature = await self._store.whole_feature(tenant, feature_id)
                await self._add(tenant, index, newest, feature, progress)
        except NotFound:
            return  # Deleted meanwhile.

    async def _add(
        self,
        tenant: Tenant,
        index: Index,
        newest: str,
        feature: feature_pb2.Feature,
        progress: namespace_pb2.ReembedProgress,
    ) -> None:
        inputs = Inputs(self._vectors, self._blobs, tenant)
        by_name = {each.field_name: each for each in feature.vectors if each.vector_index == index}
        present = {e.field_name for e in feature.vectors if e.vector_index == index and e.model_version == newest}
        progress.present += len(present)
        made: list[NamedVector] = []
        for name in sorted(by_name.keys() - present):
            try:
                made.append(await inputs.vector(index, name, _known_input(by_name[name]), newest))
            except LensmeshError as error:
                if error.retryable:
                    # Trouble that passes must not cost a vector: the run ends, and is started again.
                    raise
                progress.failed += 1
                progress.last_error = f"feature {feature.feature_id}, {name}: {error.message}"
        if made:
            self._list(tenant, feature, made)
            await self._store.write(tenant, feature, made)
            progress.made += len(made)

    def _list(self, tenant: Tenant, feature: feature_pb2.Feature, made: list[NamedVector]) -> None:
        """Add the new vectors to the feature's list, and forget those of generations that are gone."""
        alive = self._generations.alive
        kept = [each for each in feature.vectors if each.model_version in alive(tenant, each.vector_index)]
        del feature.vectors[:]
        feature.vectors.extend(kept)
        feature.vectors.extend(map(info_of, made))


def _known_input(info: feature_pb2.VectorInfo) -> feature_pb2.VectorInput:
    if not info.input.text and not info.input.image_sha256:
        raise NotFound("what it was made of was not kept; index the image again")
    return info.input
