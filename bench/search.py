"""`make bench-search`: what a search through the gateway costs beside the same search made with pymilvus directly.

Both do the same by turns in one run: the nearest hundred vectors of a collection under the same expression, then the
documents of the best ten. Vectors are random and of unit length, rows those that the embedder writes; the query is a
vector, so that no model is asked. The client is the cheapest at hand (aiohttp, orjson), as its own time counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from aiohttp import ClientSession, ClientTimeout
from google.protobuf.struct_pb2 import Struct
from lensmesh.v1 import asset_pb2, common_pb2, feature_pb2
from numpy.typing import NDArray
from pymilvus import AsyncMilvusClient, MilvusClient

from bench.images import small
from bench.mesh import Load, with_mesh, yardstick_ms
from bench.processes import cpu_seconds, own_cpu_seconds
from runner.mesh import Mesh
from services.embedder import rows
from services.embedder.documents import Documents
from services.mesh.bus.tasks import now
from services.mesh.tenancy import Tenant

RESULTS = Path(__file__).resolve().parent / "results" / "search.json"
SIZES = tuple(int(each) for each in os.environ.get("BENCH_SIZES", "1000,10000,100000").split(","))
SEARCHES = int(os.environ.get("BENCH_SEARCHES", "100"))
# Images a second while searches are timed: a fraction of what two cores take, so that the queue stays empty.
INDEX_PER_S = 2.0
CANDIDATES, SHOWN = 100, 10
WARM_UP = 10
# Below this in a second, Milvus does nothing but wait.
IDLE_CPU_S = 0.1
BATCH = 500
INDEX = common_pb2.VECTOR_INDEX_MULTIMODAL
EMBED: dict[str, Any] = {"embed": [{"type": "url", "vector_index": "multimodal"}]}
# The size that the targets are about.
TARGET_SIZE = 10_000
TARGET_CPU_MS, TARGET_RATIO, TARGET_P50_MS = 3.0, 1.25, 60.0

Vectors = NDArray[np.float32]


class Shelf:
    """A collection with many features, written as the embedder writes them."""

    def __init__(self, client: ClientSession, uri: str, collection: dict[str, Any], kind: dict[str, Any]) -> None:
        self.tenant = Tenant(collection["namespace_id"])
        self.collection_id = str(collection["collection_id"])
        self.dim, self.version = int(kind["size"]), str(kind["model_version"])
        self.vectors = rows.index_collection(self.tenant, INDEX, self.version)
        self.documents = rows.documents_collection(self.tenant)
        self.size = 0
        self.direct = AsyncMilvusClient(uri)
        self._client = client
        self._uri = uri
        self._random = np.random.default_rng(1)

    def unit_vectors(self, count: int) -> Vectors:
        """Random directions, float32[count, dim]."""
        made = self._random.standard_normal((count, self.dim), dtype=np.float32)
        unit: Vectors = made / np.linalg.norm(made, axis=1, keepdims=True)
        return unit

    async def grow(self, size: int) -> None:
        """Write features until there are so many."""
        client = MilvusClient(self._uri)
        encode = Documents(None).encode  # type: ignore[arg-type]
        while self.size < size:
            documents, vectors = [], []
            for number, vector in enumerate(self.unit_vectors(min(BATCH, size - self.size)), start=self.size):
                asset, feature = self._made(number)
                value = {"n": number, "color": ("red", "green", "blue")[number % 3]}
                documents += [
                    rows.asset_row(asset, await encode(self.tenant, asset), value),
                    rows.feature_row(feature, await encode(self.tenant, feature), value),
                ]
                names = {key: getattr(feature, key) for key in rows.VECTOR_STRINGS if key != "field_name"}
                row = {
                    "id": str(uuid.uuid4()),
                    "field_name": "multimodal",
                    "metadata": value,
                    "vector": vector.tolist(),
                }
                vectors.append(names | row)
            await asyncio.to_thread(client.upsert, self.documents, documents)
            await asyncio.to_thread(client.upsert, self.vectors, vectors)
            self.size += len(vectors)
            if self.size % (BATCH * 10) == 0:
                await asyncio.to_thread(client.flush, self.vectors)
                await asyncio.to_thread(client.flush, self.documents)
        client.close()

    def _made(self, number: int) -> tuple[asset_pb2.Asset, feature_pb2.Feature]:
        metadata = Struct()
        metadata.update({"n": number})
        common: dict[str, Any] = {
            "asset_id": str(uuid.uuid4()),
            "collection_id": self.collection_id,
            "metadata": metadata,
            "modality": "image",
            "created_at": now(),
        }
        feature = feature_pb2.Feature(feature_id=str(uuid.uuid4()), description="a sample " * 5, **common)
        feature.vectors.add(field_name="multimodal", vector_index=INDEX, model_version=self.version)
        return asset_pb2.Asset(status="DONE", file_hash="0" * 64, **common), feature

    async def through_gateway(self, vector: Vectors) -> list[str]:
        """Search over REST."""
        query = {"vector_index": "multimodal", "type": "vector", "vector": vector.tolist()}
        body = {"collection_ids": [self.collection_id], "queries": [query]}
        content = orjson.dumps(body)
        async with self._client.post(f"/features/search?page_size={SHOWN}", data=content) as response:
            answer = orjson.loads(await response.read())
        if response.status != 200:
            raise SystemExit(f"a search was refused: {answer}")
        return [each["feature_id"] for each in answer["results"]]

    async def directly(self, vector: Vectors) -> list[str]:
        """The same with pymilvus."""
        found = await self.direct.search(
            self.vectors,
            data=[vector.tolist()],
            anns_field="vector",
            search_params={"metric_type": "COSINE"},
            limit=CANDIDATES,
            filter=rows.every((rows.among("collection_id", [self.collection_id]),)),
            output_fields=["feature_id"],
            consistency_level="Strong",
        )
        best = [row["entity"]["feature_id"] for row in found[0]][:SHOWN]
        documents = await self.direct.query(
            self.documents, filter=rows.among("id", best), output_fields=["id", "document"], consistency_level="Strong"
        )
        there = {row["id"] for row in documents}
        return [each for each in best if each in there]


async def settled(milvus: int) -> None:
    """Wait until Milvus has compacted what was written, at most two minutes."""
    for _ in range(120):
        before = cpu_seconds({"milvus": milvus})["milvus"]
        await asyncio.sleep(1)
        if cpu_seconds({"milvus": milvus})["milvus"] - before < IDLE_CPU_S:
            return


async def timed(shelf: Shelf, gateway: int) -> dict[str, Any]:
    """Both ways by turns; milliseconds of each, and the gateway's CPU-ms a search."""
    spent: dict[str, list[float]] = {"gateway": [], "direct": []}
    cpu = 0.0

    async def through_gateway(vector: Vectors) -> None:
        nonlocal cpu
        used = own_cpu_seconds(gateway)
        started = time.perf_counter()
        await shelf.through_gateway(vector)
        spent["gateway"].append((time.perf_counter() - started) * 1e3)
        cpu += own_cpu_seconds(gateway) - used

    async def directly(vector: Vectors) -> None:
        started = time.perf_counter()
        await shelf.directly(vector)
        spent["direct"].append((time.perf_counter() - started) * 1e3)

    for vector in shelf.unit_vectors(WARM_UP):
        same = set(await shelf.through_gateway(vector)) & set(await shelf.directly(vector))
        # The last of ten may be one of two with equal scores.
        if len(same) < SHOWN - 1:
            raise SystemExit("the gateway and pymilvus find different things")
    # Each search has a vector of its own, and each way is first as often as the other: a second search for the same
    # vector finds what it needs in the processor's caches, and costs half.
    for number, (one, other) in enumerate(zip(shelf.unit_vectors(SEARCHES), shelf.unit_vectors(SEARCHES), strict=True)):
        first, second = (through_gateway, directly) if number % 2 else (directly, through_gateway)
        await first(one)
        await second(other)
    figures: dict[str, Any] = {"gateway_cpu_ms": round(cpu * 1e3 / SEARCHES, 2), "yardstick_ms": yardstick_ms()}
    for way, milliseconds in spent.items():
        for name, share in (("p50", 50), ("p99", 99)):
            figures[f"{way}_{name}_ms"] = round(float(np.percentile(milliseconds, share)), 2)
    figures["ratio_p50"] = round(figures["gateway_p50_ms"] / figures["direct_p50_ms"], 3)
    return figures


async def while_indexing(shelf: Shelf, load: Load) -> dict[str, Any]:
    """Searches one after the other while images are indexed at a steady pace."""
    stop = asyncio.Event()

    async def index() -> int:
        number = 0
        while not stop.is_set():
            await load.run([small(10_000_000 + number)], EMBED)
            number += 1
            await asyncio.sleep(1 / INDEX_PER_S)
        return number

    indexing = asyncio.create_task(index())
    spent = []
    started = time.perf_counter()
    for vector in shelf.unit_vectors(SEARCHES * 2):
        before = time.perf_counter()
        await shelf.through_gateway(vector)
        spent.append((time.perf_counter() - before) * 1e3)
    stop.set()
    indexed = await indexing
    seconds = time.perf_counter() - started
    return {
        "p50_ms": round(float(np.percentile(spent, 50)), 2),
        "p99_ms": round(float(np.percentile(spent, 99)), 2),
        "indexed_per_s": round(indexed / seconds, 2),
    }


async def measure(mesh: Mesh, load: Load) -> dict[str, Any]:
    """Every size, smallest first, in one collection that grows."""
    headers = {"Authorization": f"Bearer {mesh.api_key}"}
    async with ClientSession(mesh.rest_url, headers=headers, timeout=ClientTimeout(120)) as client:
        # The first image makes the collections, with the embedder's own schema.
        await load.run([small(1)], EMBED)
        await load.check()
        async with client.get("/collections/bench") as response:
            collection = await response.json()
        async with client.get("/namespaces/indexes") as response:
            kind = (await response.json())["vector_indexes"]["multimodal"]
        shelf = Shelf(client, mesh.endpoints["milvus_uri"], collection, kind)
        gateway, milvus = mesh.processes["gateway"].pid, mesh.processes["milvus"].pid
        assert gateway is not None
        assert milvus is not None
        result: dict[str, Any] = {}
        for size in SIZES:
            started = time.perf_counter()
            await shelf.grow(size)
            print(f"  {size} features of {shelf.dim} dimensions written in {time.perf_counter() - started:.0f} s")
            await settled(milvus)
            result[str(size)] = await timed(shelf, gateway)
            print(f"    {result[str(size)]}", flush=True)
            if size == TARGET_SIZE:
                result[str(size)]["while_indexing"] = await while_indexing(shelf, load)
                print(f"    while indexing: {result[str(size)]['while_indexing']}", flush=True)
        await shelf.direct.close()
        return result


def main() -> None:
    """Measure, print, and write bench/results/search.json."""
    print(f"{SEARCHES} searches a size and way, lite set, Milvus Lite")
    by_size = asyncio.run(with_mesh("lite", measure, {}))
    result: dict[str, Any] = {"by_size": by_size}
    if at := by_size.get(str(TARGET_SIZE)):
        result |= {
            "gateway_cpu_ms_10k": at["gateway_cpu_ms"],
            "ratio_to_direct_p50_10k": at["ratio_p50"],
            "p50_ms_10k_while_indexing": at["while_indexing"]["p50_ms"],
        }
        print(f"gateway_cpu_ms_10k {result['gateway_cpu_ms_10k']} (target {TARGET_CPU_MS})")
        print(f"ratio_to_direct_p50_10k {result['ratio_to_direct_p50_10k']} (target {TARGET_RATIO})")
        print(f"p50_ms_10k_while_indexing {result['p50_ms_10k_while_indexing']} (target {TARGET_P50_MS})")
    result["targets"] = {
        "gateway_cpu_ms_10k": TARGET_CPU_MS,
        "ratio_to_direct_p50_10k": TARGET_RATIO,
        "p50_ms_10k_while_indexing": TARGET_P50_MS,
    }
    result["machine"] = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
