"""Task records: created once, changed only by compare-and-set, forward only, and dispatched to the hops.

The record is the truth about a task and holds the job of its next hop; a message is a copy of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from lensmesh.v1 import pipeline_pb2 as pipeline
from lensmesh.v1 import task_pb2
from nats.aio.msg import Msg
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.mesh import telemetry
from services.mesh.bus import topology
from services.mesh.bus.follow import follow, scan
from services.mesh.bus.topology import Bus
from services.mesh.errors import Conflict, NotFound, PayloadTooLarge
from services.mesh.tenancy import Tenant

TERMINAL = frozenset(
    {
        task_pb2.TASK_STATUS_DONE,
        task_pb2.TASK_STATUS_FAILED,
        task_pb2.TASK_STATUS_SKIPPED,
        task_pb2.TASK_STATUS_CANCELLED,
    }
)

_NEXT_HOP = {
    pipeline.STAGE_ACCEPTED: topology.VISION,
    pipeline.STAGE_SEEN: topology.EMBEDDER,
    pipeline.STAGE_STORED: topology.PERCOLATOR,
}
# The revision of the record that a message is a copy of.
_REVISION_HEADER = "Lensmesh-Revision"
# What NATS' limit on a message leaves to headers.
_HEADER_BYTES_MAX = 4_096

# Writers of one record at a time are few: its worker, a canceller, a sweeper.
_CHANGE_ATTEMPTS_MAX = 20


@dataclass(slots=True)
class Versioned:
    """A record and the revision that it was read at."""

    record: pipeline.TaskRecord
    revision: int


def is_terminal(record: pipeline.TaskRecord) -> bool:
    """Whether the task has ended."""
    return record.task.status in TERMINAL


def copied(message: Msg) -> Versioned:
    """The record that a hop's message is a copy of, as it was then."""
    revision = (message.headers or {}).get(_REVISION_HEADER, "0")
    return Versioned(pipeline.TaskRecord.FromString(message.data), int(revision))


def now() -> Timestamp:
    """The current time in microseconds: many clients can't read more than six digits of a second."""
    seconds, micros = divmod(time.time_ns() // 1_000, 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1_000)


def fail_task(record: pipeline.TaskRecord, error: task_pb2.TaskError) -> None:
    """Turn the record into a FAILED one; steps that were still to come fail with it."""
    record.task.status = task_pb2.TASK_STATUS_FAILED
    record.task.error.CopyFrom(error)
    record.stage = pipeline.STAGE_CLOSED
    if error.stage in record.task.steps:
        step = record.task.steps[error.stage]
        step.state = task_pb2.STEP_STATE_FAILED
        step.error.CopyFrom(error)


def close_task(record: pipeline.TaskRecord) -> None:
    """End the task by what its steps came to: FAILED when a requested one failed for good, else DONE."""
    record.stage = pipeline.STAGE_CLOSED
    failed = [name for name, step in record.task.steps.items() if step.state == task_pb2.STEP_STATE_FAILED]
    if failed:
        record.task.status = task_pb2.TASK_STATUS_FAILED
        record.task.error.CopyFrom(record.task.steps[sorted(failed)[0]].error)
    else:
        record.task.status = task_pb2.TASK_STATUS_DONE


class TaskStore:
    """Reads and changes task records."""

    def __init__(self, bus: Bus, bucket: KeyValue) -> None:
        self._bus = bus
        self._bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> TaskStore:
        """Open the bucket of task records."""
        return cls(bus, await bus.bucket(topology.TASKS))

    async def create(self, tenant: Tenant, record: pipeline.TaskRecord) -> int:
        """Store a new record; returns its revision."""
        return await self._bucket.create(tenant.key(record.task.task_id), record.SerializeToString())

    async def delete(self, tenant: Tenant, task_id: str, revision: int) -> None:
        """Forget a record that was never dispatched."""
        await self._bucket.delete(tenant.key(task_id), last=revision)

    async def forget(self, tenant: Tenant) -> None:
        """Forget all tasks of a namespace; a hop that gets a message of one finds no record and drops it."""
        subject = topology.bucket_subject(topology.TASKS, f"{tenant.namespace_id}.>")
        await self._bus.js.purge_stream(topology.bucket_stream(topology.TASKS), subject=subject)

    async def read(self, tenant: Tenant, task_id: str) -> Versioned:
        """Read a record.

        Raises:
            NotFound: there is no such task in this namespace.
        """
        try:
            entry = await self._bucket.get(tenant.key(task_id))
        except (KeyNotFoundError, NotFound):
            raise NotFound(f"no task {task_id!r} in this namespace") from None
        return Versioned(pipeline.TaskRecord.FromString(entry.value or b""), entry.revision or 0)

    async def change(
        self,
        tenant: Tenant,
        known: Versioned,
        mutate: Callable[[pipeline.TaskRecord], bool],
    ) -> Versioned:
        """Change a record by compare-and-set, reading it again as long as somebody else was faster.

        Args:
            known: the record as last read; it becomes the record as it is now.
            mutate: changes a copy in place and returns True, or returns False to leave the record as it is.

        Returns:
            `known`.

        Raises:
            PayloadTooLarge: the changed record does not fit into a message; the record stays as it is.
        """
        key = tenant.key(known.record.task.task_id)
        for attempt in range(_CHANGE_ATTEMPTS_MAX):
            changed = pipeline.TaskRecord()
            changed.CopyFrom(known.record)
            if not mutate(changed):
                return known
            changed.task.updated_at.CopyFrom(now())
            if is_terminal(changed):
                # Nobody will do it: neither the next hop nor whoever watches the task has use for the job's bytes.
                changed.ClearField("next")
            content = changed.SerializeToString()
            limit = self._bus.client.max_payload - _HEADER_BYTES_MAX
            if len(content) > limit:
                raise PayloadTooLarge(f"the task with what was found takes {len(content)} bytes; at most {limit} fit")
            try:
                known.revision = await self._bucket.update(key, content, last=known.revision)
            except KeyWrongLastSequenceError:
                # A replica may not have the other's write yet.
                await asyncio.sleep(0.001 * attempt)
                fresh = await self.read(tenant, known.record.task.task_id)
                known.record, known.revision = fresh.record, fresh.revision
            else:
                known.record = changed
                return known
        raise Conflict("the task is being changed by too many at once; try again")

    async def dispatch(self, tenant: Tenant, known: Versioned) -> None:
        """Give a task to the hop whose turn it is; a task that has ended, to none.

        Doing it again changes nothing: the stream drops the copy, or the hop sees in the record that it is done.
        """
        hop = None if is_terminal(known.record) else _NEXT_HOP.get(known.record.stage)
        if hop:
            task_id = known.record.task.task_id
            await self._bus.js.publish(
                hop.subject(tenant, task_id),
                known.record.SerializeToString(),
                headers=telemetry.trace_headers()
                | {"Nats-Msg-Id": f"{task_id}.{hop.name}", _REVISION_HEADER: str(known.revision)},
            )

    async def all(self, tenant: Tenant) -> AsyncIterator[pipeline.TaskRecord]:
        """Every record of a namespace, one at a time, the longest unchanged first."""
        subject = topology.bucket_subject(topology.TASKS, tenant.pattern(None))
        async for entry in scan(self._bus, topology.bucket_stream(topology.TASKS), [subject]):
            yield pipeline.TaskRecord.FromString(entry.value)

    async def watch(self, tenant: Tenant, task_id: str) -> AsyncIterator[pipeline.TaskRecord]:
        """The record at once and after every change, ending with the terminal one.

        Raises:
            NotFound: there is no such task in this namespace.
        """
        first = await self.read(tenant, task_id)
        if is_terminal(first.record):
            yield first.record
            return
        subject = topology.bucket_subject(topology.TASKS, tenant.key(task_id))
        async for entry in follow(self._bus, topology.bucket_stream(topology.TASKS), [subject]):
            if entry is None or entry.deleted:
                continue
            record = pipeline.TaskRecord.FromString(entry.value)
            yield record
            if is_terminal(record):
                return

    async def announce_cancel(self, tenant: Tenant, task_id: str) -> None:
        """Tell every worker to stop what it does for this task."""
        await self._bus.client.publish(f"{topology.CANCEL_SUBJECT}.{tenant.key(task_id)}")
