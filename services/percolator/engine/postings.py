"""Keyword queries in an inverted structure: for each term, the queries that have it and what it weighs there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from services.percolator.engine.types import Sparse

_FIRST = 4


class _List:
    """The rows that have a term, and its weight in each."""

    __slots__ = ("rows", "used", "weights")

    def __init__(self) -> None:
        self.rows = np.zeros(_FIRST, np.int32)
        self.weights = np.zeros(_FIRST, np.float32)
        self.used = 0

    def add(self, row: int, weight: float) -> None:
        if self.used == len(self.rows):
            self.rows = np.concatenate([self.rows, np.zeros_like(self.rows)])
            self.weights = np.concatenate([self.weights, np.zeros_like(self.weights)])
        self.rows[self.used], self.weights[self.used] = row, weight
        self.used += 1

    def remove(self, row: int) -> None:
        place = int(np.flatnonzero(self.rows[: self.used] == row)[0])
        self.used -= 1
        # The last one takes its place: order does not matter.
        self.rows[place], self.weights[place] = self.rows[self.used], self.weights[self.used]


class Postings:
    """The keyword queries of one space."""

    def __init__(self) -> None:
        self._terms: dict[int, _List] = {}
        # The score of each row for the asset at hand; all zero in between.
        self._scores = np.zeros(64)
        self._sums = np.zeros(64)

    def put(self, row: int, weights: Sparse) -> None:
        """Add a query under a row that is free."""
        if row >= len(self._scores):
            size = max(row + 1, 2 * len(self._scores))
            self._scores, self._sums = np.zeros(size), np.zeros(size)
        for term, weight in weights.items():
            self._terms.setdefault(term, _List()).add(row, weight)

    def remove(self, row: int, terms: Iterable[int]) -> None:
        """Remove the query under a row, which has these terms."""
        for term in terms:
            postings = self._terms[term]
            postings.remove(row)
            if not postings.used:
                del self._terms[term]

    def score(self, vectors: Sequence[Sparse]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows that share a term with any of the vectors, and each one's best inner product, clipped to 0..1."""
        touched = [np.zeros(0, np.int32)]
        for vector in vectors:
            lists = [(self._terms[term], weight) for term, weight in vector.items() if term in self._terms]
            if not lists:
                continue
            rows = np.concatenate([each.rows[: each.used] for each, _ in lists])
            parts = [each.weights[: each.used].astype(np.float64) * weight for each, weight in lists]
            np.add.at(self._sums, rows, np.concatenate(parts))
            self._scores[rows] = np.maximum(self._scores[rows], self._sums[rows])
            self._sums[rows] = 0
            touched.append(rows)
        rows = np.unique(np.concatenate(touched))
        scores = np.minimum(self._scores[rows], 1.0)
        self._scores[rows] = 0
        return rows.astype(np.int64), scores
