"""The first hop: fetch, claim, store the normalised image, analyse, and hand over to the embedder; texts likewise.

How each of these is done, the modules that it calls know.
"""

from __future__ import annotations

import asyncio
import hashlib
import time

from lensmesh.v1 import common_pb2, index_pb2, task_pb2, vision_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline

from services.mesh.blobs import BlobStore
from services.mesh.bus import topology
from services.mesh.bus.tasks import TaskStore, Versioned, is_terminal
from services.mesh.bus.worker import Outcome
from services.mesh.errors import DuplicateAsset, LensmeshError
from services.mesh.extractors import copied_note, done, effective, is_on, on_duplicate, text_of, vision_steps
from services.mesh.json_names import enum_names
from services.mesh.tenancy import Tenant, derived_uuid
from services.vision.acquire import Acquirer, NormalisedImage
from services.vision.analyse import Analyser
from services.vision.claims import Claims
from services.vision.copies import Copies

# A fetch that takes longer is worth a write of the record.
_LONG_FETCH_S = 0.25


class VisionWork:
    """What vision does with a task."""

    hop = topology.VISION
    needs = pipeline.STAGE_ACCEPTED
    finishes = pipeline.STAGE_SEEN
    step = "fetch"

    def __init__(
        self,
        tasks: TaskStore,
        acquirer: Acquirer,
        claims: Claims,
        copies: Copies,
        blobs: BlobStore,
        analyser: Analyser,
    ) -> None:
        self._tasks = tasks
        self._acquirer = acquirer
        self._claims = claims
        self._copies = copies
        self._blobs = blobs
        self._analyser = analyser

    async def run(self, known: Versioned, attempt: int, last_attempt: bool) -> Outcome:
        """Fetch and analyse one image, or analyse a text."""
        if known.record.is_text:
            return await self._run_text(known, attempt, last_attempt)
        tenant = Tenant(known.record.namespace_id)
        started = time.perf_counter()
        image = await self._fetch(tenant, known)
        reference = image_ref(image, tenant.image(image.file_sha256))
        (asset_id, existing), _ = await asyncio.gather(
            self._asset(tenant, known.record, image.file_sha256), self._blobs.put(reference.blob_key, image.content)
        )
        steps = {"fetch": done((time.perf_counter() - started) * 1e3, attempt)}
        extractors = effective(known.record.request)
        following = pipeline.EmbedJob(image=reference, duplicate_of=existing.asset_id if existing else "")
        embed_failure: task_pb2.TaskError | None = None
        copied = await self._copied(tenant, known.record, existing)
        if copied:
            following.MergeFrom(copied)
            steps |= {name: done(0, attempt, copied_note(copied.copied_from)) for name in vision_steps(extractors)}
        else:
            analysis = await self._analyser.analyse(
                tenant, image.content, extractors, attempt=attempt, last_attempt=last_attempt
            )
            steps |= analysis.steps
            inputs, embed_failure = await self._inputs(tenant, extractors, analysis.found, reference, last_attempt)
            following.analysis.CopyFrom(analysis.found)
            following.inputs.extend(inputs)
        return _outcome(asset_id, following, steps, embed_failure)

    async def _run_text(self, known: Versioned, attempt: int, last_attempt: bool) -> Outcome:
        """Claim and analyse one text: nothing is fetched or decoded, and it has no perceptual hash."""
        tenant = Tenant(known.record.namespace_id)
        extractors = effective(known.record.request)
        text = text_of(extractors)
        content = text.encode()
        sha256 = hashlib.sha256(content).hexdigest()
        asset_id, existing = await self._asset(tenant, known.record, sha256)
        following = pipeline.EmbedJob(
            image=common_pb2.ImageRef(file_sha256=sha256, size_bytes=len(content)),
            duplicate_of=existing.asset_id if existing else "",
        )
        copied = await self._copied(tenant, known.record, existing)
        if copied:
            following.MergeFrom(copied)
            steps = {name: done(0, attempt, copied_note(copied.copied_from)) for name in vision_steps(extractors)}
        else:
            analysis = await self._analyser.analyse_text(text, extractors, attempt=attempt, last_attempt=last_attempt)
            steps = analysis.steps
            following.analysis.CopyFrom(analysis.found)
            inputs = [_text_input(embed.vector_index, embed.field_name, embed.value) for embed in extractors.embed]
            # Of two under one name, the last.
            following.inputs.extend({(each.vector_index, each.field_name): each for each in inputs}.values())
        return _outcome(asset_id, following, steps)

    async def _copied(
        self, tenant: Tenant, record: pipeline.TaskRecord, existing: pipeline.DuplicateClaim | None
    ) -> pipeline.EmbedJob | None:
        """What the asset that has the same file gives, where the request wants it copied."""
        if existing is None or on_duplicate(record.request) != index_pb2.ON_DUPLICATE_COPY_FEATURES:
            return None
        return await self._copies.find(tenant, effective(record.request), existing)

    async def abandon(self, record: pipeline.TaskRecord) -> None:
        """Nothing is held: a claim of a task that stored nothing is void by itself."""

    async def _fetch(self, tenant: Tenant, known: Versioned) -> NormalisedImage:
        """The uploaded image, or that behind the URL; while it is long in coming, the record says DOWNLOADING."""
        if upload := known.record.upload_sha256:
            return await self._acquirer.from_bytes(await self._blobs.get(tenant.upload(upload)))
        fetching = asyncio.create_task(self._acquirer.from_url(known.record.request.url))
        try:
            await asyncio.wait({fetching}, timeout=_LONG_FETCH_S)
            if not fetching.done():
                await self._tasks.change(tenant, known, _downloading)
            return await fetching
        finally:
            fetching.cancel()

    async def _asset(
        self, tenant: Tenant, record: pipeline.TaskRecord, sha256: str
    ) -> tuple[str, pipeline.DuplicateClaim | None]:
        """The asset's id, and the claim of the one that has the same file already.

        Raises:
            DuplicateAsset: there is one, and the request asks to skip duplicates.
        """
        request = record.request
        if request.HasField("asset_update"):
            claimed = pipeline.DuplicateClaim(asset_id=request.asset_update.asset_id, task_id=record.task.task_id)
            await self._claims.claim(tenant, request.collection_id, sha256, claimed)
            return request.asset_update.asset_id, None
        asset_id = derived_uuid("asset", tenant.namespace_id, record.task.task_id)
        mine = pipeline.DuplicateClaim(asset_id=asset_id, task_id=record.task.task_id)
        existing = await self._claims.claim(tenant, request.collection_id, sha256, mine)
        if existing and on_duplicate(request) == index_pb2.ON_DUPLICATE_SKIP:
            kind = "text" if record.is_text else "file"
            raise DuplicateAsset(
                f"the same {kind} is already in this collection as asset {existing.asset_id}",
                details={"asset_id": existing.asset_id, "step": "store" if record.is_text else "fetch"},
            )
        return asset_id, existing

    async def _inputs(
        self,
        tenant: Tenant,
        extractors: index_pb2.FeatureExtractors,
        found: vision_pb2.ImageAnalysis,
        image: common_pb2.ImageRef,
        last_attempt: bool,
    ) -> tuple[list[pipeline.EmbedJobInput], task_pb2.TaskError | None]:
        """The embeddings to make, by (index, field name), the last writer winning: read, embed, describe."""
        chosen: dict[tuple[int, str], pipeline.EmbedJobInput] = {}

        def add(one: pipeline.EmbedJobInput) -> None:
            chosen[(one.vector_index, one.field_name)] = one

        if is_on(extractors, "read") and extractors.read.HasField("vector_index") and found.text:
            add(_text_input(extractors.read.vector_index, "", found.text))
        for face in _face_inputs(found, image.blob_key):
            add(face)
        failure: task_pb2.TaskError | None = None
        resolved = await asyncio.gather(
            *(self._input(tenant, each, image) for each in extractors.embed), return_exceptions=True
        )
        for position, one in enumerate(resolved):
            if isinstance(one, LensmeshError):
                if one.retryable and not last_attempt:
                    one.details = (one.details or {}) | {"step": "embed"}
                    raise one
                failure = task_pb2.TaskError(
                    message=f"embed[{position}]: {one.message}", type=one.type, stage="embed", retryable=one.retryable
                )
            elif isinstance(one, BaseException):
                raise one
            else:
                add(one)
        if is_on(extractors, "describe") and extractors.describe.HasField("vector_index") and found.description:
            add(_text_input(extractors.describe.vector_index, "", found.description))
        return list(chosen.values()), failure

    async def _input(
        self, tenant: Tenant, embed: index_pb2.Embed, image: common_pb2.ImageRef
    ) -> pipeline.EmbedJobInput:
        name = embed.field_name or _index_name(embed.vector_index)
        if embed.type == index_pb2.EMBED_TYPE_TEXT:
            return _text_input(embed.vector_index, name, embed.value)
        key = image.blob_key
        if embed.type == index_pb2.EMBED_TYPE_FILE:
            content = await self._blobs.get(tenant.blob(embed.value))
            key = await self._store(tenant, await self._acquirer.from_bytes(content))
        elif embed.HasField("value") and embed.value:
            key = await self._store(tenant, await self._acquirer.from_url(embed.value))
        return pipeline.EmbedJobInput(vector_index=embed.vector_index, field_name=name, blob_key=key)

    async def _store(self, tenant: Tenant, image: NormalisedImage) -> str:
        key = tenant.image(image.file_sha256)
        await self._blobs.put(key, image.content)
        return key


def _outcome(
    asset_id: str,
    following: pipeline.EmbedJob,
    steps: dict[str, task_pb2.TaskStep],
    embed_failure: task_pb2.TaskError | None = None,
) -> Outcome:
    """The task with the steps that are done, and the embedder's job in it."""

    def apply(changed: pipeline.TaskRecord) -> None:
        changed.task.status = task_pb2.TASK_STATUS_PROCESSING
        changed.task.asset_id = asset_id
        for name, step in steps.items():
            changed.task.steps[name].CopyFrom(step)
        if embed_failure:
            changed.task.steps["embed"].error.CopyFrom(embed_failure)
        changed.embed.CopyFrom(following)

    return Outcome(apply)


def image_ref(image: NormalisedImage, blob_key: str = "") -> common_pb2.ImageRef:
    """A normalised image as the contracts name it."""
    return common_pb2.ImageRef(
        file_sha256=image.file_sha256,
        blob_key=blob_key,
        width=image.width,
        height=image.height,
        format=image.format,
        size_bytes=image.size_bytes,
        perceptual_hash=image.perceptual_hash,
    )


def _index_name(index: common_pb2.VectorIndex.ValueType) -> str:
    return enum_names(common_pb2.VectorIndex.DESCRIPTOR)[index]


def _text_input(index: common_pb2.VectorIndex.ValueType, name: str, text: str) -> pipeline.EmbedJobInput:
    return pipeline.EmbedJobInput(vector_index=index, field_name=name or _index_name(index), text=text)


def _face_inputs(found: vision_pb2.ImageAnalysis, blob_key: str) -> list[pipeline.EmbedJobInput]:
    """Those of the faces that are to be searched by."""
    return [
        pipeline.EmbedJobInput(
            vector_index=common_pb2.VECTOR_INDEX_FACE,
            field_name=face.field_name,
            blob_key=blob_key,
            landmarks=face.landmarks,
        )
        for face in found.detect.faces
        if face.field_name
    ]


def _downloading(record: pipeline.TaskRecord) -> bool:
    if is_terminal(record) or record.task.status == task_pb2.TASK_STATUS_DOWNLOADING:
        return False
    record.task.status = task_pb2.TASK_STATUS_DOWNLOADING
    return True
