"""Replays and usage across processes that come and go, against a real nats-server."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lensmesh.v1 import namespace_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline

from runner import servers, triton
from runner.process import Process
from services.gateway.auth import Caller
from services.gateway.core.calls import FILES_MAX, Calls
from services.gateway.core.replays import LEASE_S, Replays
from services.gateway.core.usage import UsageCounter
from services.mesh.blobs import NatsBlobStore
from services.mesh.bus import topology
from services.mesh.bus.follow import scan
from services.mesh.bus.topology import Bus, BusSettings
from services.mesh.config import load
from services.mesh.errors import InvalidArgument, ResourceExhausted, StillRunning
from services.mesh.tenancy import Tenant

CALLER = Caller(pipeline.KeyRecord(key_hash="h"), namespace_pb2.Namespace(namespace_id="ns_test"), "key_test")
REQUEST = namespace_pb2.CreateCollectionRequest(collection_name="c")


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    """A nats-server of this test's own."""
    port = triton.free_port(set())
    process = Process(servers.nats_server(tmp_path, port, "token"), lambda name, line: None)
    await process.start()
    await process.wait_ready()
    url = f"nats://token@127.0.0.1:{port}"
    connected = await topology.connect(url, "test", stream_replicas=1, settings=load(BusSettings))
    yield connected
    await connected.close()
    await process.stop()


async def answer(replays: Replays, name: str) -> str:
    """What the request is answered, when its work would say this name."""

    async def work() -> namespace_pb2.CreateCollectionResponse:
        return namespace_pb2.CreateCollectionResponse(collection=namespace_pb2.Collection(collection_name=name))

    made = await replays.once(CALLER, "Create", "once", REQUEST, namespace_pb2.CreateCollectionResponse, work)
    assert isinstance(made, namespace_pb2.CreateCollectionResponse)
    return made.collection.collection_name


async def test_a_gateway_that_died_blocks_the_key_for_its_lease_alone(bus: Bus) -> None:
    """Until its lease is over, a request without an answer counts as running; then the next one carries it out."""
    bucket = await bus.bucket(topology.IDEMPOTENCY)
    replays = Replays(bucket)
    assert "first" == await answer(replays, "first")
    [entry] = [each async for each in scan(bus, topology.bucket_stream(topology.IDEMPOTENCY), ["$KV.*.>"])]
    left = pipeline.IdempotencyRecord.FromString(entry.value)
    left.ClearField("answer")
    for age_s, alive in ((LEASE_S - 10, True), (LEASE_S + 1, False)):
        left.alive_at.CopyFrom(Timestamp(seconds=int(time.time() - age_s)))
        await bucket.put(entry.key, left.SerializeToString())
        if alive:
            with pytest.raises(StillRunning):
                await answer(replays, "second")
    assert "second" == await answer(replays, "second")
    assert "second" == await answer(Replays(bucket), "third")


async def test_one_of_many_at_once_is_carried_out(bus: Bus) -> None:
    """Of the same request from many at the same moment, one is carried out; the others are told, or get its answer."""
    bucket = await bus.bucket(topology.IDEMPOTENCY)
    asked = [answer(Replays(bucket), str(number)) for number in range(20)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    answers = {each for each in results if isinstance(each, str)}
    assert 1 == len(answers)
    assert all(isinstance(each, str | StillRunning) for each in results), results
    assert answers == {await answer(Replays(bucket), "later")}


async def test_work_goes_on_when_its_caller_hangs_up(bus: Bus) -> None:
    """A caller that gives up finds the answer when it asks again, and the work was done once."""
    replays, begun, go_on, done = Replays(await bus.bucket(topology.IDEMPOTENCY)), asyncio.Event(), asyncio.Event(), []

    async def work() -> namespace_pb2.DeleteKeyResponse:
        begun.set()
        await go_on.wait()
        done.append(1)
        return namespace_pb2.DeleteKeyResponse(key_name="x")

    def ask() -> asyncio.Task[object]:
        kind = namespace_pb2.DeleteKeyResponse
        return asyncio.ensure_future(replays.once(CALLER, "Delete", "once", REQUEST, kind, work))

    first = ask()
    await begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    async with asyncio.timeout(10):
        while True:
            try:
                assert namespace_pb2.DeleteKeyResponse(key_name="x") == await ask()
                break
            except StillRunning:
                await asyncio.sleep(0.01)
    assert [1] == done


async def test_failed_work_frees_the_key_for_another_request(bus: Bus) -> None:
    """After a failure nothing is kept, of the request either."""
    replays = Replays(await bus.bucket(topology.IDEMPOTENCY))

    async def fail() -> None:
        raise InvalidArgument.field("x", "is wrong", "test")

    other = namespace_pb2.CreateCollectionRequest(collection_name="other")
    with pytest.raises(InvalidArgument, match="is wrong"):
        await replays.once(CALLER, "Create", "once", other, namespace_pb2.CreateCollectionResponse, fail)
    assert "fine" == await answer(replays, "fine")


async def test_usage_of_several_gateways_adds_up(bus: Bus) -> None:
    """Counters of one key that write at the same moment lose nothing, and a key's name in the bucket is no other's."""
    bucket = await bus.bucket(topology.USAGE)
    counters = [UsageCounter(bus, bucket) for _ in range(5)]
    for counter in counters:
        counter.count("a", "IndexImage", 3)
        counter.count("a", "GetTask", 1)
        counter.count("b", "GetTask", 1)
    await asyncio.gather(*(counter.flush() for counter in counters))
    usage = await counters[0].used({"a"})
    assert [datetime.now(UTC).date().isoformat()] == [each.date for each in usage.dates]
    assert {"IndexImage": 15, "GetTask": 5} == {each.action: each.credits for each in usage.dates[0].actions}
    assert (20, 25) == (usage.total_credits, (await counters[1].used(None)).total_credits)


def test_files_under_way_are_limited() -> None:
    """Beyond the files that fit on disk, one more is refused until another is through."""
    nothing = cast(Any, None)
    calls = Calls(nothing, nothing, nothing, nothing)
    with ExitStack() as under_way:
        for _ in range(FILES_MAX):
            under_way.enter_context(calls.receiving())
        with pytest.raises(ResourceExhausted), calls.receiving():
            pass
    with calls.receiving():
        pass


@pytest.mark.parametrize("size", [0, 900_000, 900_001, 5_000_000])
async def test_files_of_every_size_come_back(bus: Bus, size: int) -> None:
    """A blob that is streamed in is what was in the file, wherever the file stood, and twice written is once stored."""
    blobs = await NatsBlobStore.open(bus)
    content = bytes(number % 251 for number in range(size))
    key = Tenant("ns_test").upload(f"{size:064d}")
    file = io.BytesIO(content)
    file.seek(0, io.SEEK_END)
    for _ in range(2):
        await blobs.put_file(key, file, size)
    assert content == await blobs.get(key)
