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
# Marks for all regions of a picture: each is 20 KB of document, and takes about 2 ms a region that it is near to.
MARKS_MAX = 32
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
        self._views_max = 0

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
        ids, matrix, owners = self._matrix()
        best: dict[int, float] = {}
        for cosines in regions @ matrix.T:
            for owner, cosine in self._nearest(cosines, owners).items():
                best[owner] = max(best.get(owner, cosine), cosine)
        return [ids[owner] for owner in sorted(best, key=lambda each: -best[each])[:MARKS_MAX]]

    def _nearest(self, cosines: Vectors, owners: NDArray[np.intp]) -> dict[int, float]:
        """The marks nearest to one region with their cosines: a mark is as near as its nearest view."""
        rows = np.flatnonzero(cosines >= COSINE_MIN)
        # Other views of the same marks may stand before the last mark that is wanted.
        most = CANDIDATES_MAX * self._views_max
        if len(rows) > most:
            rows = rows[np.argpartition(cosines[rows], -most)[-most:]]
        found: dict[int, float] = {}
        for row in rows[np.argsort(-cosines[rows])]:
            found.setdefault(int(owners[row]), float(cosines[row]))
            if len(found) == CANDIDATES_MAX:
                break
        return found

    def _matrix(self) -> tuple[list[str], Vectors, NDArray[np.intp]]:
        """Ids, all vectors [rows,D], and which id each row belongs to."""
        if self._rows is None:
            counts = [len(each) for each in self._vectors.values()]
            self._views_max = max(counts)
            owners = np.repeat(np.arange(len(counts)), counts)
            self._rows = list(self._vectors), np.concatenate(list(self._vectors.values())), owners
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
