"""A nats-server and several percolators of a test's own, asked over gRPC."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from lensmesh.v1 import common_pb2, embedder_pb2, engine_pb2, engine_pb2_grpc, feature_pb2, percolator_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline

from runner import servers, triton
from runner.process import Process
from services.mesh.bus.tasks import now
from services.mesh.filters import MATCH_ALL
from services.percolator.engine import Asset, Probe, Query, StoredQuery

NAMESPACE = "ns_replicas"
COLLECTION = "col_replicas"
INDEX = common_pb2.VECTOR_INDEX_IMAGE
SPACE = (int(INDEX), "v1")
DIM = 16

Vector = np.ndarray[Any, np.dtype[np.float32]]


def unit(values: Vector) -> Vector:
    """A vector of unit length, float32."""
    return np.asarray(values / np.linalg.norm(values), np.float32)


def embedded(vector: Vector) -> embedder_pb2.EmbeddedVector:
    """A vector as services send it."""
    return embedder_pb2.EmbeddedVector(
        vector_index=INDEX, model_version=SPACE[1], vector=common_pb2.Vector(dense=vector.astype("<f4").tobytes())
    )


def record(vector: Vector, min_score: float, percolator_id: str = "") -> engine_pb2.StoredQueryRecord:
    """A stored query with one vector."""
    stored = percolator_pb2.StoredQuery(
        percolator_id=percolator_id or str(uuid.uuid4()),
        collection_ids=[COLLECTION],
        queries=[feature_pb2.SearchQuery(vector_index=INDEX, type=feature_pb2.QUERY_TYPE_URL, value="http://a/b.jpg")],
        min_score=min_score,
        enabled=True,
        created_at=now(),
    )
    return engine_pb2.StoredQueryRecord(namespace_id=NAMESPACE, stored_query=stored, vectors=[embedded(vector)])


def job(vector: Vector, number: int = 0) -> pipeline.PercolateJob:
    """A new asset with one vector."""
    name = f"asset-{number}"
    return pipeline.PercolateJob(
        asset_id=name, feature_id=name, collection_id=COLLECTION, modality="image", vectors=[embedded(vector)]
    )


def domain(stored: engine_pb2.StoredQueryRecord) -> StoredQuery:
    """The record as a plain stored query."""
    vector = np.frombuffer(stored.vectors[0].vector.dense, "<f4")
    query = stored.stored_query
    return StoredQuery(
        query.percolator_id, frozenset({COLLECTION}), (Query(SPACE, dense=vector),), query.min_score, MATCH_ALL
    )


def probe(vector: Vector, limit: int) -> Probe:
    """The asset as a plain probe."""
    return Probe(Asset(COLLECTION, {"metadata": {}}, {SPACE: [vector]}, {}), 0.0, limit)


class Replicas:
    """The processes, by number."""

    def __init__(self, directory: Path, settings: dict[str, str] | None = None) -> None:
        self._directory = directory
        self._settings = settings or {}
        self._taken: set[int] = set()
        self._channels: dict[int, grpc.aio.Channel] = {}
        self.processes: dict[int, Process] = {}
        self.lines: list[str] = []

    async def start_nats(self) -> None:
        """Start the server."""
        port = self._port()
        self.nats_url = f"nats://token@127.0.0.1:{port}"
        self.nats = Process(servers.nats_server(self._directory, port, "token"), self._say)
        await self.nats.start()
        await self.nats.wait_ready()

    async def start(self, *numbers: int) -> None:
        """Start percolators; returns when they say that they are ready."""
        for number in numbers:
            address = f"127.0.0.1:{self._port()}"
            settings = {
                "LENSMESH_NATS_URL": self.nats_url,
                "LENSMESH_PERCOLATOR_ADDRESS": address,
                "LENSMESH_PERCOLATOR_HEARTBEAT_S": "0.2",
                "LENSMESH_PERCOLATOR_GONE_S": "1.5",
                "LENSMESH_READY_CHECK_S": "0.3",
            }
            spec = servers.service("percolator", address, settings | self._settings)
            self.processes[number] = Process(spec, self._say)
            self._channels[number] = grpc.aio.insecure_channel(
                address, options=[("grpc.max_reconnect_backoff_ms", 200), ("grpc.min_reconnect_backoff_ms", 100)]
            )
            await self.processes[number].start()
        for number in numbers:
            await self.processes[number].wait_ready()

    async def stop(self, *numbers: int) -> None:
        """Stop percolators as an orchestrator does."""
        await asyncio.gather(*(self.processes.pop(number).stop() for number in numbers))

    async def close(self) -> None:
        """End everything."""
        await self.stop(*self.processes)
        for channel in self._channels.values():
            await channel.close(None)
        await self.nats.stop()

    def stub(self, number: int) -> engine_pb2_grpc.PercolatorEngineServiceAsyncStub:
        """One percolator's services."""
        return engine_pb2_grpc.PercolatorEngineServiceStub(self._channels[number])

    async def put(self, number: int, records: Sequence[engine_pb2.StoredQueryRecord]) -> None:
        """Store queries by one percolator."""
        for start in range(0, len(records), 500):
            request = engine_pb2.PutStoredQueriesRequest(records=records[start : start + 500])
            await retried(lambda request=request: self.stub(number).PutStoredQueries(request))

    async def match(self, number: int, vector: Vector, limit: int = 1000) -> list[tuple[str, float]]:
        """What one percolator answers for an asset: ids and scores."""
        request = engine_pb2.PercolateAssetRequest(
            namespace_id=NAMESPACE, asset=engine_pb2.PercolatedAsset(job=job(vector), limit=limit)
        )
        answer = await retried(lambda: self.stub(number).PercolateAsset(request))
        return [(each.percolator_id, each.score) for each in answer.matches]

    async def total(self, number: int) -> int:
        """How many stored queries one percolator counts."""
        request = engine_pb2.ScanStoredQueriesRequest(namespace_id=NAMESPACE)
        return (await retried(lambda: self.stub(number).ScanStoredQueries(request))).total

    def _port(self) -> int:
        port = triton.free_port(self._taken)
        self._taken.add(port)
        return port

    def _say(self, name: str, line: str) -> None:
        self.lines.append(f"{name}: {line}")


async def retried(call: Callable[[], Awaitable[Any]], within_s: float = 40) -> Any:
    """An answer, asked for again while a process is away, as every caller of the mesh does."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


def random_vectors(seed: int, count: int) -> list[Vector]:
    """Unit vectors of a few directions, so that many are near one another."""
    random = np.random.default_rng(seed)
    directions = random.normal(size=(5, DIM))
    made = directions[random.integers(0, 5, count)] + random.normal(size=(count, DIM)) * 0.4
    return [unit(each) for each in made]


def ids(found: Iterable[tuple[str, float]]) -> list[str]:
    """The ids alone."""
    return [name for name, _ in found]
