"""Claims on files: the first task that brings a file into a collection owns it, decided by compare-and-set.

A claim whose task failed or was cancelled before it stored anything is taken over by the next.
"""

from __future__ import annotations

from lensmesh.v1 import pipeline_pb2 as pipeline
from lensmesh.v1 import task_pb2
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.mesh.bus.tasks import TaskStore
from services.mesh.errors import Conflict, NotFound
from services.mesh.tenancy import Tenant

_ATTEMPTS_MAX = 20


class Claims:
    """The bucket of claims."""

    def __init__(self, bucket: KeyValue, tasks: TaskStore) -> None:
        self._bucket = bucket
        self._tasks = tasks

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
            if not await self._is_void(tenant, theirs):
                return theirs
            try:
                await self._bucket.update(key, mine.SerializeToString(), last=entry.revision)
                return None
            except KeyWrongLastSequenceError:
                continue
        raise Conflict("the same file is being claimed by too many tasks at once; try again")

    async def _is_void(self, tenant: Tenant, claim: pipeline.DuplicateClaim) -> bool:
        """Whether the claim's task ended without storing anything."""
        try:
            record = (await self._tasks.read(tenant, claim.task_id)).record
        except NotFound:
            return False
        ended = record.task.status in (task_pb2.TASK_STATUS_FAILED, task_pb2.TASK_STATUS_CANCELLED)
        return ended and record.task.steps["store"].state != task_pb2.STEP_STATE_DONE
