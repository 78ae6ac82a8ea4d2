"""The percolators' own failure drill: many assets, kill -9 of replicas and of nats-server, and every match exactly."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import nats.errors
import numpy as np
import pytest
from lensmesh.v1 import match_pb2, task_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline
from nats.js.errors import Error as JetStreamError

from services.mesh.bus import topology
from services.mesh.bus.follow import count, scan
from services.mesh.bus.tasks import TaskStore, Versioned, is_terminal
from services.mesh.bus.topology import Bus, BusSettings
from services.mesh.config import load
from services.mesh.tenancy import Tenant
from services.percolator.delivery_records import MATCHES_STREAM
from tests.percolator.replicas import NAMESPACE, Replicas, job, random_vectors, record
from tests.webhook_receiver import SECRET, receiver, until

ASSETS = 10_000
QUERIES = 200
WRITERS = 64
# Of all matches, the share that is there when each victim is killed: a replica, the server, the other replica, both.
KILLS = ((0.1, "one"), (0.3, "nats"), (0.5, "zero"), (0.7, "both"))
WITHIN_S = 240.0
TENANT = Tenant(NAMESPACE)
MATCHES = topology.bucket_subject(topology.MATCHES, TENANT.pattern(None, None, None, None))


async def insist(bus: Bus, tasks: TaskStore, number: int, asset: pipeline.PercolateJob) -> None:
    """Have an asset percolated, as the hop before does: write its record, then dispatch it, again until it is done."""
    task_id = f"task-{number}"
    while True:
        try:
            task = task_pb2.Task(task_id=task_id, status=task_pb2.TASK_STATUS_PROCESSING)
            made = pipeline.TaskRecord(namespace_id=NAMESPACE, task=task, stage=pipeline.STAGE_STORED, percolate=asset)
            made.request.percolate.SetInParent()
            bucket = await bus.bucket(topology.TASKS)
            revision = await bucket.put(TENANT.key(task_id), made.SerializeToString())
            await tasks.dispatch(TENANT, Versioned(made, revision))
            return
        except (nats.errors.Error, JetStreamError, OSError):
            await asyncio.sleep(0.05)


async def matches_now(bus: Bus) -> int:
    """How many matches are stored, asked again while the server is away."""
    while True:
        try:
            return await count(bus, MATCHES_STREAM, MATCHES)
        except (nats.errors.Error, JetStreamError, OSError):
            await asyncio.sleep(0.1)


async def kill_in_turn(replicas: Replicas, bus: Bus, expected: int) -> None:
    """Kill each victim when so many matches are there."""
    victims = {
        "one": [replicas.processes[1]],
        "nats": [replicas.nats],
        "zero": [replicas.processes[0]],
        "both": [replicas.processes[0], replicas.processes[1]],
    }
    for share, victim in KILLS:
        while await matches_now(bus) < share * expected:
            await asyncio.sleep(0.1)
        for process in victims[victim]:
            process.kill()


async def all_ended(tasks: TaskStore) -> dict[int, int]:
    """How many tasks there are by status, once all are terminal."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            found = [each async for each in tasks.all(TENANT)]
            if len(found) == ASSETS and all(map(is_terminal, found)):
                return dict(Counter(each.task.status for each in found))
        except (nats.errors.Error, JetStreamError, OSError):
            pass
        assert time.monotonic() < deadline, "tasks are still not terminal"
        await asyncio.sleep(0.5)


@pytest.mark.timeout(500)
async def test_the_matches_of_ten_thousand_assets_are_exact_whatever_is_killed(tmp_path: Path) -> None:
    """Every match that plain numpy finds is stored exactly once and arrives at its webhook, and no other."""
    vectors = random_vectors(11, ASSETS + QUERIES)
    records = [record(vector, 0.93) for vector in vectors[ASSETS:]]
    stored = np.stack([np.frombuffer(each.vectors[0].vector.dense, "<f4") for each in records]).astype(np.float64)
    scores = np.round(np.clip(np.stack(vectors[:ASSETS]).astype(np.float64) @ stored.T, 0, 1), 6)
    expected = {
        (records[query].stored_query.percolator_id, f"asset-{asset}")
        for asset, query in zip(*np.nonzero(scores >= 0.93), strict=True)
    }
    hooked = records[int((scores >= 0.93).sum(axis=0).argmax())]
    async with receiver() as receiving:
        hooked.stored_query.delivery.webhook_url = receiving.url()
        hooked.delivery_secret = SECRET
        replicas = Replicas(tmp_path, {"LENSMESH_FETCH_ALLOW": receiving.endpoint})
        await replicas.start_nats()
        try:
            await replicas.start(0, 1)
            await replicas.put(0, records)
            bus = await topology.connect(replicas.nats_url, "test", stream_replicas=1, settings=load(BusSettings))
            tasks, free = await TaskStore.open(bus), asyncio.Semaphore(WRITERS)

            async def write(number: int) -> None:
                async with free:
                    await insist(bus, tasks, number, job(vectors[number], number))

            killing = asyncio.create_task(kill_in_turn(replicas, bus, len(expected)))
            await asyncio.gather(*(write(number) for number in range(ASSETS)))
            assert {task_pb2.TASK_STATUS_DONE: ASSETS} == await all_ended(tasks)
            await killing
            found = [match_pb2.Match.FromString(each.value) async for each in scan(bus, MATCHES_STREAM, [MATCHES])]
            assert expected == {(each.percolator_id, each.asset_id) for each in found}
            assert len(expected) == len(found) == len({each.match_id for each in found})
            wanted = {each.match_id for each in found if each.percolator_id == hooked.stored_query.percolator_id}
            assert len(wanted) > 50
            await until(lambda: wanted <= set(receiving.match_ids), within_s=60)
            assert wanted == set(receiving.match_ids)
            assert all(replicas.processes[number].restarts for number in (0, 1))
            await bus.close()
        finally:
            await replicas.close()
