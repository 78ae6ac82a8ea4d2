"""The engine beside plain numpy, faiss and the memory's bandwidth, on the same stored queries in the same run."""

from __future__ import annotations

import ctypes
import gc
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from bench.percolate.samples import DIM, SELECTIVITIES, Samples, Vectors, probe
from services.percolator.engine import Engine, IntegerProduct, Probe

BATCHES = (1, 64)
# The engine whose stored queries have no filters.
PLAIN = "none"
# Stored queries that the reference multiplies at a time: its products stay in the cache, which is the faster way.
_NUMPY_ROWS = 16_384
_ROUNDS = {1: 21, 64: 7}
_SINGLES = 40
_BANDWIDTH_BYTES = 1 << 30


Rounds = dict[str, NDArray[np.float64]]


def by_turns(ways: Mapping[str, Callable[[], object]], rounds: int) -> Rounds:
    """CPU-ms of this process for each call of each way, one after the other in every round, after one to be warm.

    On a shared machine the same work takes twice as long in one minute as in the next; within a round it does not.
    """
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, rounds):
        for name, work in ways.items():
            started = time.process_time()
            work()
            if number >= 0:
                spent[name].append((time.process_time() - started) * 1e3)
    return {name: np.array(each) for name, each in spent.items()}


def cpu_ms(work: Callable[[], object], rounds: int = 5) -> float:
    """CPU-ms of this process for one call: the median of several, after one to be warm."""
    return float(np.median(by_turns({"": work}, rounds)[""]))


def resident_bytes() -> int:
    """Bytes of memory that this process uses and that no file backs."""
    gc.collect()
    # What was freed and not given back would be used again, and not be seen to grow.
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024


class Memory:
    """What reading memory takes on this machine with one core."""

    def __init__(self) -> None:
        self._values = np.ones(_BANDWIDTH_BYTES // 4, np.float32)

    def ways(self) -> dict[str, Callable[[], object]]:
        """Ways of reading a gigabyte with little work done on it; the quicker one is the bound."""
        return {"read by max": self._values.max, "read by dot": partial(np.dot, self._values, self._values)}


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
    before, started = resident_bytes(), time.process_time()
    engine = Engine(IntegerProduct())
    for queries in samples.stored_queries(selectivity):
        engine.put(queries)
    spent = time.process_time() - started
    return engine, {
        "bytes_per_query": round((resident_bytes() - before) / samples.count, 1),
        "put_cpu_us_per_query": round(spent * 1e6 / samples.count, 1),
    }


def measured(samples: Samples, say: Callable[[str], None]) -> dict[str, Any]:
    """The engine with and without filters, numpy and the memory by turns, then faiss, for the same stored queries."""
    assets = samples.assets(max(BATCHES))
    probes = [probe(vector, number) for number, vector in enumerate(assets)]
    engines: dict[str, Engine] = {}
    filters: dict[str, dict[str, Any]] = {}
    for selectivity in SELECTIVITIES:
        name = PLAIN if selectivity is None else f"{selectivity:.0%}"
        engines[name], filters[name] = loaded(samples, selectivity)
    found: dict[str, Any] = {"queries": samples.count, "numpy_bytes_per_query": DIM * 4 + 4}
    reference, memory = Reference(samples), Memory()
    for batch in BATCHES:
        ways: dict[str, Callable[[], object]] = {"numpy": partial(reference.matches, assets[:batch])}
        ways |= {name: partial(engine.match, probes[:batch]) for name, engine in engines.items()}
        ways |= memory.ways()
        rounds = by_turns(ways, _ROUNDS[batch])
        found |= _ratios(rounds, samples.count, batch)
        for name, engine in engines.items():
            filters[name][f"cpu_ms_per_asset_b{batch}"] = _median(rounds[name] / batch)
            filters[name] |= _answers(engine, probes, batch)
        found[f"faiss_cpu_ms_per_asset_b{batch}"] = round(reference.faiss_ms(assets[:batch]) / batch, 3)
    for engine in engines.values():
        engine.close()
    found["filters"] = filters
    _say(found, say)
    return found


def _ratios(rounds: Rounds, count: int, batch: int) -> dict[str, float]:
    """Medians of what is compared within each round."""
    plain, slowest = rounds[PLAIN], np.max([each for name, each in rounds.items() if name.endswith("%")], axis=0)
    read = np.minimum(rounds["read by max"], rounds["read by dot"])
    # What the engine has to read: its codes, and four columns of four bytes.
    bound = count * (DIM + 16) * read / _BANDWIDTH_BYTES
    return {
        f"numpy_cpu_ms_per_asset_b{batch}": _median(rounds["numpy"] / batch),
        f"bound_ms_b{batch}": _median(bound),
        f"ratio_to_numpy_b{batch}": _median(plain / rounds["numpy"]),
        f"ratio_to_bound_b{batch}": _median(plain / bound),
        f"filters_add_b{batch}": _median(slowest / plain - 1),
    }


def _median(values: NDArray[np.float64]) -> float:
    return round(float(np.median(values)), 3)


def _answers(engine: Engine, probes: list[Probe], batch: int) -> dict[str, Any]:
    """How long an answer takes, and what is in it."""
    walls = []
    for number in range(_SINGLES if batch == 1 else 5):
        chosen = [probes[number % len(probes)]] if batch == 1 else probes[:batch]
        started = time.perf_counter()
        matched = engine.match(chosen)
        walls.append((time.perf_counter() - started) * 1e3)
    return {
        f"p50_ms_b{batch}": round(float(np.percentile(walls, 50)), 2),
        f"p99_ms_b{batch}": round(float(np.percentile(walls, 99)), 2),
        f"matched_b{batch}": round(sum(each.stats.matched for each in matched) / len(matched), 1),
        f"candidates_b{batch}": round(sum(each.stats.candidates for each in matched) / len(matched), 1),
    }


def _say(found: dict[str, Any], say: Callable[[str], None]) -> None:
    say(f"  {found['queries']:,} stored queries, CPU-ms an asset alone and in batches of {max(BATCHES)}")
    for name in ("numpy", "faiss"):
        alone, together = (found[f"{name}_cpu_ms_per_asset_b{batch}"] for batch in BATCHES)
        say(f"    {name:<12} {alone:>8.3f} {together:>8.3f}")
    for name, row in found["filters"].items():
        alone, together = (row[f"cpu_ms_per_asset_b{batch}"] for batch in BATCHES)
        say(f"    filter {name:<5} {alone:>8.3f} {together:>8.3f}   {row['bytes_per_query']:.0f} bytes a stored query")


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
