"""The percolator with a real nats-server: how long loading its stored queries takes, and updates while it matches."""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from lensmesh.v1 import common_pb2, embedder_pb2, engine_pb2, engine_pb2_grpc, feature_pb2, percolator_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline

from bench.percolate.samples import COLLECTION, SPACE, Samples, Vectors
from bench.processes import cpu_seconds
from runner import servers, triton
from runner.process import Process
from services.mesh.bus import topology
from services.mesh.bus.tasks import now
from services.mesh.bus.topology import Bus, BusSettings
from services.mesh.config import load
from services.mesh.tenancy import Tenant
from services.percolator.records import subject_of

TENANT = Tenant("ns_bench")
UPDATES_PER_S, UPDATE_S = 1_000, 15
# As an import sends them; each call returns when its stored queries are being matched.
_UPDATES_A_CALL = 20
# Before they are counted, as many as let nats-server read all of what it keeps: it looks up what it overwrites.
_FIRST_UPDATES, _FIRST_AT_A_TIME = 8_000, 4
# Between two that are changed one after the other, so that they are spread over all.
_APART = 7_919
# Assets that are being matched at a time while updates go on.
_MATCHING = 64
_LOAD_S_MAX = 600.0


def _vector(vector: Vectors) -> embedder_pb2.EmbeddedVector:
    dense = common_pb2.Vector(dense=vector.astype("<f4").tobytes())
    return embedder_pb2.EmbeddedVector(
        vector_index=common_pb2.VECTOR_INDEX_MULTIMODAL, model_version=SPACE[1], vector=dense
    )


def _record(percolator_id: str, vector: Vectors, threshold: float) -> engine_pb2.StoredQueryRecord:
    query = feature_pb2.SearchQuery(
        vector_index=common_pb2.VECTOR_INDEX_MULTIMODAL, type=feature_pb2.QUERY_TYPE_TEXT, value="a red shoe on a beach"
    )
    stored = percolator_pb2.StoredQuery(
        percolator_id=percolator_id,
        collection_ids=[COLLECTION],
        queries=[query],
        min_score=threshold,
        enabled=True,
        created_at=now(),
    )
    stored.metadata.update({"owner": "ann"})
    return engine_pb2.StoredQueryRecord(
        namespace_id=TENANT.namespace_id, stored_query=stored, vectors=[_vector(vector)]
    )


class Durable:
    """A nats-server with many stored queries, and up to two percolators."""

    def __init__(self, directory: Path, samples: Samples, say: Callable[[str], None]) -> None:
        self._samples = samples
        self._say = say
        self._taken: set[int] = set()
        port = self._port()
        self.nats_url = f"nats://token@127.0.0.1:{port}"
        self.nats = Process(servers.nats_server(directory, port, "token"), lambda name, line: None)
        self.addresses: list[str] = []
        self.percolators: list[Process] = []

    async def start(self) -> None:
        """Start the server, and write the stored queries into it."""
        await self.nats.start()
        await self.nats.wait_ready()
        self.bus: Bus = await topology.connect(self.nats_url, "bench", stream_replicas=1, settings=load(BusSettings))
        started, number = time.monotonic(), 0
        for queries in self._samples.stored_queries(None):
            for each in queries:
                vector = each.queries[0].dense
                assert vector is not None
                record = _record(each.percolator_id, vector, each.min_score)
                await self.bus.client.publish(subject_of(TENANT, each.percolator_id), record.SerializeToString())
                number += 1
            await self.bus.client.flush()
            if number % 200_000 == 0:
                self._say(f"  {number:,} stored queries written in {time.monotonic() - started:.0f} s")
        while await self._written() < self._samples.count:
            await asyncio.sleep(0.2)

    async def loading(self, replicas: int) -> dict[str, Any]:
        """How long percolators take from their start until all is loaded, and what memory they have then."""
        await self._end_percolators()
        before, started = cpu_seconds({"nats": self.nats.pid}), time.monotonic()
        for _ in range(replicas):
            address = f"127.0.0.1:{self._port()}"
            settings = {"LENSMESH_NATS_URL": self.nats_url, "LENSMESH_PERCOLATOR_ADDRESS": address}
            self.addresses.append(address)
            self.percolators.append(Process(servers.service("percolator", address, settings), lambda name, line: None))
        await asyncio.gather(*(each.start() for each in self.percolators))
        for each in self.percolators:
            await _until(each.spec.ready, _LOAD_S_MAX)
        seconds = time.monotonic() - started
        named = {f"percolator {number}": each.pid for number, each in enumerate(self.percolators)}
        spent = cpu_seconds({"nats": self.nats.pid} | named)
        statuses = [_status(each.pid) for each in self.percolators]
        return {
            "replicas": replicas,
            "load_s": round(seconds, 1),
            "load_cpu_s": round(sum(spent[name] for name in named), 1),
            "load_nats_cpu_s": round(spent["nats"] - before["nats"], 1),
            "memory_bytes": sum(each["RssAnon"] for each in statuses),
            "file_bytes_resident": sum(each["RssFile"] for each in statuses),
        }

    async def updates(self) -> dict[str, Any]:
        """Stored queries, of all there are, changed at a steady pace while assets are matched all the time."""
        channel = grpc.aio.insecure_channel(self.addresses[0])
        changing = _Changing(engine_pb2_grpc.PercolatorEngineServiceStub(channel), self._samples)
        matching = [asyncio.create_task(changing.match(number * 7)) for number in range(_MATCHING)]
        await asyncio.sleep(2)
        for number in range(0, _FIRST_UPDATES, _UPDATES_A_CALL * _FIRST_AT_A_TIME):
            some = range(number, number + _UPDATES_A_CALL * _FIRST_AT_A_TIME, _UPDATES_A_CALL)
            await asyncio.gather(*map(changing.update, some))
        first_ms = np.percentile(changing.seen_ms, 99)
        changing.begin()
        started, writing = time.perf_counter(), list[asyncio.Task[None]]()
        for number in range(0, UPDATES_PER_S * UPDATE_S, _UPDATES_A_CALL):
            pause = started + number / UPDATES_PER_S - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            writing.append(asyncio.create_task(changing.update(_FIRST_UPDATES + number)))
        await asyncio.gather(*writing)
        row = changing.row(started)
        changing.done.set()
        await asyncio.gather(*matching)
        await channel.close(None)
        return row | {"first_updates_visible_p99_ms": round(float(first_ms), 1)}

    async def stop(self) -> None:
        """End both."""
        await self._end_percolators()
        await self.bus.close()
        await self.nats.stop()

    async def _written(self) -> int:
        streams = map(topology.bucket_stream, topology.STORED_QUERIES)
        return sum([(await self.bus.js.stream_info(each)).state.messages for each in streams])

    async def _end_percolators(self) -> None:
        await asyncio.gather(*(each.stop() for each in self.percolators))
        self.percolators.clear()
        self.addresses.clear()

    def _port(self) -> int:
        port = triton.free_port(self._taken)
        self._taken.add(port)
        return port


class _Changing:
    """Changes stored queries and matches assets, and notes how long each took."""

    def __init__(self, stub: engine_pb2_grpc.PercolatorEngineServiceAsyncStub, samples: Samples) -> None:
        self._stub = stub
        self._count = samples.count
        self._vectors = samples.assets(1_000)
        self.done = asyncio.Event()
        self.begin()

    def begin(self) -> None:
        """Note anew."""
        self.seen_ms: list[float] = []
        self._ended: list[float] = []
        self._matched_ms: list[float] = []

    async def match(self, number: int) -> None:
        """Match one asset after the other."""
        while not self.done.is_set():
            number = (number + 1) % len(self._vectors)
            job = pipeline.PercolateJob(collection_id=COLLECTION, vectors=[_vector(self._vectors[number])])
            asset = engine_pb2.PercolatedAsset(job=job, limit=100)
            request = engine_pb2.PercolateAssetRequest(namespace_id=TENANT.namespace_id, asset=asset)
            started = time.perf_counter()
            await self._stub.PercolateAsset(request)
            self._matched_ms.append((time.perf_counter() - started) * 1e3)

    async def update(self, start: int) -> None:
        """Change some stored queries; returns when they are being matched."""
        numbers = range(start, start + _UPDATES_A_CALL)
        ids = [str(uuid.UUID(int=n * _APART % self._count, version=4)) for n in numbers]
        records = [
            _record(each, self._vectors[n % len(self._vectors)], 0.99) for each, n in zip(ids, numbers, strict=True)
        ]
        started = time.perf_counter()
        await self._stub.PutStoredQueries(engine_pb2.PutStoredQueriesRequest(records=records))
        self._ended.append(time.perf_counter())
        self.seen_ms.append((self._ended[-1] - started) * 1e3)

    def row(self, started: float) -> dict[str, Any]:
        """What was noted since a moment. The pace is that of the ends: one that fell behind would be less."""
        ends, seconds = sorted(self._ended), time.perf_counter() - started
        return {
            "updates_per_s": round((len(ends) - 1) * _UPDATES_A_CALL / (ends[-1] - ends[0])),
            "update_visible_p50_ms": round(float(np.percentile(self.seen_ms, 50)), 1),
            "update_visible_p99_ms": round(float(np.percentile(self.seen_ms, 99)), 1),
            "assets_per_s": round(len(self._matched_ms) / seconds, 1),
            "match_p50_ms": round(float(np.percentile(self._matched_ms, 50)), 1),
            "match_p99_ms": round(float(np.percentile(self._matched_ms, 99)), 1),
        }


def _status(pid: int | None) -> dict[str, int]:
    """A process's memory in bytes, by the names of /proc."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss")}


async def _until(holds: Callable[[], Awaitable[bool]], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            if await holds():
                return
        except grpc.aio.AioRpcError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {within_s} s")
        await asyncio.sleep(0.1)


async def store_row(samples: Samples, say: Callable[[str], None]) -> dict[str, Any]:
    """Loading and updating."""
    with tempfile.TemporaryDirectory(prefix="lensmesh-bench-") as directory:
        durable = Durable(Path(directory), samples, say)
        try:
            await durable.start()
            row: dict[str, Any] = {"stored_queries": samples.count, "loads": []}
            for replicas in (1, 2):
                load_row = await durable.loading(replicas)
                row["loads"].append(load_row)
                memory_mb = load_row["memory_bytes"] / 1e6
                say(f"  loaded by {replicas} in {load_row['load_s']} s, {memory_mb:.0f} MB of memory in all")
            row |= await durable.updates()
            say(
                f"  {row['updates_per_s']} updates a second, seen within {row['update_visible_p99_ms']} ms,"
                f" beside {row['assets_per_s']} assets a second"
            )
            return row
        finally:
            await durable.stop()
