"""Dispatches tasks that were recorded and never dispatched, because the gateway died in between.

Each task's record is looked at once: only the stretch of the bucket since the last look is read.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import nats.errors
import structlog
from lensmesh.v1 import pipeline_pb2 as pipeline
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from services.gateway.config import GatewaySettings
from services.mesh.bus import topology
from services.mesh.bus.follow import scan
from services.mesh.bus.tasks import TaskStore, Versioned, is_terminal
from services.mesh.bus.topology import Bus
from services.mesh.tenancy import Tenant

# How far this machine's clock and the server's may be apart.
_CLOCKS_APART_S = 2.0

log = structlog.get_logger()


class Sweeper:
    """A `Runnable` that sweeps regularly."""

    def __init__(self, bus: Bus, tasks: TaskStore, settings: GatewaySettings) -> None:
        self._bus = bus
        self._tasks = tasks
        self._settings = settings
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Sweep until `stop`; the first time everything."""
        since: datetime | None = None
        while not self._stopping.is_set():
            started = datetime.now(UTC)
            try:
                await self.sweep(since)
                # What was too young now is seen next time.
                since = started - timedelta(seconds=self._settings.stale_s + _CLOCKS_APART_S)
            except (nats.errors.Error, JetStreamError, OSError) as error:
                log.warning("sweep broken off", error=str(error) or type(error).__name__)
            try:
                await asyncio.wait_for(self._stopping.wait(), timeout=self._settings.sweep_s)
            except TimeoutError:
                continue

    def stop(self) -> None:
        """Sweep no more."""
        self._stopping.set()

    async def sweep(self, since: datetime | None) -> int:
        """Dispatch stale tasks whose records were written since then; returns how many there were."""
        subject = topology.bucket_subject(topology.TASKS, ">")
        stale_before = datetime.now(UTC) - timedelta(seconds=self._settings.stale_s)
        found = 0
        async for entry in scan(self._bus, topology.bucket_stream(topology.TASKS), [subject], since=since):
            if entry.written_at > stale_before:
                break
            record = pipeline.TaskRecord.FromString(entry.value)
            if record.stage != pipeline.STAGE_ACCEPTED or is_terminal(record):
                continue
            tenant = Tenant(record.namespace_id)
            if not await self._is_queued(tenant, record.task.task_id):
                await self._tasks.dispatch(tenant, Versioned(record, entry.sequence))
                log.warning("dispatched a task that never was", task=record.task.task_id)
                found += 1
        return found

    async def _is_queued(self, tenant: Tenant, task_id: str) -> bool:
        try:
            await self._bus.js.get_last_msg(topology.VISION.stream, topology.VISION.subject(tenant, task_id))
        except NotFoundError:
            return False
        return True
