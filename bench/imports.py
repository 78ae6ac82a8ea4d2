"""`python -m bench.imports`: how many stored queries a second an import takes, with vectors and without.

One request by REST, as our client sends it, into a fresh mesh of the lite set: text queries with random vectors of the
model in use, then the same lines again (each replaces itself), keyword queries without vectors, and an export of all.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bench.mesh import Load, with_mesh, yardstick_ms
from bench.processes import cpu_seconds
from lensmesh_client import AsyncRestClient
from runner.mesh import Mesh

RESULTS = Path(__file__).resolve().parent / "results" / "imports.json"
LINES = int(os.environ.get("BENCH_LINES", "20000"))
TARGET_PER_S = 2_000


def with_vectors(version: str, dim: int) -> Iterator[dict[str, Any]]:
    """Text queries with vectors, as an export has them."""
    random = np.random.default_rng(1)
    for number in range(LINES):
        made = random.standard_normal(dim).astype(np.float32)
        vector = made / np.linalg.norm(made)
        yield line("text", number) | {"vectors": [{"model_version": version, "vector": vector}]}


def line(index: str, number: int) -> dict[str, Any]:
    """One stored query."""
    return {
        "percolator_id": str(uuid.UUID(int=number + (0 if index == "text" else LINES))),
        "collection_ids": ["bench"],
        "queries": [{"vector_index": index, "type": "text", "value": f"a cup of coffee, number {number}"}],
        "filters": {"key": "metadata.price", "operator": "lt", "value": number},
        "metadata": {"number": number},
    }


async def timed(mesh: Mesh, client: AsyncRestClient, lines: Path) -> dict[str, Any]:
    """One import."""
    pids = {name: process.pid for name, process in mesh.processes.items()}
    before, started = cpu_seconds(pids), time.perf_counter()
    told = [each async for each in client.percolators.import_stored_queries(lines=lines)]
    seconds, after = time.perf_counter() - started, cpu_seconds(pids)
    assert (told[-1]["stored"], told[-1]["failed"]) == (LINES, 0), told[-1]
    spent = {name: round((after[name] - before[name]) * 1e6 / LINES) for name in after}
    return {
        "lines_per_s": round(LINES / seconds),
        "cpu_us_a_line": {name: used for name, used in spent.items() if used >= 5},
    }


async def measure(mesh: Mesh, load: Load) -> dict[str, Any]:
    """Every kind of import."""
    result: dict[str, Any] = {}
    directory = mesh.config.data_dir
    async with AsyncRestClient(mesh.rest_url, mesh.api_key) as client:
        kind: Any = (await client.namespaces.list_indexes())["vector_indexes"]["text"]
        given = with_vectors(kind["model_version"], kind["size"])
        words = (line("keyword", number) for number in range(LINES))
        for name, lines in (("vectors", given), ("words", words)):
            path = directory / f"{name}.ndjson"
            # Numbers as short as exports have them.
            option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
            path.write_bytes(b"".join(orjson.dumps(each, option=option) for each in lines))
            for part in (name, f"{name}_again"):
                result[part] = await timed(mesh, client, path)
                print(f"  {part}: {result[part]}", flush=True)
        started, count = time.perf_counter(), 0
        async for _ in client.percolators.export_stored_queries():
            count += 1
        assert count == 2 * LINES
        result["export"] = {"lines_per_s": round(count / (time.perf_counter() - started))}
        print(f"  export: {result['export']}")
        result["dimensions"] = kind["size"]
    return result


def main() -> None:
    """Measure, print, and write bench/results/imports.json."""
    print(f"{LINES} lines each, lite set; {os.getloadavg()[0]:.1f} processes were running before")
    result = asyncio.run(with_mesh("lite", measure, {}))
    result |= {"lines": LINES, "target_per_s": TARGET_PER_S, "yardstick_ms": yardstick_ms()}
    result["machine"] = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {RESULTS.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
