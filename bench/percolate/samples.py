"""Stored queries and assets for the benchmark: near a few hundred directions, so that every asset has matches and many
stored queries lie just below their thresholds."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from services.mesh.filters import MATCH_ALL, Condition, Leaf, Operator
from services.percolator.engine import Asset, Probe, Query, StoredQuery

DIM = 512
SPACE = (2, "bench-1")
COLLECTION = "bench"
SEED = 1
_DIRECTIONS = 500
# Cosine of a vector with its direction; of two of one direction it is the square, 0.64.
_NEARNESS = 0.8
_CHUNK = 1_000
# Filters by the share of stored queries whose filter an asset satisfies; None: no filter.
SELECTIVITIES: tuple[float | None, ...] = (None, 0.01, 0.1, 1.0)

Vectors = NDArray[np.float32]


def _unit(values: NDArray[np.float64]) -> Vectors:
    unit: Vectors = (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)
    return unit


class Samples:
    """Everything from one seed, in chunks, so that a million need not be in memory twice."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._directions = _unit(np.random.default_rng(SEED).standard_normal((_DIRECTIONS, DIM)))

    def chunks(self) -> Iterator[tuple[Vectors, NDArray[np.float64]]]:
        """Vectors float32[N, 512] and thresholds float64[N] of the stored queries."""
        random = np.random.default_rng(SEED + 1)
        for start in range(0, self.count, _CHUNK):
            size = min(_CHUNK, self.count - start)
            yield self._near(random, size), np.round(random.uniform(0.65, 0.95, size), 3)

    def stored_queries(self, selectivity: float | None) -> Iterator[list[StoredQuery]]:
        """The stored queries, with filters that an asset satisfies so often."""
        number = 0
        for vectors, thresholds in self.chunks():
            made = []
            for vector, threshold in zip(vectors, thresholds, strict=True):
                made.append(
                    StoredQuery(
                        str(uuid.UUID(int=number, version=4)),
                        frozenset({COLLECTION}),
                        (Query(SPACE, dense=vector),),
                        float(threshold),
                        _filter(number, selectivity),
                    )
                )
                number += 1
            yield made

    def assets(self, count: int) -> Vectors:
        """New assets, float32[count, 512]."""
        return self._near(np.random.default_rng(SEED + 2), count)

    def _near(self, random: np.random.Generator, size: int) -> Vectors:
        noise = random.standard_normal((size, DIM)) / np.sqrt(DIM)
        far = np.sqrt(1 / _NEARNESS**2 - 1)
        return _unit(self._directions[random.integers(0, _DIRECTIONS, size)] + far * noise)


def probe(vector: Vectors, number: int) -> Probe:
    """An asset to be matched; its category is among a hundred."""
    document = {"metadata": {"category": number % 100, "tenth": number % 10}}
    return Probe(Asset(COLLECTION, document, {SPACE: [vector]}, {}))


def _filter(number: int, selectivity: float | None) -> Condition:
    if selectivity is None:
        return MATCH_ALL
    if selectivity == 1.0:
        return Leaf(("metadata", "category"), Operator.GTE, 0)
    key, values = ("category", 100) if selectivity == 0.01 else ("tenth", 10)
    return Leaf(("metadata", key), Operator.EQ, number % values)
