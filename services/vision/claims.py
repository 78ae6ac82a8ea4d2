"""Claims on files: the first task that brings a file into a collection owns it, decided by compare-and-set.

A claim whose task failed or was cancelled before it stored anything is taken over by the next, and so is one whose
asset is gone or has another file by now.
"""

from __future__ import annotations

import grpc
from lensmesh.v1 import embedder_pb2, embedder_pb2_grpc, task_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.mesh.bus import topology
from services.mesh.bus.tasks import TaskStore
from services.mesh.bus.topology import Bus
from services.mesh.errors import Conflict, NotFound
from services.mesh.tenancy import Tenant

_ATTEMPTS_MAX = 20
# Seconds to wait for the embedder, whose reads by id take milliseconds.
_ASK_S_MAX = 5.0


class Claims:
    """The bucket of claims."""

    def __init__(
        self, bus: Bus, bucket: KeyValue, tasks: TaskStore, embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub
    ) -> None:
        self._bus = bus
        self._bucket = bucket
        self._tasks = tasks
        self._embedder = embedder

    async def claim(
        self, tenant: Tenant, collection_id: str, sha256: str, mine: pipeline.DuplicateClaim
    ) -> pipeline.DuplicateClaim | None:
        """Claim a file.

        Returns:
            None when the claim is this task's, else the claim of the asset that has the file.
        """
        key = tenant.key(collection_id, sha256)
        for _ in range(_ATTEMPTS_MAX):
            try:
                await self._bucket.create(key, mine.SerializeToString())
                return None
            except KeyWrongLastSequenceError:
                try:
                    entry = await self._bucket.get(key)
                except KeyNotFoundError:
                    continue
            theirs = pipeline.DuplicateClaim.FromString(entry.value or b"")
            if theirs.task_id == mine.task_id:
                return None
            if not await self._is_void(tenant, sha256, theirs):
                return theirs
            try:
                await self._bucket.update(key, mine.SerializeToString(), last=entry.revision)
                return None
            except KeyWrongLastSequenceError:
                continue
        raise Conflict("the same file is being claimed by too many tasks at once; try again")

    async def forget(self, tenant: Tenant) -> None:
        """Forget all claims of a namespace."""
        subject = topology.bucket_subject(topology.CLAIMS, f"{tenant.namespace_id}.>")
        await self._bus.js.purge_stream(topology.bucket_stream(topology.CLAIMS), subject=subject)

    async def _is_void(self, tenant: Tenant, sha256: str, claim: pipeline.DuplicateClaim) -> bool:
        """Whether the claim's task ended without storing anything, or what it stored is there no more."""
        try:
            record = (await self._tasks.read(tenant, claim.task_id)).record
        except NotFound:
            record = None
        if record and record.task.steps["store"].state != task_pb2.STEP_STATE_DONE:
            return record.task.status in (task_pb2.TASK_STATUS_FAILED, task_pb2.TASK_STATUS_CANCELLED)
        try:
            answer = await self._embedder.ReadAsset(
                embedder_pb2.ReadAssetRequest(namespace_id=tenant.namespace_id, asset_id=claim.asset_id),
                timeout=_ASK_S_MAX,
            )
        except grpc.aio.AioRpcError as error:
            # While the embedder is away the claim stands, as it mostly does.
            return error.code() == grpc.StatusCode.NOT_FOUND
        return answer.asset.file_hash != sha256
