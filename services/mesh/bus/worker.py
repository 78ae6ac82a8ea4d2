"""The loop that every hop runs: do the work idempotently, move the record forward, dispatch the next hop, ack.

It decides about retries, dead letters and cancellation; what the work is, its `Work` knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import nats.errors
import structlog
from lensmesh.v1 import pipeline_pb2 as pipeline
from lensmesh.v1 import task_pb2
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import Error as JetStreamError
from pydantic import Field
from pydantic_settings import BaseSettings

from services.mesh import telemetry
from services.mesh.bus import topology
from services.mesh.bus.pull import Pull
from services.mesh.bus.tasks import TaskStore, Versioned, copied, fail_task, is_terminal
from services.mesh.bus.topology import Bus, Hop
from services.mesh.errors import InternalError, LensmeshError, NotFound, PayloadTooLarge
from services.mesh.tenancy import Tenant

log = structlog.get_logger()

# How old a message's copy of the record may be; after that the task may well have been cancelled, and work be wasted.
_COPY_AGE_S_MAX = 5.0
# How often a record that is not there is looked for before its message is dropped.
_LOOKS_FOR_RECORD = 3


class WorkerSettings(BaseSettings):
    """Limits of a hop's worker."""

    concurrency: int = Field(16, ge=1, le=1024, description="Jobs at a time; each holds one image in memory.")
    attempts_max: int = Field(8, ge=1, description="Tries of one job, crashes counted, before its task fails.")
    ack_wait_s: float = Field(15, gt=0, description="Silence after which another worker gets the job.")
    backoff_s: float = Field(0.5, gt=0, description="Wait before the second try; doubles each time.")
    backoff_s_max: float = Field(30, gt=0, description="Longest wait between two tries.")
    drain_s_max: float = Field(20, gt=0, description="How long running jobs may go on at shutdown.")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job's work came to."""

    # Changes the record: what was done, and the next hop's job or the task's end. Called again after every lost
    # compare-and-set.
    apply: Callable[[pipeline.TaskRecord], None]
    # Undoes the work when the task was cancelled meanwhile.
    undo: Callable[[], Awaitable[None]] | None = None


class Work(Protocol):
    """What a hop does."""

    hop: Hop
    # The stage that the record must have reached before.
    needs: pipeline.Stage.ValueType
    # The stage that the record reaches by this work.
    finishes: pipeline.Stage.ValueType
    # The step that an unexpected failure is blamed on.
    step: str

    async def run(self, known: Versioned, attempt: int, last_attempt: bool) -> Outcome:
        """Do the work, idempotently. Raises LensmeshError; a retryable one is tried again."""

    async def abandon(self, record: pipeline.TaskRecord) -> None:
        """Give back what the task holds, after it failed or was cancelled."""


class Worker:
    """Runs one hop's work for as many jobs at a time as the settings allow."""

    def __init__(self, bus: Bus, tasks: TaskStore, work: Work, settings: WorkerSettings) -> None:
        self._bus = bus
        self._tasks = tasks
        self._work = work
        self._settings = settings
        self._running: dict[str, tuple[Msg, asyncio.Task[None]]] = {}
        self._free = asyncio.Semaphore(settings.concurrency)
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Take and do jobs until `stop` is called; then let the running ones finish."""
        hop = self._work.hop
        cancels = await self._bus.client.subscribe(f"{topology.CANCEL_SUBJECT}.>", cb=self._on_cancel)
        heartbeat = asyncio.create_task(self._heartbeat())
        pull = None
        while not self._stopping.is_set():
            await self._free.acquire()
            self._free.release()
            try:
                pull = pull or await self._open()
                await self._take(pull)
            except (nats.errors.Error, JetStreamError, OSError) as error:
                log.warning("bus not answering; trying again", hop=hop.name, error=str(error) or type(error).__name__)
                await self._close(pull)
                pull = None
                await self._pause(0.5)
        await self._close(pull)
        await self._drain()
        heartbeat.cancel()
        await cancels.unsubscribe()

    def stop(self) -> None:
        """Take no more jobs."""
        self._stopping.set()

    async def _open(self) -> Pull:
        """Make sure that the hop's consumer is there, and listen to it."""
        hop = self._work.hop
        config = ConsumerConfig(
            durable_name=hop.name,
            filter_subject=hop.subjects,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._settings.ack_wait_s,
            # No limit here: the worker counts attempts, so that no message is ever dropped unseen.
            max_deliver=-1,
            max_ack_pending=10_000,
        )
        await self._bus.js.add_consumer(hop.stream, config)
        return await Pull.open(self._bus, hop.stream, hop.name)

    async def _take(self, pull: Pull) -> None:
        """Start as many jobs as there is room for, until there is no more, or none come, or the worker stops."""
        taking = asyncio.create_task(self._take_free(pull))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({taking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not taking.done():
            taking.cancel()
            await asyncio.wait({taking})
            return
        taking.result()

    async def _take_free(self, pull: Pull) -> None:
        async for message in pull.take(max(1, self._settings.concurrency - len(self._running))):
            await self._free.acquire()
            self._start(message)

    async def _close(self, pull: Pull | None) -> None:
        if pull:
            with contextlib.suppress(nats.errors.Error):
                await pull.close()

    def _start(self, message: Msg) -> None:
        # A message delivered twice at once is done once: the first delivery's task answers for both.
        key = message.subject
        if key in self._running:
            self._free.release()
            return
        task = asyncio.create_task(self._handle(message))
        self._running[key] = (message, task)
        task.add_done_callback(lambda _: self._finished(key))

    def _finished(self, key: str) -> None:
        self._running.pop(key, None)
        self._free.release()

    async def _handle(self, message: Msg) -> None:
        known = copied(message)
        tenant, task_id = Tenant(known.record.namespace_id), known.record.task.task_id
        context = telemetry.continue_trace(message.headers)
        with (
            structlog.contextvars.bound_contextvars(task=task_id),
            telemetry.tracer.start_as_current_span(self._work.hop.name, context=context),
        ):
            try:
                outcome = await self._attempt(message, tenant, known)
            except asyncio.CancelledError:
                outcome = "cancelled"
            except NotFound:
                outcome = await self._look_again(message)
            except (nats.errors.Error, JetStreamError, LensmeshError, OSError) as error:
                # The bus itself failed: the message stays and comes again.
                log.warning("job interrupted", hop=self._work.hop.name, error=str(error) or type(error).__name__)
                outcome = "interrupted"
            telemetry.JOBS.labels(self._work.hop.name, outcome).inc()

    async def _attempt(self, message: Msg, tenant: Tenant, copy: Versioned) -> str:
        known = copy if _is_fresh(message) else await self._tasks.read(tenant, copy.record.task.task_id)
        if known.record.stage >= self._work.finishes or is_terminal(known.record):
            if known.record.task.status == task_pb2.TASK_STATUS_CANCELLED:
                await self._work.abandon(known.record)
            await self._hand_over(message, tenant, known)
            return "already done"
        if known.record.stage < self._work.needs:
            # A replica that answers does not have the step before yet.
            await message.nak(delay=self._settings.backoff_s)
            return "too early"
        return await self._work_on(message, tenant, known)

    async def _look_again(self, message: Msg) -> str:
        """What to do with a message whose record is not there."""
        if (message.metadata.num_delivered or 1) < _LOOKS_FOR_RECORD:
            # A replica that answers may not have it yet.
            await message.nak(delay=self._settings.backoff_s)
            return "too early"
        # The gateway took it back: the request was refused.
        await message.ack()
        return "forgotten"

    async def _work_on(self, message: Msg, tenant: Tenant, known: Versioned) -> str:
        attempt = message.metadata.num_delivered or 1
        last = attempt >= self._settings.attempts_max
        try:
            if attempt > self._settings.attempts_max:
                raise InternalError(f"the {self._work.hop.name} worker ended abnormally {attempt - 1} times")
            outcome = await self._work.run(known, attempt, last)
        except LensmeshError as error:
            if error.retryable and not last:
                return await self._retry(message, attempt, error)
            return await self._fail(message, tenant, known, error)
        except (nats.errors.Error, JetStreamError):
            raise
        except Exception as error:
            log.exception("job failed", hop=self._work.hop.name)
            if not last:
                return await self._retry(message, attempt, error)
            return await self._fail(message, tenant, known, InternalError("an internal error; the log has the cause"))
        try:
            await self._move(tenant, known, outcome)
        except PayloadTooLarge as error:
            return await self._fail(message, tenant, known, error)
        await self._hand_over(message, tenant, known)
        return "done"

    async def _move(self, tenant: Tenant, known: Versioned, outcome: Outcome) -> None:
        def advance(changed: pipeline.TaskRecord) -> bool:
            if changed.stage >= self._work.finishes or is_terminal(changed):
                return False
            changed.stage = self._work.finishes
            # May close the task, which is a later stage.
            outcome.apply(changed)
            return True

        await self._tasks.change(tenant, known, advance)
        if known.record.task.status == task_pb2.TASK_STATUS_CANCELLED:
            if outcome.undo:
                await outcome.undo()
            await self._work.abandon(known.record)

    async def _hand_over(self, message: Msg, tenant: Tenant, known: Versioned) -> None:
        """Dispatch the next hop and let go of the message.

        A crash before the acknowledgement brings the message again, and with it this.
        """
        if known.record.stage == self._work.finishes:
            await self._tasks.dispatch(tenant, known)
        await message.ack()

    async def _retry(self, message: Msg, attempt: int, error: Exception) -> str:
        longest = min(self._settings.backoff_s * 2 ** (attempt - 1), self._settings.backoff_s_max)
        delay_s = longest * random.uniform(0.5, 1)
        log.info("will try again", hop=self._work.hop.name, attempt=attempt, in_s=round(delay_s, 2), error=str(error))
        await message.nak(delay=delay_s)
        return "retry"

    async def _fail(self, message: Msg, tenant: Tenant, known: Versioned, error: LensmeshError) -> str:
        failure = task_pb2.TaskError(
            message=error.message,
            type=error.type,
            stage=(error.details or {}).get("step", self._work.step),
            retryable=error.retryable,
        )
        letter = pipeline.DeadLetter(
            namespace_id=tenant.namespace_id,
            task_id=known.record.task.task_id,
            error=failure,
            subject=message.subject,
            payload=message.data,
        )
        await self._bus.js.publish(
            f"{topology.DEAD_LETTER_SUBJECT}.{tenant.key(letter.task_id)}",
            letter.SerializeToString(),
            headers={"Nats-Msg-Id": f"{letter.task_id}.dead"},
        )

        def close(changed: pipeline.TaskRecord) -> bool:
            if is_terminal(changed):
                return False
            if "asset_id" in (error.details or {}):
                changed.task.asset_id = (error.details or {})["asset_id"]
            fail_task(changed, failure)
            return True

        await self._tasks.change(tenant, known, close)
        await self._work.abandon(known.record)
        await message.ack()
        log.info("task failed", step=failure.stage, type=failure.type, error=failure.message)
        return "failed"

    async def _on_cancel(self, message: Msg) -> None:
        suffix = message.subject.removeprefix(f"{topology.CANCEL_SUBJECT}.")
        running = self._running.get(f"lensmesh.{self._work.hop.name}.{suffix}")
        if running:
            delivered, task = running
            task.cancel()
            # Comes again at once; the record then says CANCELLED, and the job is given back.
            await delivered.nak()

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.ack_wait_s / 3)
            for message, _ in list(self._running.values()):
                try:
                    await message.in_progress()
                except nats.errors.Error as error:
                    log.debug("heartbeat not sent", error=str(error))

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), timeout=seconds)
        except TimeoutError:
            return

    async def _drain(self) -> None:
        started = time.monotonic()
        tasks = [task for _, task in self._running.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=self._settings.drain_s_max)
        leftover = [(message, task) for message, task in self._running.values() if not task.done()]
        for message, task in leftover:
            task.cancel()
            await message.nak()
        log.info("drained", hop=self._work.hop.name, seconds=round(time.monotonic() - started, 2), left=len(leftover))


def _is_fresh(message: Msg) -> bool:
    """Whether the message's copy of the record can be taken for the record; compare-and-set notices when it is not."""
    metadata = message.metadata
    age_s = (datetime.now(UTC) - metadata.timestamp).total_seconds()
    return metadata.num_delivered == 1 and age_s < _COPY_AGE_S_MAX
