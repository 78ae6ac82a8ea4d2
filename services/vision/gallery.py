"""Which of a namespace's own marks are near to the regions of a picture, and which findings stand.

Exact: every vector of every mark is compared, by one matrix product. Knows neither protobuf nor NATS, nor models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
# Four corners [x, y] in pixels, from the top left clockwise.
Quad = Sequence[Sequence[float]]

# The bars of the gallery that ships: marks that are laid over a region, and the least cosine of one worth that.
CANDIDATES_MAX = 3
COSINE_MIN = 0.35
# Marks for all regions of a picture: each is 20 KB of document, and about 2 ms a region that it is near to.
MARKS_MAX = 64
# Shared area by which two findings are one: of both together, or of the smaller where they have one name.
_OVERLAP_MAX = 0.5


@dataclass(frozen=True, slots=True)
class Finding:
    """A logo that was found: brand, confidence 0..1, corners, and whose it is; no id: one that ships."""

    name: str
    confidence: float
    quad: Quad
    logo_id: str | None = None


class Gallery:
    """The marks of one namespace by id."""

    def __init__(self) -> None:
        self._vectors: dict[str, Vectors] = {}
        # Made when first needed after a change, so that loading many marks does not copy the matrix each time.
        self._rows: tuple[list[str], Vectors, NDArray[np.intp]] | None = None

    def __len__(self) -> int:
        return len(self._vectors)

    def put(self, mark_id: str, vectors: Vectors) -> None:
        """Add a mark or replace it.

        Args:
            vectors: float32 [V,D], V at least 1, of unit length; D is the same for all marks.

        Raises:
            ValueError: for any other shape.
        """
        others = (each.shape[1] for key, each in self._vectors.items() if key != mark_id)
        if vectors.ndim != 2 or not vectors.size or vectors.shape[1] != next(others, vectors.shape[1]):
            raise ValueError(f"a mark's vectors have the shape {vectors.shape}")
        self._vectors[mark_id] = vectors
        self._rows = None

    def remove(self, mark_id: str) -> None:
        """Remove a mark; does nothing when there is none."""
        if self._vectors.pop(mark_id, None) is not None:
            self._rows = None

    def near(self, regions: Vectors) -> list[str]:
        """The marks that are worth comparing with the regions float32 [R,D], nearest first, at most MARKS_MAX."""
        if not self._vectors or not len(regions):
            return []
        ids, matrix, starts = self._matrix()
        # A mark is as near as its nearest view: [R, marks].
        cosines = np.maximum.reduceat(regions @ matrix.T, starts, axis=1)
        count = min(CANDIDATES_MAX, len(ids))
        columns = np.argpartition(cosines, len(ids) - count, axis=1)[:, -count:]
        best: dict[int, float] = {}
        for column, cosine in zip(
            columns.ravel().tolist(), np.take_along_axis(cosines, columns, 1).ravel(), strict=True
        ):
            if cosine >= COSINE_MIN:
                best[column] = max(best.get(column, -1.0), float(cosine))
        return [ids[column] for column in sorted(best, key=lambda each: -best[each])[:MARKS_MAX]]

    def _matrix(self) -> tuple[list[str], Vectors, NDArray[np.intp]]:
        """Ids, all vectors [rows,D], and the row at which each id's begin."""
        if self._rows is None:
            counts = [len(each) for each in self._vectors.values()]
            starts = np.cumsum([0, *counts[:-1]], dtype=np.intp)
            self._rows = list(self._vectors), np.concatenate(list(self._vectors.values())), starts
        return self._rows


def merged(own: Iterable[Finding], shipped: Iterable[Finding]) -> list[Finding]:
    """All findings, surest first, without those that lie on a surer one; of two equally sure, the namespace's own."""
    kept: list[Finding] = []
    for finding in sorted([*own, *shipped], key=lambda each: (-each.confidence, each.logo_id is None)):
        if not any(_same(finding, other) for other in kept):
            kept.append(finding)
    return kept


def _same(first: Finding, second: Finding) -> bool:
    (low_a, high_a), (low_b, high_b) = (
        (np.min(each.quad, axis=0), np.max(each.quad, axis=0)) for each in (first, second)
    )
    shared = float(np.prod(np.maximum(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0)))
    areas = float(np.prod(high_a - low_a)), float(np.prod(high_b - low_b))
    # The lettering of a mark is often found beside the mark as a whole.
    whole = min(areas) if first.name == second.name else sum(areas) - shared
    return shared > _OVERLAP_MAX * whole
