"""Exact matching of one asset's vectors against all stored queries of its namespace, in plain numpy.

Dense queries stand in one contiguous matrix an index and model version; keyword queries in an inverted list by term.
Knows neither protobuf nor NATS.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.mesh.filters import Condition, matches

# An index and the version of the model that made its vectors; only vectors of one space are compared.
Space = tuple[int, str]
Dense = NDArray[np.float32]
Sparse = Mapping[int, float]

_FIRST_ROWS = 64
# Scores are compared after rounding, so that a threshold of 1.0 is met by equal vectors in float32.
SCORE_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a stored query. Dense vectors have unit length; sparse weights sum to 1."""

    space: Space
    dense: Dense | None = None
    sparse: Sparse | None = None
    # The query scores 0 for assets that do not satisfy it.
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """What one percolator looks for."""

    percolator_id: str
    collection_ids: frozenset[str]
    queries: tuple[Query, ...]
    # Inclusive, 0..1.
    min_score: float
    condition: Condition


@dataclass(frozen=True, slots=True)
class Asset:
    """A new asset: its vectors by space, several where several fields share one index."""

    collection_id: str
    # What conditions are tested against: the document's fields, and its metadata under "metadata".
    document: Mapping[str, object]
    dense: Mapping[Space, Sequence[Dense]]
    sparse: Mapping[Space, Sequence[Sparse]]


@dataclass(frozen=True, slots=True)
class Found:
    """A stored query that an asset matches. Scores are 0..1."""

    percolator_id: str
    score: float
    query_scores: tuple[float, ...]


@dataclass(slots=True)
class _Slot:
    query: StoredQuery
    rows: list[tuple[Space, int]]


@dataclass(slots=True)
class _Matrix:
    """Rows of unit vectors, and which slot each belongs to (-1: free)."""

    values: Dense
    owners: NDArray[np.int64]
    free: list[int] = field(default_factory=list)
    used: int = 0

    @classmethod
    def of(cls, dim: int) -> _Matrix:
        return cls(np.zeros((_FIRST_ROWS, dim), np.float32), np.full(_FIRST_ROWS, -1, np.int64))

    def add(self, vector: Dense, owner: int) -> int:
        row = self.free.pop() if self.free else self.used
        if row == len(self.values):
            self.values = np.concatenate([self.values, np.zeros_like(self.values)])
            self.owners = np.concatenate([self.owners, np.full(len(self.owners), -1, np.int64)])
        self.used = max(self.used, row + 1)
        self.values[row], self.owners[row] = vector, owner
        return row

    def remove(self, row: int) -> None:
        self.values[row], self.owners[row] = 0, -1
        self.free.append(row)


class Engine:
    """The stored queries of one namespace."""

    def __init__(self) -> None:
        self._slots: list[_Slot | None] = []
        self._free: list[int] = []
        self._by_id: dict[str, int] = {}
        # Thresholds and numbers of queries by slot; an infinite threshold marks a free one.
        self._thresholds = np.full(_FIRST_ROWS, np.inf)
        self._counts = np.ones(_FIRST_ROWS)
        self._dense: dict[Space, _Matrix] = {}
        # Space -> term -> (slot, position of the query, weight).
        self._sparse: dict[Space, dict[int, dict[tuple[int, int], float]]] = defaultdict(lambda: defaultdict(dict))

    def __len__(self) -> int:
        return len(self._by_id)

    def put(self, query: StoredQuery) -> None:
        """Add a stored query, or replace the one with its id."""
        self.remove(query.percolator_id)
        number = self._free.pop() if self._free else len(self._slots)
        slot = _Slot(query, [])
        if number == len(self._slots):
            self._slots.append(slot)
        else:
            self._slots[number] = slot
        if number == len(self._thresholds):
            self._thresholds = np.concatenate([self._thresholds, np.full(number, np.inf)])
            self._counts = np.concatenate([self._counts, np.ones(number)])
        self._thresholds[number], self._counts[number] = query.min_score, len(query.queries)
        self._by_id[query.percolator_id] = number
        for position, one in enumerate(query.queries):
            row = position
            if one.dense is not None:
                matrix = self._dense.setdefault(one.space, _Matrix.of(len(one.dense)))
                row = matrix.add(one.dense, number)
            for term, weight in (one.sparse or {}).items():
                self._sparse[one.space][term][(number, position)] = weight
            slot.rows.append((one.space, row))

    def remove(self, percolator_id: str) -> None:
        """Remove a stored query; nothing happens when there is none."""
        number = self._by_id.pop(percolator_id, None)
        if number is None:
            return
        slot = self._slots[number]
        assert slot is not None
        for position, (one, (space, row)) in enumerate(zip(slot.query.queries, slot.rows, strict=True)):
            if one.dense is not None:
                self._dense[space].remove(row)
            for term in one.sparse or {}:
                self._sparse[space][term].pop((number, position), None)
        self._slots[number] = None
        self._thresholds[number] = np.inf
        self._free.append(number)

    def match(self, asset: Asset, min_score: float | None, limit: int) -> list[Found]:
        """The stored queries that an asset matches, best first, equal scores by id.

        A dense query's score is the cosine clipped to 0..1, the best where the asset has several vectors in one
        index; a keyword query's is the inner product; a query whose index the asset lacks, or whose own condition it
        does not satisfy, scores 0. The stored query's score is the mean. The threshold is the larger of `min_score`
        and the stored query's own.
        """
        rows = {
            space: _best(self._dense[space], vectors) for space, vectors in asset.dense.items() if space in self._dense
        }
        terms = self._keyword_scores(asset)
        sums = np.zeros(len(self._slots))
        for space, row_scores in rows.items():
            owners = self._dense[space].owners[: self._dense[space].used]
            taken = owners >= 0
            sums += np.bincount(owners[taken], row_scores[taken], minlength=len(sums))
        for (number, _), score in terms.items():
            sums[number] += score
        found = []
        for number in self._candidates(sums, min_score):
            slot = self._slots[number]
            if slot is None or asset.collection_id not in slot.query.collection_ids:
                continue
            scores = self._query_scores(number, slot, rows, terms, asset.document)
            score = round(sum(scores) / len(scores), SCORE_DECIMALS)
            if score < max(slot.query.min_score, min_score or 0.0):
                continue
            if matches(slot.query.condition, asset.document):
                found.append(Found(slot.query.percolator_id, score, scores))
        return sorted(found, key=lambda each: (-each.score, each.percolator_id))[:limit]

    def _candidates(self, sums: NDArray[np.float64], min_score: float | None) -> list[int]:
        """Slots whose mean may reach the threshold."""
        thresholds = np.maximum(self._thresholds[: len(sums)], min_score or 0.0)
        # A little below the threshold: the exact comparison is made on the rounded score.
        floors = (thresholds - 10**-SCORE_DECIMALS) * self._counts[: len(sums)]
        return [int(number) for number in np.flatnonzero(sums >= floors)]

    def _keyword_scores(self, asset: Asset) -> dict[tuple[int, int], float]:
        best: dict[tuple[int, int], float] = {}
        for space, vectors in asset.sparse.items():
            if space not in self._sparse:
                continue
            for vector in vectors:
                scores: dict[tuple[int, int], float] = defaultdict(float)
                for term, weight in vector.items():
                    for place, query_weight in self._sparse[space].get(term, {}).items():
                        scores[place] += weight * query_weight
                for place, score in scores.items():
                    best[place] = max(best.get(place, 0.0), min(score, 1.0))
        return best

    def _query_scores(
        self,
        number: int,
        slot: _Slot,
        rows: Mapping[Space, NDArray[np.float64]],
        terms: Mapping[tuple[int, int], float],
        document: Mapping[str, object],
    ) -> tuple[float, ...]:
        scores = []
        for position, (one, (space, row)) in enumerate(zip(slot.query.queries, slot.rows, strict=True)):
            if one.condition is not None and not matches(one.condition, document):
                score = 0.0
            elif one.dense is None:
                score = terms.get((number, position), 0.0)
            else:
                score = float(rows[space][row]) if space in rows else 0.0
            scores.append(round(score, SCORE_DECIMALS))
        return tuple(scores)


def _best(matrix: _Matrix, vectors: Sequence[Dense]) -> NDArray[np.float64]:
    """Each row's cosine with the nearest of the vectors, clipped to 0..1; float64[rows]."""
    products = matrix.values[: matrix.used] @ np.stack(vectors).T
    return np.asarray(np.clip(products.max(axis=1), 0.0, 1.0), dtype=np.float64)
