"""The bus against a real nats-server: records, followers across a restart, blobs, the full ingress, dead letters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import nats.errors
import pytest
from lensmesh.v1 import pipeline_pb2 as pipeline
from lensmesh.v1 import task_pb2
from nats.js.errors import APIError

from runner import servers, triton
from runner.process import Process
from services.mesh.blobs import NatsBlobStore
from services.mesh.bus import topology
from services.mesh.bus.follow import follow, scan
from services.mesh.bus.mirror import Mirror
from services.mesh.bus.tasks import TaskStore, Versioned
from services.mesh.bus.topology import Bus, BusSettings
from services.mesh.bus.worker import Outcome, Worker, WorkerSettings
from services.mesh.config import load
from services.mesh.errors import BrokenImage, NotFound, Unavailable
from services.mesh.tenancy import Tenant

TENANT = Tenant("ns_test")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[Process, str]]:
    """A nats-server of this test's own, and its URL."""
    port = triton.free_port(set())
    process = Process(servers.nats_server(tmp_path, port, "token"), lambda name, line: None)
    await process.start()
    await process.wait_ready()
    yield process, f"nats://token@127.0.0.1:{port}"
    await process.stop()


@pytest.fixture
async def bus(server: tuple[Process, str]) -> AsyncIterator[Bus]:
    """A connection to it, with a small ingress."""
    settings = load(BusSettings).model_copy(update={"ingress_messages_max": 3})
    connected = await topology.connect(server[1], "test", stream_replicas=1, settings=settings)
    yield connected
    await connected.close()


def record(task_id: str) -> pipeline.TaskRecord:
    """A fresh record."""
    task = task_pb2.Task(task_id=task_id, status=task_pb2.TASK_STATUS_QUEUED)
    return pipeline.TaskRecord(namespace_id=TENANT.namespace_id, task=task, stage=pipeline.STAGE_ACCEPTED)


async def until(holds: Callable[[], bool], within_s: float = 20) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)


async def test_concurrent_changes_of_a_record_all_take_effect(bus: Bus) -> None:
    """Ten writers of one record lose no change: compare-and-set makes each see the others'."""
    tasks = await TaskStore.open(bus)
    await tasks.create(TENANT, record("t1"))

    async def add(name: str) -> None:
        def mutate(changed: pipeline.TaskRecord) -> bool:
            changed.task.steps[name].attempts += 1
            return True

        await tasks.change(TENANT, await tasks.read(TENANT, "t1"), mutate)

    await asyncio.gather(*(add(f"s{number}") for number in range(10)))
    found = await tasks.read(TENANT, "t1")
    assert {f"s{number}" for number in range(10)} == set(found.record.task.steps)


async def test_a_task_that_has_ended_keeps_no_job(bus: Bus) -> None:
    """The next hop's job leaves the record when the task is cancelled before it is done."""
    tasks = await TaskStore.open(bus)
    known = Versioned(record("t3"), await tasks.create(TENANT, record("t3")))

    def seen(changed: pipeline.TaskRecord) -> bool:
        changed.embed.duplicate_of = "another"
        return True

    def cancelled(changed: pipeline.TaskRecord) -> bool:
        changed.task.status = task_pb2.TASK_STATUS_CANCELLED
        return True

    await tasks.change(TENANT, known, seen)
    assert (await tasks.read(TENANT, "t3")).record.HasField("embed")
    await tasks.change(TENANT, known, cancelled)
    assert not (await tasks.read(TENANT, "t3")).record.HasField("embed")


async def test_a_record_of_another_namespace_is_not_found(bus: Bus) -> None:
    """A task's id is worth nothing under another tenant."""
    tasks = await TaskStore.open(bus)
    await tasks.create(TENANT, record("t2"))
    with pytest.raises(NotFound):
        await tasks.read(Tenant("ns_other"), "t2")


async def test_a_follower_misses_nothing_when_the_server_is_killed(server: tuple[Process, str], bus: Bus) -> None:
    """Entries written before and after a kill -9 of nats-server arrive once each, in order."""
    bucket = await bus.bucket(topology.MATCHES)
    seen: list[str] = []

    async def run() -> None:
        subject = topology.bucket_subject(topology.MATCHES, ">")
        async for entry in follow(bus, topology.bucket_stream(topology.MATCHES), [subject]):
            if entry is not None:
                seen.append(entry.key)

    following = asyncio.create_task(run())
    for number in range(5):
        await bucket.put(f"a.{number}", b"x")
    await until(lambda: len(seen) == 5)
    server[0].kill()
    for number in range(5, 10):
        await put_anyway(bucket, f"a.{number}")
    await until(lambda: len(seen) == 10)
    following.cancel()
    assert [f"a.{number}" for number in range(10)] == seen


async def test_a_follower_waits_for_nothing_but_the_next_entry(bus: Bus) -> None:
    """Each of many lone entries is seen before the next is written, none held back until a request's time is over."""
    bucket = await bus.bucket(topology.MATCHES)
    subject = topology.bucket_subject(topology.MATCHES, ">")
    entries = follow(bus, topology.bucket_stream(topology.MATCHES), [subject])
    async with asyncio.timeout(20):
        assert await anext(entries) is None
        for number in range(40):
            await bucket.put(f"a.{number}", b"x")
            while (entry := await anext(entries)) is None:
                pass
            assert f"a.{number}" == entry.key
    await entries.aclose()


async def put_anyway(bucket: object, key: str) -> None:
    """Put a value, again and again while the server is away."""
    deadline = time.monotonic() + 20
    while True:
        try:
            await bucket.put(key, b"x")  # type: ignore[attr-defined]
            return
        except (nats.errors.Error, APIError, OSError):
            assert time.monotonic() < deadline, "the server did not come back"


async def test_a_mirror_shows_a_write_when_its_revision_was_seen(bus: Bus) -> None:
    """After `seen`, a read of the mirror has the write; after a removal and `gone`, it has not."""
    bucket = await bus.bucket(topology.TASKS)
    mirror = Mirror(bus, topology.TASKS, pipeline.TaskRecord)
    await mirror.start()
    await mirror.seen(await bucket.put("k", record("k").SerializeToString()))
    found = mirror.get("k")
    assert found is not None
    assert "k" == found.task.task_id
    await bucket.delete("k")
    await mirror.gone("k")
    assert mirror.get("k") is None
    await mirror.stop()


async def test_a_scan_gives_what_is_there_and_ends(bus: Bus) -> None:
    """A scan of an empty bucket ends at once; one of a full bucket gives every key once, without removed ones."""
    subject, stream = topology.bucket_subject(topology.CLAIMS, ">"), topology.bucket_stream(topology.CLAIMS)
    assert [] == [entry.key async for entry in scan(bus, stream, [subject])]
    bucket = await bus.bucket(topology.CLAIMS)
    for number in range(700):
        await bucket.put(f"k.{number}", b"x")
    await bucket.delete("k.0")
    assert [f"k.{number}" for number in range(1, 700)] == [entry.key async for entry in scan(bus, stream, [subject])]


@pytest.mark.parametrize("size", [0, 10, 899_999, 900_001, 5_000_000])
async def test_blobs_of_every_size_come_back(bus: Bus, size: int) -> None:
    """A blob is read as it was written, twice written is once stored, and a removed one is not found."""
    blobs = await NatsBlobStore.open(bus)
    content = bytes(number % 251 for number in range(size))
    key = TENANT.blob(f"{size:064d}")
    await blobs.put(key, content)
    await blobs.put(key, content)
    assert content == await blobs.get(key)
    assert await blobs.exists(key)
    await blobs.delete(key)
    assert not await blobs.exists(key)
    with pytest.raises(NotFound):
        await blobs.get(key)


async def test_a_full_ingress_refuses(bus: Bus) -> None:
    """The vision stream takes as many messages as its limit says, and refuses the next instead of dropping one."""
    for number in range(3):
        await bus.js.publish(topology.VISION.subject(TENANT, f"t{number}"), b"")
    with pytest.raises(APIError):
        await bus.js.publish(topology.VISION.subject(TENANT, "t3"), b"")


class Scripted:
    """A work that raises what it is told to, once for each entry, and then succeeds."""

    hop = topology.VISION
    needs = pipeline.STAGE_ACCEPTED
    finishes = pipeline.STAGE_SEEN
    step = "fetch"

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.attempts: list[int] = []
        self.abandoned = 0

    async def run(self, known: Versioned, attempt: int, last_attempt: bool) -> Outcome:
        """Raise, or succeed."""
        self.attempts.append(attempt)
        if self.errors:
            raise self.errors.pop(0)
        return Outcome(lambda changed: changed.task.inputs.add(type="done"))

    async def abandon(self, failed: pipeline.TaskRecord) -> None:
        """Count."""
        self.abandoned += 1


async def run_one(bus: Bus, work: Scripted, attempts_max: int = 3) -> pipeline.TaskRecord:
    """Give a task to a worker and wait until its record has moved."""
    tasks = await TaskStore.open(bus)
    known = Versioned(record("w"), await tasks.create(TENANT, record("w")))
    settings = WorkerSettings(attempts_max=attempts_max, backoff_s=0.01, concurrency=2)
    worker = Worker(bus, tasks, work, settings)
    running = asyncio.create_task(worker.run())
    await tasks.dispatch(TENANT, known)
    async with asyncio.timeout(20):
        while (known := await tasks.read(TENANT, "w")).record.stage == pipeline.STAGE_ACCEPTED:
            await asyncio.sleep(0.01)
    worker.stop()
    await running
    return known.record


async def test_a_retryable_error_is_tried_again(bus: Bus) -> None:
    """Work that fails twice for now and then succeeds moves the record, and counts its attempts."""
    work = Scripted(Unavailable("not now"), Unavailable("not now"))
    moved = await run_one(bus, work)
    assert pipeline.STAGE_SEEN == moved.stage
    assert [1, 2, 3] == work.attempts


async def test_a_permanent_error_fails_the_task_and_leaves_a_dead_letter(bus: Bus) -> None:
    """The record says what failed and why, and the dead-letter stream has the message."""
    work = Scripted(BrokenImage("it is broken"))
    failed = await run_one(bus, work)
    assert task_pb2.TASK_STATUS_FAILED == failed.task.status
    assert ("it is broken", "broken_image", "fetch") == (
        failed.task.error.message,
        failed.task.error.type,
        failed.task.error.stage,
    )
    assert 1 == work.abandoned
    letter = await bus.js.get_last_msg(topology.DEAD_LETTERS, f"{topology.DEAD_LETTER_SUBJECT}.{TENANT.key('w')}")
    assert "w" == pipeline.DeadLetter.FromString(letter.data or b"").task_id


async def test_an_unexpected_error_fails_the_task_after_the_last_attempt(bus: Bus) -> None:
    """A bug ends the task as an internal error that says nothing of the inside."""
    work = Scripted(*(RuntimeError("secret detail") for _ in range(3)))
    failed = await run_one(bus, work)
    assert "internal_error" == failed.task.error.type
    assert "secret" not in failed.task.error.message
    assert [1, 2, 3] == work.attempts


async def test_a_message_whose_record_is_gone_is_dropped(bus: Bus) -> None:
    """A message without a record is looked at a few times, in case a replica is behind, and then acknowledged.

    Its copy of the record may be worked on once before that is noticed.
    """
    tasks = await TaskStore.open(bus)
    work = Scripted()
    worker = Worker(bus, tasks, work, WorkerSettings(backoff_s=0.01, concurrency=2))
    running = asyncio.create_task(worker.run())
    await bus.js.publish(topology.VISION.subject(TENANT, "gone"), record("gone").SerializeToString())
    async with asyncio.timeout(20):
        while (await bus.js.stream_info(topology.VISION.stream)).state.messages:
            await asyncio.sleep(0.01)
    worker.stop()
    await running
    assert [1] == work.attempts
    assert 0 == (await bus.js.stream_info(topology.DEAD_LETTERS)).state.messages


async def test_a_hop_that_died_before_it_handed_over_is_taken_up_again(bus: Bus) -> None:
    """A record that has been moved, with its message still there, is dispatched to the next hop without more work."""
    tasks, work = await TaskStore.open(bus), Scripted()
    moved = record("w")
    moved.stage = pipeline.STAGE_SEEN
    moved.embed.duplicate_of = "another"
    before = Versioned(record("w"), await tasks.create(TENANT, record("w")))
    await tasks.dispatch(TENANT, before)
    await tasks.change(TENANT, before, lambda changed: changed.CopyFrom(moved) or True)
    worker = Worker(bus, tasks, work, WorkerSettings(backoff_s=0.01, concurrency=2, ack_wait_s=1))
    # As when it is delivered again.
    first = await bus.js.pull_subscribe(topology.VISION.subjects, durable="vision", stream=topology.VISION.stream)
    await (await first.fetch(1))[0].nak()
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        while not (await bus.js.stream_info(topology.EMBEDDER.stream)).state.messages:
            await asyncio.sleep(0.01)
    letter = await bus.js.get_last_msg(topology.EMBEDDER.stream, topology.EMBEDDER.subject(TENANT, "w"))
    assert "another" == pipeline.TaskRecord.FromString(letter.data or b"").embed.duplicate_of
    assert [] == work.attempts
    worker.stop()
    await running


class Talkative(Scripted):
    """A work that finds more than a record holds."""

    async def run(self, known: Versioned, attempt: int, last_attempt: bool) -> Outcome:
        """Find a megabyte."""
        return Outcome(lambda changed: changed.embed.CopyFrom(pipeline.EmbedJob(duplicate_of="x" * 1_100_000)))


async def test_findings_that_no_record_holds_fail_the_task(bus: Bus) -> None:
    """More than fits into a message ends the task with a clear error, instead of being tried for ever."""
    failed = await run_one(bus, Talkative())
    assert "payload_too_large" == failed.task.error.type
    assert "1100" in failed.task.error.message


class Blocked(Scripted):
    """A work that waits until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def run(self, known: Versioned, attempt: int, last_attempt: bool) -> Outcome:
        """Wait, then succeed."""
        self.attempts.append(attempt)
        await self.go_on.wait()
        return Outcome(lambda changed: None)


async def test_a_worker_takes_no_more_jobs_than_it_works_on(server: tuple[Process, str]) -> None:
    """With room for 4 and 40 jobs, of which the first 4 trickle in, 36 stay at the server, however long the 4 take."""
    bus = await topology.connect(server[1], "busy", stream_replicas=1, settings=load(BusSettings))
    tasks, work = await TaskStore.open(bus), Blocked()
    worker = Worker(bus, tasks, work, WorkerSettings(concurrency=4, ack_wait_s=1))
    running = asyncio.create_task(worker.run())
    for number in range(40):
        revision = await tasks.create(TENANT, record(f"b{number}"))
        await tasks.dispatch(TENANT, Versioned(record(f"b{number}"), revision))
        expected = min(number + 1, 4)
        await until(lambda expected=expected: len(work.attempts) == expected)  # type: ignore[misc]
    # Longer than ack_wait: heartbeats keep the four, and nothing else was taken.
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        info = await bus.js.consumer_info(topology.VISION.stream, topology.VISION.name)
        assert 4 == info.num_ack_pending
        assert 36 == info.num_pending
        await asyncio.sleep(0.1)
    work.go_on.set()
    await until(lambda: len(work.attempts) == 40)
    assert {1} == set(work.attempts)
    worker.stop()
    await running
    await bus.close()
