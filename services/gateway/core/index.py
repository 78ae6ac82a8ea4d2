"""Takes images and texts in: checks what the contracts can't say, records the task, dispatches it, answers."""

from __future__ import annotations

import hashlib
import math
import time
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import grpc
import structlog
from google.protobuf.json_format import MessageToDict, MessageToJson
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from lensmesh.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc, index_pb2, task_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline
from nats.errors import Error as NatsError
from nats.js.errors import APIError
from nats.js.errors import Error as JetStreamError

from services.gateway.auth import Caller
from services.gateway.config import GatewaySettings
from services.gateway.core.collections import Collections
from services.gateway.core.files import Files
from services.gateway.spool import Incoming, SpooledFile
from services.mesh.bus.tasks import TaskStore, Versioned, now
from services.mesh.errors import (
    FieldViolation,
    InvalidArgument,
    PayloadTooLarge,
    QuotaExceeded,
    ResourceExhausted,
    Unavailable,
)
from services.mesh.extractors import effective, is_on, on_duplicate, requested_steps, text_of
from services.mesh.json_names import enum_names
from services.mesh.shapes import check_shape
from services.mesh.tenancy import Tenant

log = structlog.get_logger()

# NATS' own error code for "maximum messages exceeded".
_STREAM_FULL = 10077


class Index:
    """Accepts images and texts."""

    def __init__(
        self,
        tasks: TaskStore,
        collections: Collections,
        files: Files,
        embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub,
        settings: GatewaySettings,
    ) -> None:
        self._tasks = tasks
        self._collections = collections
        self._files = files
        self._embedder = embedder
        self._settings = settings
        # When assets were last counted, and how many there were, by namespace.
        self._counts: dict[str, tuple[float, int]] = {}

    async def index_image(self, caller: Caller, request: index_pb2.IndexImageRequest) -> index_pb2.IndexImageResponse:
        """Accept an image: when this returns, the task is durable and on its way."""
        if problem := url_problem(request.url):
            raise InvalidArgument([*self._violations(caller, request), _violation("url", problem, "url.parts")])
        task_id = await self._accept(caller, request, task_pb2.TaskInput(type="url", value=request.url))
        return index_pb2.IndexImageResponse(message="Image URL processing queued", task_id=task_id)

    async def index_upload(self, caller: Caller, incoming: Incoming) -> index_pb2.IndexUploadResponse:
        """Accept an image that comes as a file, as `index_image` does."""
        head, file = incoming.request, self._files.checked(incoming.file, "file")
        request = _as_image_request(head)
        shown = task_pb2.TaskInput(type="file", value=file.sha256)
        task_id = await self._accept(caller, request, shown, upload=file)
        return index_pb2.IndexUploadResponse(message="Image upload processing queued", task_id=task_id)

    async def index_text(self, caller: Caller, request: index_pb2.IndexTextRequest) -> index_pb2.IndexTextResponse:
        """Accept a text, as `index_image` does an image."""
        if violations := list(_text_violations(request)):
            raise InvalidArgument(violations)
        kept = _as_image_request(request)
        sha256 = hashlib.sha256(text_of(kept.feature_extractors).encode()).hexdigest()
        task_id = await self._accept(caller, kept, task_pb2.TaskInput(type="text", value=sha256))
        return index_pb2.IndexTextResponse(message="Text processing queued", task_id=task_id)

    async def _accept(
        self,
        caller: Caller,
        request: index_pb2.IndexImageRequest,
        shown: task_pb2.TaskInput,
        *,
        upload: SpooledFile | None = None,
    ) -> str:
        """Check a request, store what it brings along, record and dispatch its task; returns the task's id."""
        tenant = caller.tenant
        self._check(caller, request)
        if request.HasField("asset_update"):
            # Answers 404 at once for an asset that does not exist.
            asset_id = request.asset_update.asset_id
            await self._embedder.ReadAsset(
                embedder_pb2.ReadAssetRequest(namespace_id=tenant.namespace_id, asset_id=asset_id)
            )
        else:
            await self._check_room(caller)
        kept = await self._kept(caller, request)
        record = _new_record(tenant, kept, shown)
        if (size := record.ByteSize()) > self._settings.request_bytes_max:
            limit = self._settings.request_bytes_max
            raise PayloadTooLarge(f"the request takes {size} bytes without its files; at most {limit} are taken")
        if upload:
            await self._files.keep_upload(tenant, upload)
        await self._dispatch(tenant, record)
        return record.task.task_id

    async def _check_room(self, caller: Caller) -> None:
        """Raise QuotaExceeded when the namespace holds as many assets as it may, by a count some seconds old."""
        limits, namespace_id = caller.namespace.limits, caller.tenant.namespace_id
        most = limits.assets_max if limits.HasField("assets_max") else self._settings.assets_max
        counted, there = self._counts.get(namespace_id, (-math.inf, 0))
        if time.monotonic() - counted > self._settings.count_s:
            # Before the count is asked for, so that of many requests at once one asks.
            self._counts[namespace_id] = (time.monotonic(), there)
            try:
                answer = await self._embedder.CountAssets(embedder_pb2.CountAssetsRequest(namespace_id=namespace_id))
            except grpc.aio.AioRpcError as error:
                # Images are taken in while the embedder is away; they are counted when it is back.
                log.info("assets not counted", namespace_id=namespace_id, error=error.details())
            else:
                there = answer.counts[""]
                self._counts[namespace_id] = (time.monotonic(), there)
        if there >= most:
            raise QuotaExceeded(f"this namespace has {there} assets; at most {most} are kept")

    async def _dispatch(self, tenant: Tenant, record: pipeline.TaskRecord) -> None:
        task_id = record.task.task_id
        revision = await self._tasks.create(tenant, record)
        try:
            await self._tasks.dispatch(tenant, Versioned(record, revision))
        except (NatsError, JetStreamError, OSError) as error:
            # Not accepted, so the record goes; should that fail too, the sweeper brings the task to its end.
            try:
                await self._tasks.delete(tenant, task_id, revision)
            except (NatsError, JetStreamError, OSError):
                log.warning("record of a refused task left to the sweeper", task=task_id)
            if isinstance(error, APIError) and error.err_code == _STREAM_FULL:
                raise ResourceExhausted(
                    "too many tasks are waiting; try again later", retry_after_s=self._settings.retry_after_s
                ) from error
            raise Unavailable("the task could not be queued; try again", retry_after_s=2) from error

    def _check(self, caller: Caller, request: index_pb2.IndexImageRequest) -> None:
        """What the rules in the contracts can't say. Raises InvalidArgument with all violations."""
        if violations := self._violations(caller, request):
            raise InvalidArgument(violations)
        for path, shape in _shapes(request.feature_extractors):
            check_shape(MessageToDict(shape), path)

    def _violations(self, caller: Caller, request: index_pb2.IndexImageRequest) -> list[FieldViolation]:
        violations = [*_index_violations(caller, effective(request)), *_duplicate_violations(request)]
        size = len(MessageToJson(request.metadata, indent=None)) if request.HasField("metadata") else 0
        if size > self._settings.metadata_bytes_max:
            limit = self._settings.metadata_bytes_max
            violations.append(_violation("metadata", f"has {size} bytes as JSON; at most {limit}", "metadata.bytes"))
        limit = self._settings.embed_text_chars_max
        for position, embed in enumerate(request.feature_extractors.embed):
            path = f"feature_extractors.embed.{position}.value"
            if embed.type == index_pb2.EMBED_TYPE_TEXT and len(embed.value) > limit:
                violations.append(_violation(path, f"has {len(embed.value)} characters; at most {limit}", "text.chars"))
            if embed.type == index_pb2.EMBED_TYPE_URL and embed.value and (problem := url_problem(embed.value)):
                violations.append(_violation(path, problem, "url.parts"))
        return violations

    async def _kept(self, caller: Caller, request: index_pb2.IndexImageRequest) -> index_pb2.IndexImageRequest:
        """The request as its record keeps it: ids instead of names, files instead of inline bytes, what is implied."""
        tenant = caller.tenant
        kept = index_pb2.IndexImageRequest()
        kept.CopyFrom(request)
        detect = kept.feature_extractors.detect
        if detect.HasField("faces") and not detect.faces.HasField("embed"):
            detect.faces.embed = common_pb2.VECTOR_INDEX_FACE in caller.namespace.vector_indexes
        default = index_pb2.ON_DUPLICATE_SKIP if self._settings.skip_duplicate else index_pb2.ON_DUPLICATE_REINDEX
        kept.on_duplicate = on_duplicate(request) or default
        for position, embed in enumerate(kept.feature_extractors.embed if kept.HasField("feature_extractors") else ()):
            path = f"feature_extractors.embed.{position}.value"
            if embed.type == index_pb2.EMBED_TYPE_BASE64:
                embed.value = await self._files.store(tenant, self._files.decode(embed.value, path), path)
                embed.type = index_pb2.EMBED_TYPE_FILE
            elif embed.type == index_pb2.EMBED_TYPE_FILE:
                await self._files.check(tenant, embed.value, path)
        kept.collection_id = await self._collections.find_or_create(caller, request.collection_id, "collection_id")
        return kept


def _as_image_request(request: Message) -> index_pb2.IndexImageRequest:
    """A request whose fields have the numbers of IndexImageRequest as one."""
    return index_pb2.IndexImageRequest.FromString(request.SerializeToString())


def _new_record(tenant: Tenant, request: index_pb2.IndexImageRequest, shown: task_pb2.TaskInput) -> pipeline.TaskRecord:
    stamp, is_text = now(), shown.type == "text"
    steps = requested_steps(request, is_text=is_text)
    task = task_pb2.Task(
        task_id=str(uuid.uuid4()),
        status=task_pb2.TASK_STATUS_QUEUED,
        inputs=[shown],
        steps={name: task_pb2.TaskStep(state=task_pb2.STEP_STATE_PENDING) for name in steps},
        created_at=stamp,
        updated_at=stamp,
        collection_id=request.collection_id,
    )
    if request.HasField("asset_update"):
        task.asset_id = request.asset_update.asset_id
    return pipeline.TaskRecord(
        namespace_id=tenant.namespace_id,
        task=task,
        stage=pipeline.STAGE_ACCEPTED,
        request=request,
        upload_sha256=shown.value if shown.type == "file" else "",
        is_text=is_text,
    )


def _index_violations(caller: Caller, extractors: index_pb2.FeatureExtractors) -> Iterator[FieldViolation]:
    """Indexes that the namespace does not have."""
    used: list[tuple[str, int]] = [
        (f"embed.{position}.vector_index", embed.vector_index) for position, embed in enumerate(extractors.embed)
    ]
    for name in ("read", "describe"):
        block = getattr(extractors, name)
        if is_on(extractors, name) and block.HasField("vector_index"):
            used.append((f"{name}.vector_index", block.vector_index))
    if extractors.HasField("detect") and extractors.detect.faces.embed:
        used.append(("detect.faces.embed", common_pb2.VECTOR_INDEX_FACE))
    if extractors.detect.logos.HasField("embed"):
        yield _violation("feature_extractors.detect.logos.embed", "is for faces alone", "detect.embed")
    for path, index in used:
        if index not in caller.namespace.vector_indexes:
            name = enum_names(common_pb2.VectorIndex.DESCRIPTOR).get(index, str(index))
            yield _violation(f"feature_extractors.{path}", f"the namespace has no index {name!r}", "namespace.index")


def _text_violations(request: index_pb2.IndexTextRequest) -> Iterator[FieldViolation]:
    """What makes a request none for a text."""
    if not request.feature_extractors.embed:
        yield _violation("feature_extractors.embed", "is required: it holds the text", "required")
    for position, embed in enumerate(request.feature_extractors.embed):
        path = f"feature_extractors.embed.{position}"
        if embed.type != index_pb2.EMBED_TYPE_TEXT:
            yield _violation(f"{path}.type", "must be 'text': a text has nothing else to embed", "text.type")
        elif not embed.value.strip():
            yield _violation(f"{path}.value", "must not be blank", "string.blank")


def _duplicate_violations(request: index_pb2.IndexImageRequest) -> Iterator[FieldViolation]:
    """An on_duplicate and a skip_duplicate that contradict each other."""
    skips = request.on_duplicate == index_pb2.ON_DUPLICATE_SKIP
    if request.on_duplicate and request.HasField("skip_duplicate") and request.skip_duplicate != skips:
        chosen = enum_names(index_pb2.OnDuplicate.DESCRIPTOR)[request.on_duplicate]
        said = str(request.skip_duplicate).lower()
        yield _violation("on_duplicate", f"{chosen!r} contradicts skip_duplicate {said}", "duplicate.conflict")
        yield _violation("skip_duplicate", f"{said} contradicts on_duplicate {chosen!r}", "duplicate.conflict")


def _shapes(extractors: index_pb2.FeatureExtractors) -> Iterator[tuple[str, Struct]]:
    for name in ("read", "describe"):
        block = getattr(extractors, name)
        if block.HasField("json_output"):
            yield f"feature_extractors.{name}.json_output", block.json_output
    if extractors.HasField("json_output"):
        yield "feature_extractors.json_output.response_shape", extractors.json_output.response_shape


def _violation(path: str, message: str, rule: str) -> FieldViolation:
    return FieldViolation.of(path, message, rule)


def url_problem(url: str) -> str | None:
    """Why an image can't be asked for under this URL, whatever its host answers."""
    if not url.lower().startswith(("http://", "https://")):
        return "must be an http:// or https:// URL"
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        named = parts.hostname is not None and (parts.port is None or parts.port > 0)
    except ValueError as error:
        return f"is not a URL: {error}"
    return None if named else "is not a URL: it names no host, or port 0"
