"""Reads, lists, watches and cancels tasks."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator

from lensmesh.v1 import pipeline_pb2 as pipeline
from lensmesh.v1 import task_pb2

from services.gateway.auth import Caller
from services.gateway.core.collections import Collections
from services.gateway.core.paging import page_of, pagination
from services.mesh.bus.tasks import TaskStore, is_terminal
from services.mesh.errors import NotFound
from services.mesh.tenancy import Tenant


class Tasks:
    """The tasks of the caller's namespace."""

    def __init__(self, tasks: TaskStore, collections: Collections) -> None:
        self._tasks = tasks
        self._collections = collections

    async def get(self, caller: Caller, request: task_pb2.GetTaskRequest) -> task_pb2.GetTaskResponse:
        """Read a task."""
        known = await self._tasks.read(caller.tenant, request.task_id)
        return task_pb2.GetTaskResponse(task=known.record.task)

    async def list(self, caller: Caller, request: task_pb2.ListTasksRequest) -> task_pb2.ListTasksResponse:
        """List tasks, newest first.

        Every record of the namespace is looked at; kept are the times and ids of those up to the end of the page.
        """
        tenant = caller.tenant
        collection_id = ""
        if request.HasField("collection_id"):
            collection_id = self._collections.find(tenant, request.collection_id, "collection_id")
        offset, size = page_of(request.page, request.page_size)
        newest: list[tuple[int, str]] = []
        listed: set[str] = set()
        total = 0
        async for record in self._tasks.all(tenant):
            task = record.task
            wanted = not request.HasField("status") or task.status == request.status
            # One that is changed meanwhile comes again.
            if not wanted or (collection_id and task.collection_id != collection_id) or task.task_id in listed:
                continue
            total += 1
            listed.add(task.task_id)
            heapq.heappush(newest, (task.created_at.ToNanoseconds(), task.task_id))
            if len(newest) > offset + size:
                listed.discard(heapq.heappop(newest)[1])
        page = [task_id for _, task_id in sorted(newest, reverse=True)[offset:]]
        tasks = await asyncio.gather(*(self._listed(tenant, task_id) for task_id in page))
        return task_pb2.ListTasksResponse(
            results=[task for task in tasks if task], pagination=pagination(total, offset, size)
        )

    async def _listed(self, tenant: Tenant, task_id: str) -> task_pb2.Task | None:
        try:
            task = (await self._tasks.read(tenant, task_id)).record.task
        except NotFound:
            return None  # Deleted meanwhile.
        # Half a megabyte each, at worst: a page of them would not fit into a message.
        task.ClearField("matches")
        return task

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
