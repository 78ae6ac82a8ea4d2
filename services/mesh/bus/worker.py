"""The loop that every hop runs: do the work idempotently, publish the next hop, move the record forward, ack.

It decides about retries, dead letters and cancellation; what the work is, its `Work` knows.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import nats.errors
import structlog
from google.protobuf.message import Message
from lensmesh.v1 import pipeline_pb2 as pipeline
from lensmesh.v1 import task_pb2
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import Error as JetStreamError
from pydantic import Field
from pydantic_settings import BaseSettings

from services.mesh import telemetry
from services.mesh.bus import topology
from services.mesh.bus.tasks import TaskStore, Versioned, fail_task, is_terminal
from services.mesh.bus.topology import Bus, Hop
from services.mesh.errors import InternalError, LensmeshError, NotFound
from services.mesh.tenancy import Tenant

log = structlog.get_logger()

# How much later than its message a record is moved, on an idle mesh.
_RECORD_BEHIND_S = 0.004
# How often a record that is not there is looked for before its message is dropped.
_LOOKS_FOR_RECORD = 3
# How long a message that comes before its record is waited for at a time.
_EARLY_S_MAX = 0.5


class Job(Protocol):
    """What every hop's message says."""

    @property
    def namespace_id(self) -> str: ...
    @property
    def task_id(self) -> str: ...


JobT = TypeVar("JobT", bound=Message)


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

    # Changes the record; called again after every lost compare-and-set.
    apply: Callable[[pipeline.TaskRecord], None]
    # The next hop and its message; None when the task ends here.
    forward: tuple[Hop, Message] | None = None
    # Undoes the work when the task was cancelled meanwhile.
    undo: Callable[[], Awaitable[None]] | None = None


class Work(Protocol[JobT]):
    """What a hop does."""

    hop: Hop
    # The stage that the record must have reached before.
    needs: pipeline.Stage.ValueType
    # The stage that the record reaches by this work.
    finishes: pipeline.Stage.ValueType
    # The step that an unexpected failure is blamed on.
    step: str
    job_class: type[JobT]

    async def run(self, job: JobT, record: Versioned, attempt: int, last_attempt: bool) -> Outcome:
        """Do the work, idempotently. Raises LensmeshError; a retryable one is tried again."""

    async def abandon(self, record: pipeline.TaskRecord) -> None:
        """Give back what the task holds, after it failed or was cancelled."""


class Worker(Generic[JobT]):
    """Runs one hop's work for as many jobs at a time as the settings allow."""

    def __init__(self, bus: Bus, tasks: TaskStore, work: Work[JobT], settings: WorkerSettings) -> None:
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
        subscription = None
        while not self._stopping.is_set():
            await self._free.acquire()
            self._free.release()
            try:
                subscription = subscription or await self._subscribe(hop)
                messages = await self._next(subscription)
            except nats.errors.TimeoutError:
                continue
            except (nats.errors.Error, JetStreamError, OSError) as error:
                log.warning("bus not answering; trying again", hop=hop.name, error=str(error) or type(error).__name__)
                subscription = None
                await self._pause(0.5)
                continue
            for message in messages:
                await self._free.acquire()
                self._start(message)
        await self._drain()
        heartbeat.cancel()
        await cancels.unsubscribe()

    def stop(self) -> None:
        """Take no more jobs."""
        self._stopping.set()

    async def _subscribe(self, hop: Hop) -> nats.js.JetStreamContext.PullSubscription:
        return await self._bus.js.pull_subscribe(
            hop.subjects,
            durable=hop.name,
            stream=hop.stream,
            config=ConsumerConfig(
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=self._settings.ack_wait_s,
                # No limit here: the worker counts attempts, so that no message is ever dropped unseen.
                max_deliver=-1,
                max_ack_pending=10_000,
            ),
        )

    async def _next(self, subscription: nats.js.JetStreamContext.PullSubscription) -> list[Msg]:
        free = self._settings.concurrency - len(self._running)
        fetch = asyncio.create_task(subscription.fetch(batch=max(1, free), timeout=2))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({fetch, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not fetch.done():
            # A message that arrives after this is handed out again after ack_wait.
            fetch.cancel()
            return []
        return fetch.result()

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
        job = self._work.job_class.FromString(message.data)
        namespace_id, task_id = job.namespace_id, job.task_id  # type: ignore[attr-defined]
        context = telemetry.continue_trace(message.headers)
        with (
            structlog.contextvars.bound_contextvars(task=task_id),
            telemetry.tracer.start_as_current_span(self._work.hop.name, context=context),
        ):
            try:
                outcome = await self._attempt(message, Tenant(namespace_id), job, task_id)
            except asyncio.CancelledError:
                outcome = "cancelled"
            except (nats.errors.Error, JetStreamError, LensmeshError, OSError) as error:
                # The bus itself failed: the message stays and comes again.
                log.warning("job interrupted", hop=self._work.hop.name, error=str(error) or type(error).__name__)
                outcome = "interrupted"
            telemetry.JOBS.labels(self._work.hop.name, outcome).inc()

    async def _attempt(self, message: Msg, tenant: Tenant, job: JobT, task_id: str) -> str:
        try:
            record = await self._read(tenant, task_id)
        except NotFound:
            if (message.metadata.num_delivered or 1) < _LOOKS_FOR_RECORD:
                # A replica that answers may not have it yet.
                await message.nak(delay=self._settings.backoff_s)
                return "too early"
            # The gateway took it back: the request was refused.
            await message.ack_sync()
            return "forgotten"
        if record.record.stage >= self._work.finishes or is_terminal(record.record):
            if record.record.task.status == task_pb2.TASK_STATUS_CANCELLED:
                await self._work.abandon(record.record)
            await message.ack_sync()
            return "already done"
        if record.record.stage < self._work.needs:
            # The hop before died between its message and its record; it will do its part again after ack_wait.
            await message.nak(delay=self._settings.ack_wait_s / 2)
            return "too early"
        return await self._work_on(message, tenant, job, record)

    async def _work_on(self, message: Msg, tenant: Tenant, job: JobT, record: Versioned) -> str:
        attempt = message.metadata.num_delivered or 1
        last = attempt >= self._settings.attempts_max
        try:
            if attempt > self._settings.attempts_max:
                raise InternalError(f"the {self._work.hop.name} worker ended abnormally {attempt - 1} times")
            outcome = await self._work.run(job, record, attempt, last)
        except LensmeshError as error:
            if error.retryable and not last:
                return await self._retry(message, attempt, error)
            return await self._fail(message, tenant, record, error)
        except (nats.errors.Error, JetStreamError):
            raise
        except Exception as error:
            log.exception("job failed", hop=self._work.hop.name)
            if not last:
                return await self._retry(message, attempt, error)
            return await self._fail(message, tenant, record, InternalError("an internal error; the log has the cause"))
        return await self._finish(message, tenant, record, outcome)

    async def _read(self, tenant: Tenant, task_id: str) -> Versioned:
        """The record, after the hop before has moved it: its message may arrive a moment earlier."""
        pause_s = _RECORD_BEHIND_S
        if self._work.needs > pipeline.STAGE_ACCEPTED:
            # The hop before publishes first and moves its record a moment later: waiting is cheaper than reading twice.
            await asyncio.sleep(pause_s)
        while True:
            record = await self._tasks.read(tenant, task_id)
            if record.record.stage >= self._work.needs or is_terminal(record.record) or pause_s > _EARLY_S_MAX:
                return record
            await asyncio.sleep(pause_s)
            pause_s *= 2

    async def _finish(self, message: Msg, tenant: Tenant, record: Versioned, outcome: Outcome) -> str:
        if outcome.forward:
            hop, payload = outcome.forward
            await self._bus.js.publish(
                hop.subject(tenant, record.record.task.task_id),
                payload.SerializeToString(),
                headers=telemetry.trace_headers() | {"Nats-Msg-Id": f"{record.record.task.task_id}.{hop.name}"},
            )

        def advance(changed: pipeline.TaskRecord) -> bool:
            if changed.stage >= self._work.finishes or is_terminal(changed):
                return False
            changed.stage = self._work.finishes
            # May close the task, which is a later stage.
            outcome.apply(changed)
            return True

        now = await self._tasks.change(tenant, record, advance)
        if now.record.task.status == task_pb2.TASK_STATUS_CANCELLED:
            if outcome.undo:
                await outcome.undo()
            await self._work.abandon(now.record)
        await message.ack_sync()
        return "done"

    async def _retry(self, message: Msg, attempt: int, error: Exception) -> str:
        longest = min(self._settings.backoff_s * 2 ** (attempt - 1), self._settings.backoff_s_max)
        delay_s = longest * random.uniform(0.5, 1)
        log.info("will try again", hop=self._work.hop.name, attempt=attempt, in_s=round(delay_s, 2), error=str(error))
        await message.nak(delay=delay_s)
        return "retry"

    async def _fail(self, message: Msg, tenant: Tenant, record: Versioned, error: LensmeshError) -> str:
        failure = task_pb2.TaskError(
            message=error.message,
            type=error.type,
            stage=(error.details or {}).get("step", self._work.step),
            retryable=error.retryable,
        )
        letter = pipeline.DeadLetter(
            namespace_id=tenant.namespace_id,
            task_id=record.record.task.task_id,
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

        failed = await self._tasks.change(tenant, record, close)
        await self._work.abandon(failed.record)
        await message.ack_sync()
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
