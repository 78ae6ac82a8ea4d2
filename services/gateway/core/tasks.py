"""Reads, watches and cancels tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator

from lensmesh.v1 import pipeline_pb2 as pipeline
from lensmesh.v1 import task_pb2

from services.gateway.auth import Caller
from services.mesh.bus.tasks import TaskStore, is_terminal


class Tasks:
    """The tasks of the caller's namespace."""

    def __init__(self, tasks: TaskStore) -> None:
        self._tasks = tasks

    async def get(self, caller: Caller, request: task_pb2.GetTaskRequest) -> task_pb2.GetTaskResponse:
        """Read a task."""
        known = await self._tasks.read(caller.tenant, request.task_id)
        return task_pb2.GetTaskResponse(task=known.record.task)

    async def watch(
        self, caller: Caller, request: task_pb2.WatchTaskRequest
    ) -> AsyncIterator[task_pb2.WatchTaskResponse]:
        """The task at once and after every change, until it is terminal."""
        # Answers 404 before the stream begins.
        await self._tasks.read(caller.tenant, request.task_id)
        return self._watch(caller, request.task_id)

    async def _watch(self, caller: Caller, task_id: str) -> AsyncIterator[task_pb2.WatchTaskResponse]:
        async for record in self._tasks.watch(caller.tenant, task_id):
            yield task_pb2.WatchTaskResponse(task=record.task)

    async def cancel(self, caller: Caller, request: task_pb2.CancelTaskRequest) -> task_pb2.CancelTaskResponse:
        """Cancel a task; a finished one stays as it is."""

        def mark(record: pipeline.TaskRecord) -> bool:
            if is_terminal(record):
                return False
            record.task.status = task_pb2.TASK_STATUS_CANCELLED
            return True

        tenant = caller.tenant
        known = await self._tasks.change(tenant, await self._tasks.read(tenant, request.task_id), mark)
        if known.record.task.status == task_pb2.TASK_STATUS_CANCELLED:
            await self._tasks.announce_cancel(tenant, request.task_id)
        return task_pb2.CancelTaskResponse(task=known.record.task)
