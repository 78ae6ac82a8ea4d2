"""Stored queries over several percolators: whoever is asked, and whoever comes, goes or dies, all are counted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest
from lensmesh.v1 import engine_pb2
from nats.js.errors import NotFoundError

from services.mesh.bus import topology
from services.mesh.bus.topology import BusSettings
from services.mesh.tenancy import Tenant
from services.percolator.partitions import PARTITIONS, partition_of, share
from services.percolator.records import Records, stream_of
from services.percolator.shard import Shard
from tests.percolator.replicas import (
    NAMESPACE,
    Replicas,
    Vector,
    domain,
    ids,
    probe,
    random_vectors,
    record,
    retried,
)
from tests.percolator.test_engine import oracle

COUNT = 400


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[Replicas]:
    """A nats-server, and no percolator yet."""
    made = Replicas(tmp_path)
    await made.start_nats()
    yield made
    await made.close()


def some(count: int = COUNT) -> list[engine_pb2.StoredQueryRecord]:
    """Stored queries with thresholds from 0.3 to 0.9."""
    return [record(vector, 0.3 + 0.6 * number / count) for number, vector in enumerate(random_vectors(1, count))]


def expected(records: Sequence[engine_pb2.StoredQueryRecord], vector: Vector) -> list[tuple[str, float]]:
    """What an asset matches, found by scoring them one by one."""
    stored = {each.stored_query.percolator_id: domain(each) for each in records}
    return [(each.percolator_id, each.score) for each in oracle(stored, probe(vector, 1000))]


async def assert_whole(
    replicas: Replicas, numbers: Sequence[int], records: Sequence[engine_pb2.StoredQueryRecord]
) -> None:
    """Each of these percolators answers for all stored queries."""
    for number in numbers:
        assert len(records) == await replicas.total(number)
        for vector in random_vectors(2, 4):
            assert expected(records, vector) == await replicas.match(number, vector)


async def test_replicas_that_come_go_and_die_lose_and_double_nothing(replicas: Replicas) -> None:
    """One percolator has all; two and three share; one is killed, one is stopped: every answer is the whole one."""
    records = some()
    await replicas.start(0)
    await replicas.put(0, records)
    await assert_whole(replicas, [0], records)
    await replicas.start(1, 2)
    await assert_whole(replicas, [0, 1, 2], records)
    await replicas.put(2, more := some(60))
    await assert_whole(replicas, [0, 1, 2], [*records, *more])
    replicas.processes[1].kill()
    await assert_whole(replicas, [0, 2], [*records, *more])
    await replicas.processes[1].wait_ready()
    await assert_whole(replicas, [1], [*records, *more])
    await replicas.stop(0)
    await assert_whole(replicas, [1, 2], [*records, *more])


async def test_answers_stay_whole_while_replicas_come_and_go(replicas: Replicas) -> None:
    """Asked all the time while percolators join and leave, one gives the whole answer every time."""
    records = some()
    await replicas.start(0)
    await replicas.put(0, records)
    (vector,) = random_vectors(3, 1)
    wanted, done, asked = expected(records, vector), asyncio.Event(), 0

    async def ask() -> None:
        nonlocal asked
        while not done.is_set():
            assert wanted == await replicas.match(0, vector)
            asked += 1

    asking = asyncio.create_task(ask())
    await replicas.start(1, 2)
    await replicas.stop(1)
    replicas.processes[2].kill()
    await replicas.processes[2].wait_ready()
    done.set()
    await asking
    assert asked > 20


async def test_a_write_is_seen_by_every_replica_when_it_is_answered(replicas: Replicas) -> None:
    """Stored, changed or removed by one percolator, a query is, changes, or is gone at once for all of them."""
    await replicas.start(0, 1)
    vectors = random_vectors(4, 30)
    for number, vector in enumerate(vectors):
        one = record(vector, 1.0)
        name = one.stored_query.percolator_id
        put = engine_pb2.PutStoredQueryRequest(record=one)
        await retried(lambda put=put: replicas.stub(0).PutStoredQuery(put))
        assert [name] == ids(await replicas.match(1 - number % 2, vector))
        changed = record(-vector, 1.0, name)
        await retried(
            lambda changed=changed: replicas.stub(1).PutStoredQuery(
                engine_pb2.PutStoredQueryRequest(record=changed, replace=True)
            )
        )
        assert [] == await replicas.match(0, vector)
        assert [name] == ids(await replicas.match(number % 2, -vector))
        gone = engine_pb2.RemoveStoredQueryRequest(namespace_id=NAMESPACE, percolator_id=name)
        await replicas.stub(number % 2).RemoveStoredQuery(gone)
        assert [[], []] == [await replicas.match(each, -vector) for each in (0, 1)]
    assert [0, 0] == [await replicas.total(each) for each in (0, 1)]


async def test_what_is_gone_cannot_be_replaced(replicas: Replicas) -> None:
    """Replacing or removing a stored query that is not there is NOT_FOUND, whoever is asked."""
    await replicas.start(0)
    missing = record(random_vectors(5, 1)[0], 0.5)
    name = missing.stored_query.percolator_id
    for call in (
        replicas.stub(0).PutStoredQuery(engine_pb2.PutStoredQueryRequest(record=missing, replace=True)),
        replicas.stub(0).RemoveStoredQuery(
            engine_pb2.RemoveStoredQueryRequest(namespace_id=NAMESPACE, percolator_id=name)
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        assert grpc.StatusCode.NOT_FOUND is error.value.code()


async def test_listings_over_replicas_are_in_order(replicas: Replicas) -> None:
    """Pages hold every stored query once, oldest first, whichever percolators have them."""
    await replicas.start(0, 1)
    records = some(57)
    await replicas.put(0, records)
    found = []
    for offset in range(0, 60, 20):
        request = engine_pb2.ScanStoredQueriesRequest(namespace_id=NAMESPACE, offset=offset, limit=20)
        page = await replicas.stub(offset // 20 % 2).ScanStoredQueries(request)
        found += [each.percolator_id for each in page.stored_queries]
        assert len(records) == page.total
    ordered = sorted(
        records, key=lambda each: (each.stored_query.created_at.ToNanoseconds(), each.stored_query.percolator_id)
    )
    assert [each.stored_query.percolator_id for each in ordered] == found


async def test_what_becomes_anothers_while_it_is_loaded_is_left_to_it(replicas: Replicas) -> None:
    """Partitions dropped while they are loaded are not loaded, and the others are, whole."""
    bus = await topology.connect(replicas.nats_url, "test", stream_replicas=1, settings=BusSettings())
    records, stored, tenant = await Records.open(bus), some(3000), Tenant(NAMESPACE)
    for start in range(0, len(stored), 500):
        await asyncio.gather(*(records.put(tenant, each) for each in stored[start : start + 500]))
    shard, kept = Shard(bus, None), frozenset(range(20))
    loading = asyncio.create_task(shard.load(range(PARTITIONS)))
    while not shard.count:
        await asyncio.sleep(0)
    assert frozenset(range(PARTITIONS)) == shard.loading
    await shard.drop(shard.loading - kept)
    await loading
    expected_count = sum(partition_of(each.stored_query.percolator_id) in kept for each in stored)
    assert (kept, expected_count) == (shard.partitions, shard.count)
    # Whatever a partition that is dropped is waiting for at that moment.
    for turns in range(1, 150):
        loading = asyncio.create_task(shard.load(range(20, PARTITIONS)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await shard.drop(range(20, PARTITIONS))
        await loading
        assert (kept, expected_count) == (shard.partitions, shard.count)
    await shard.close()
    await bus.close()


async def test_what_an_older_version_had_in_one_bucket_is_moved(replicas: Replicas) -> None:
    """Each stored query is moved once, whoever does it first; what was changed since stays as it is."""
    bus = await topology.connect(replicas.nats_url, "test", stream_replicas=1, settings=BusSettings())
    tenant, old = Tenant(NAMESPACE), topology.STORED_QUERIES_BEFORE
    bucket = await bus.js.create_key_value(bucket=old, history=1)
    stored = some(150)
    for number, each in enumerate(stored):
        name = each.stored_query.percolator_id
        # The very first version knew neither partitions nor disabled ones.
        each.stored_query.enabled = number % 3 == 0
        key = tenant.key(f"p{partition_of(name):02}", name) if number % 2 else tenant.key(name)
        await bucket.put(key, each.SerializeToString())
        each.stored_query.enabled |= number % 2 == 0
    first = await Records.open(bus)
    changed = record(random_vectors(9, 1)[0], 0.1, stored[0].stored_query.percolator_id)
    await first.put(tenant, changed)
    await first.remove(tenant, stored[1].stored_query.percolator_id)
    bucket = await bus.js.create_key_value(bucket=old, history=1)
    for each in stored[:4]:
        await bucket.put(tenant.key("p00", each.stored_query.percolator_id), each.SerializeToString())
    second, _ = await asyncio.gather(Records.open(bus), Records.open(bus))
    found = [each async for each in second.all(tenant)]
    assert sorted([changed, *stored[2:]], key=str) == sorted(found, key=str)
    with pytest.raises(NotFoundError):
        await bus.js.stream_info(topology.bucket_stream(old))
    await bus.close()


async def test_one_that_is_stopped_while_it_loads_ends(replicas: Replicas) -> None:
    """Told to end, a percolator does so before it has loaded everything, even though nats-server is silent."""
    bus = await topology.connect(replicas.nats_url, "test", stream_replicas=1, settings=BusSettings())
    starting = asyncio.create_task(replicas.start(0))
    while not await bus.js.consumers_info(stream_of(0)):
        await asyncio.sleep(0)
    replicas.nats.kill(signal.SIGSTOP)
    starting.cancel()
    await replicas.stop(0)
    replicas.nats.kill(signal.SIGCONT)
    said = [line for line in replicas.lines if line.startswith("percolator: ")]
    assert [] == [line for line in said if "started" in line or "killed" in line]
    assert any("stopped before it was ready" in line for line in said)
    await bus.close()


async def test_a_forgotten_namespace_has_none(replicas: Replicas) -> None:
    """Forgetting a namespace removes its stored queries from every percolator."""
    await replicas.start(0, 1)
    await replicas.put(0, some(150))
    await replicas.stub(1).ForgetNamespace(
        engine_pb2.PercolatorEngineServiceForgetNamespaceRequest(namespace_id=NAMESPACE)
    )
    assert [0, 0] == [await replicas.total(each) for each in (0, 1)]


def test_partitions_are_shared_evenly_and_move_little() -> None:
    """Every partition has as many members as copies are asked for, and a new member takes only what becomes its own."""
    members = [f"m{number}" for number in range(5)]
    for copies in (1, 2):
        shares = [share(each, members, copies) for each in members]
        assert [copies] * PARTITIONS == [sum(each in one for one in shares) for each in range(PARTITIONS)]
        before = {each: share(each, members[:4], copies) for each in members[:4]}
        assert all(share(each, members, copies) <= before[each] for each in members[:4])
    spread = [partition_of(f"p{number}") for number in range(6400)]
    assert all(50 < spread.count(each) < 160 for each in range(PARTITIONS))
