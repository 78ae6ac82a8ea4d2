"""The engine beside plain numpy, faiss and the memory's bandwidth, on the same stored queries in the same run."""

from __future__ import annotations

import gc
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from bench.percolate.samples import DIM, SELECTIVITIES, Samples, Vectors, probe
from services.percolator.engine import Engine, IntegerProduct, Probe

BATCHES = (1, 64)
# Stored queries that the reference multiplies at a time: its products stay in the cache, which is the faster way.
_NUMPY_ROWS = 16_384
_ROUNDS = 5
_SINGLES = 40
_BANDWIDTH_BYTES = 1 << 30


def cpu_ms(work: Callable[[], object], rounds: int = _ROUNDS) -> float:
    """CPU-ms of this process for one call: the median of several, after one to be warm."""
    work()
    spent = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        spent.append((time.process_time() - started) * 1e3)
    return float(np.median(spent))


def resident_bytes() -> int:
    """Bytes of memory that this process holds and that no file backs."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024


def read_ms_per_gb() -> float:
    """How long this machine takes to read a gigabyte of memory with one core: the best of a few ways and tries."""
    values = np.ones(_BANDWIDTH_BYTES // 4, np.float32)
    ways: tuple[Callable[[], object], ...] = (values.max, lambda: np.dot(values, values))
    best = min(cpu_ms(way, 3) for way in ways)
    return best * 1e9 / _BANDWIDTH_BYTES


class Reference:
    """All stored queries in one matrix: plain numpy, and faiss over the same."""

    def __init__(self, samples: Samples) -> None:
        parts = list(samples.chunks())
        self.vectors = np.concatenate([vectors for vectors, _ in parts])
        self.thresholds = np.concatenate([thresholds for _, thresholds in parts]).astype(np.float32)

    def matches(self, assets: Vectors) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Pairs of stored query and asset that reach the threshold."""
        found = []
        for start in range(0, len(self.vectors), _NUMPY_ROWS):
            products = self.vectors[start : start + _NUMPY_ROWS] @ assets.T
            rows, which = np.nonzero(products >= self.thresholds[start : start + _NUMPY_ROWS, None])
            found.append((rows + start, which))
        return found

    def faiss_ms(self, assets: Vectors) -> float:
        """CPU-ms of faiss' flat index for the hundred nearest, which is less than all that match."""
        faiss.omp_set_num_threads(1)
        index = faiss.IndexFlatIP(DIM)
        index.add(self.vectors)
        return cpu_ms(lambda: index.search(assets, 100), 3)


def loaded(samples: Samples, selectivity: float | None) -> tuple[Engine, dict[str, float]]:
    """An engine with all stored queries, and what loading them took."""
    gc.collect()
    before, started = resident_bytes(), time.process_time()
    engine = Engine(IntegerProduct())
    for queries in samples.stored_queries(selectivity):
        engine.put(queries)
    gc.collect()
    spent = time.process_time() - started
    return engine, {
        "bytes_per_query": round((resident_bytes() - before) / samples.count, 1),
        "put_cpu_us_per_query": round(spent * 1e6 / samples.count, 1),
    }


def engine_rows(samples: Samples, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The engine's figures, with and without filters."""
    assets, found = samples.assets(max(BATCHES)), []
    probes = [probe(vector, number) for number, vector in enumerate(assets)]
    for selectivity in SELECTIVITIES:
        engine, row = loaded(samples, selectivity)
        name = "none" if selectivity is None else f"{selectivity:.0%}"
        figures: dict[str, Any] = {"queries": samples.count, "filter": name, **row}
        for batch in BATCHES:
            figures |= _figures(engine, probes, batch)
        say(f"  {samples.count:>9,} filter {name:>4}: " + _line(figures))
        found.append(figures)
        engine.close()
        del engine
    return found


def _figures(engine: Engine, probes: list[Probe], batch: int) -> dict[str, Any]:
    some = probes[:batch]
    spent = cpu_ms(lambda: engine.match(some)) / batch
    walls = []
    for number in range(_SINGLES if batch == 1 else _ROUNDS):
        chosen = [probes[number % len(probes)]] if batch == 1 else some
        started = time.perf_counter()
        matched = engine.match(chosen)
        walls.append((time.perf_counter() - started) * 1e3)
    return {
        f"cpu_ms_per_asset_b{batch}": round(spent, 3),
        f"p50_ms_b{batch}": round(float(np.percentile(walls, 50)), 2),
        f"p99_ms_b{batch}": round(float(np.percentile(walls, 99)), 2),
        f"matched_b{batch}": round(sum(each.stats.matched for each in matched) / len(matched), 1),
        f"candidates_b{batch}": round(sum(each.stats.candidates for each in matched) / len(matched), 1),
    }


def _line(row: dict[str, Any]) -> str:
    parts = [f"{row[f'cpu_ms_per_asset_b{batch}']:.3f} CPU-ms an asset in batches of {batch}" for batch in BATCHES]
    return ", ".join(parts) + f"; {row['bytes_per_query']:.0f} bytes a stored query"


def reference_row(samples: Samples) -> dict[str, Any]:
    """What numpy, faiss and the memory take for the same stored queries, without filters."""
    reference, assets = Reference(samples), samples.assets(max(BATCHES))
    row: dict[str, Any] = {"queries": samples.count, "numpy_bytes_per_query": DIM * 4 + 4}
    for batch in BATCHES:
        some = assets[:batch]
        row[f"numpy_cpu_ms_per_asset_b{batch}"] = round(cpu_ms(partial(reference.matches, some)) / batch, 3)
        row[f"faiss_cpu_ms_per_asset_b{batch}"] = round(reference.faiss_ms(some) / batch, 3)
    return row


def agree(samples: Samples) -> int:
    """How many matches the engine and numpy both find for a batch; raises AssertionError where they differ.

    Scores within a millionth of the threshold are left out: numpy's float32 rounds them to either side.
    """
    engine, _ = loaded(samples, None)
    reference, assets = Reference(samples), samples.assets(16)
    scores = reference.vectors.astype(np.float64) @ assets.T.astype(np.float64)
    thresholds = reference.thresholds.astype(np.float64)[:, None]
    sure, near = scores >= thresholds + 1e-6, np.abs(scores - thresholds) < 2e-6
    total = 0
    limited = [Probe(probe(vector, n).asset, limit=samples.count) for n, vector in enumerate(assets)]
    for position, matched in enumerate(engine.match(limited)):
        ids = {int(each.percolator_id.replace("-", ""), 16) for each in matched.found}
        expected = {_number(row) for row in np.flatnonzero(sure[:, position]).tolist()}
        assert expected - ids == set(), "the engine misses matches"
        assert ids - expected <= {_number(row) for row in np.flatnonzero(near[:, position]).tolist()}, (
            "the engine makes up matches"
        )
        total += len(ids)
    engine.close()
    return total


def _number(row: int) -> int:
    return uuid.UUID(int=int(row), version=4).int
