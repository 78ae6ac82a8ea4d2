"""The second hop: make the vectors, write asset, feature and vectors, and hand over to the percolator.

Which rows are written, `store` knows; which models are asked, `vectors`.
"""

from __future__ import annotations

import asyncio
import time

from lensmesh.v1 import asset_pb2, feature_pb2, index_pb2, task_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline
from lensmesh.v1.embedder_pb2 import NamedVector

from services.embedder import keywords
from services.embedder.changes import Changes, merged
from services.embedder.generations import Generations
from services.embedder.inputs import Inputs, info_of, words_of_metadata
from services.embedder.store import Store
from services.embedder.vectors import KEYWORD, MULTIMODAL, Vectors
from services.mesh.blobs import BlobStore
from services.mesh.bus import topology
from services.mesh.bus.tasks import Versioned, close_task
from services.mesh.bus.worker import Outcome
from services.mesh.errors import LensmeshError
from services.mesh.extractors import copied_note, done
from services.mesh.tenancy import Tenant, derived_uuid


class EmbedderWork:
    """What the embedder does with a task."""

    hop = topology.EMBEDDER
    needs = pipeline.STAGE_SEEN
    finishes = pipeline.STAGE_STORED
    step = "store"

    def __init__(
        self, vectors: Vectors, generations: Generations, store: Store, changes: Changes, blobs: BlobStore
    ) -> None:
        self._vectors = vectors
        self._generations = generations
        self._store = store
        self._changes = changes
        self._blobs = blobs
        self._storing: set[asyncio.Task[tuple[asset_pb2.Asset, feature_pb2.Feature]]] = set()

    async def run(self, known: Versioned, attempt: int, last_attempt: bool) -> Outcome:
        """Embed and store one asset."""
        record = known.record
        tenant = Tenant(record.namespace_id)
        steps: dict[str, task_pb2.TaskStep] = {}
        inputs = Inputs(self._vectors, self._blobs, tenant)
        vectors = await self._embed(inputs, tenant, record, attempt, last_attempt, steps)
        started = time.perf_counter()
        for index in {each.embedded.vector_index for each in vectors}:
            await self._generations.founded(tenant, index)
        # Cancelling does not break it off: rows under way would arrive after they were removed. Who removes them waits
        # for its turn.
        storing = asyncio.create_task(self._store_all(inputs, tenant, record, vectors, steps))
        self._storing.add(storing)
        storing.add_done_callback(self._stored)
        asset, feature = await asyncio.shield(storing)
        steps["store"] = done((time.perf_counter() - started) * 1e3, attempt)
        percolate = "percolate" in record.task.steps
        following = _following(asset, feature, vectors)

        def apply(changed: pipeline.TaskRecord) -> None:
            for name, step in steps.items():
                changed.task.steps[name].CopyFrom(step)
            del changed.task.outputs[:]
            changed.task.outputs.add(feature_id=feature.feature_id, modality=feature.modality)
            if percolate:
                changed.percolate.CopyFrom(following)
            else:
                close_task(changed)

        async def undo() -> None:
            await self._drop(tenant, record)

        return Outcome(apply, undo=undo)

    async def _store_all(
        self,
        inputs: Inputs,
        tenant: Tenant,
        record: pipeline.TaskRecord,
        vectors: list[NamedVector],
        steps: dict[str, task_pb2.TaskStep],
    ) -> tuple[asset_pb2.Asset, feature_pb2.Feature]:
        """Write asset, feature and vectors; the vectors that turn out to be needed besides are added to the list."""
        update = record.request.asset_update.mode
        async with self._store.turn(record.task.asset_id):
            asset, feature = await self._documents(tenant, record.embed, record, vectors, steps)
            # Of an asset that is to be found by words, those of its metadata are, too.
            by_words = any(each.embedded.vector_index == KEYWORD for each in vectors)
            versions = self._generations.written(tenant, KEYWORD) if by_words else []
            words = words_of_metadata(asset.metadata, versions)
            vectors += words
            feature.vectors.extend(map(info_of, words))
            await self._store.write(tenant, feature, vectors, asset)
            # Another generation may have been begun since the vectors were made; who builds it may have passed already.
            while missing := self._generations.lacking(tenant, vectors):
                more = await asyncio.gather(
                    *(inputs.vector(each.embedded.vector_index, each.field_name, each.input, v) for each, v in missing)
                )
                vectors += more
                feature.vectors.extend(map(info_of, more))
                await self._store.write(tenant, feature, more)
            if update == index_pb2.ASSET_UPDATE_MODE_REPLACE:
                await self._store.drop_features(tenant, asset.asset_id, keep=feature.feature_id)
            elif update == index_pb2.ASSET_UPDATE_MODE_APPEND:
                await self._changes.propagate(tenant, asset.asset_id, asset.metadata)
        return asset, feature

    def _stored(self, storing: asyncio.Task[tuple[asset_pb2.Asset, feature_pb2.Feature]]) -> None:
        self._storing.discard(storing)
        if not storing.cancelled():
            # Of a cancelled job, nobody else asks for it.
            storing.exception()

    async def abandon(self, record: pipeline.TaskRecord) -> None:
        """Remove what a task wrote that ended before it was stored."""
        if record.task.steps["store"].state != task_pb2.STEP_STATE_DONE and record.task.asset_id:
            await self._drop(Tenant(record.namespace_id), record)

    async def _drop(self, tenant: Tenant, record: pipeline.TaskRecord) -> None:
        asset_id = record.task.asset_id
        async with self._store.turn(asset_id):
            await self._store.drop_features(tenant, asset_id, only=_feature_id(tenant, record))
            if not record.request.HasField("asset_update"):
                await self._store.drop_asset(tenant, asset_id)

    async def _embed(
        self,
        inputs: Inputs,
        tenant: Tenant,
        record: pipeline.TaskRecord,
        attempt: int,
        last_attempt: bool,
        steps: dict[str, task_pb2.TaskStep],
    ) -> list[NamedVector]:
        """The vectors that could be made; what could not is told in the step, or raised to be tried again."""
        job = record.embed
        if "embed" not in record.task.steps:
            return []
        if job.copied_from:
            steps["embed"] = done(0, attempt, copied_note(job.copied_from))
            # The other asset's metadata are not this one's.
            return [each for each in job.copied if each.field_name != keywords.METADATA]
        started = time.perf_counter()
        wanted = [
            (each, inputs.vector(each.vector_index, each.field_name, _input(tenant, job, each), version))
            for each in job.inputs
            for version in self._generations.written(tenant, each.vector_index)
        ]
        results = await asyncio.gather(*(making for _, making in wanted), return_exceptions=True)
        vectors: list[NamedVector] = []
        step = task_pb2.TaskStep(state=task_pb2.STEP_STATE_DONE, attempts=attempt)
        if record.task.steps["embed"].HasField("error"):
            # An input that vision could not fetch or decode.
            step.state = task_pb2.STEP_STATE_FAILED
            step.error.CopyFrom(record.task.steps["embed"].error)
        for (one, _), result in zip(wanted, results, strict=True):
            if isinstance(result, LensmeshError):
                if result.retryable and not last_attempt:
                    result.details = (result.details or {}) | {"step": "embed"}
                    raise result
                step.state = task_pb2.STEP_STATE_FAILED
                step.error.CopyFrom(
                    task_pb2.TaskError(
                        message=f"{one.field_name}: {result.message}",
                        type=result.type,
                        stage="embed",
                        retryable=result.retryable,
                    )
                )
            elif isinstance(result, BaseException):
                raise result
            else:
                vectors.append(result)
        step.ms = round((time.perf_counter() - started) * 1e3, 1)
        steps["embed"] = step
        return vectors

    async def _documents(
        self,
        tenant: Tenant,
        job: pipeline.EmbedJob,
        record: pipeline.TaskRecord,
        vectors: list[NamedVector],
        steps: dict[str, task_pb2.TaskStep],
    ) -> tuple[asset_pb2.Asset, feature_pb2.Feature]:
        request, task = record.request, record.task
        asset = asset_pb2.Asset(
            asset_id=task.asset_id,
            collection_id=request.collection_id,
            metadata=request.metadata,
            modality=_modality(record),
            created_at=task.created_at,
        )
        if request.HasField("asset_update"):
            # Raises NotFound when the asset was deleted after the request was accepted.
            existing = await self._store.read_asset(tenant, task.asset_id)
            asset.collection_id = existing.collection_id
            asset.created_at.CopyFrom(existing.created_at)
            if request.asset_update.mode == index_pb2.ASSET_UPDATE_MODE_APPEND:
                asset.metadata.CopyFrom(merged(existing.metadata, request.metadata))
        failed = [each for each in (*task.steps.values(), *steps.values()) if each.state == task_pb2.STEP_STATE_FAILED]
        asset.status = "FAILED" if failed else "DONE"
        if failed:
            asset.error = failed[0].error.message
        asset.task_id = task.task_id
        asset.unique_hash = asset.file_hash = job.image.file_sha256
        asset.perceptual_hash = job.image.perceptual_hash
        asset.size_bytes = job.image.size_bytes
        if job.duplicate_of:
            asset.duplicate_of = job.duplicate_of
        asset.updated_at.CopyFrom(task.updated_at)
        asset.url = request.url
        return asset, _feature(tenant, record, asset, job, vectors)


def _modality(record: pipeline.TaskRecord) -> str:
    return "text" if record.is_text else "image"


def _feature_id(tenant: Tenant, record: pipeline.TaskRecord) -> str:
    return derived_uuid("feature", tenant.namespace_id, record.task.task_id)


def _feature(
    tenant: Tenant,
    record: pipeline.TaskRecord,
    asset: asset_pb2.Asset,
    job: pipeline.EmbedJob,
    vectors: list[NamedVector],
) -> feature_pb2.Feature:
    found = job.analysis
    feature = feature_pb2.Feature(
        feature_id=_feature_id(tenant, record),
        asset_id=asset.asset_id,
        collection_id=asset.collection_id,
        modality=_modality(record),
        created_at=record.task.created_at,
        metadata=asset.metadata,
        lines=found.lines,
        models=found.models,
        url=asset.url,
        task_id=asset.task_id,
    )
    if found.HasField("text"):
        feature.text = found.text
    if found.HasField("description"):
        feature.description = found.description
    if found.HasField("detect"):
        feature.detect.CopyFrom(found.detect)
    if found.HasField("json_output"):
        feature.json_output.CopyFrom(found.json_output)
    feature.vectors.extend(map(info_of, vectors))
    return feature


def _input(tenant: Tenant, job: pipeline.EmbedJob, one: pipeline.EmbedJobInput) -> feature_pb2.VectorInput:
    """What is embedded, in words that stay true when the job is forgotten."""
    if one.WhichOneof("input") == "text":
        return feature_pb2.VectorInput(text=one.text)
    # Models of both may use what was read on the image.
    own = one.vector_index == MULTIMODAL and one.blob_key == job.image.blob_key
    return feature_pb2.VectorInput(
        image_sha256=tenant.image_sha256(one.blob_key), text=job.analysis.text if own else "", landmarks=one.landmarks
    )


def _following(
    asset: asset_pb2.Asset, feature: feature_pb2.Feature, vectors: list[NamedVector]
) -> pipeline.PercolateJob:
    return pipeline.PercolateJob(
        asset_id=asset.asset_id,
        feature_id=feature.feature_id,
        collection_id=asset.collection_id,
        metadata=asset.metadata,
        vectors=[each.embedded for each in vectors],
        modality=feature.modality,
    )
