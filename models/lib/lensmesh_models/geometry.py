"""Boxes, overlaps and tiles in pixels, shared by the detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILES_MAX = 64
# Only pictures both longer than this and longer than three times their width are cut: smaller ones survive shrinking.
_TILED_FROM_PX, _TILED_FROM_RATIO = 2880, 3.0
_OVERLAP = 0.2


@dataclass(frozen=True)
class Tile:
    """A window of a picture, and its core: a point belongs to the one tile whose core holds it (all in pixels)."""

    left: int
    top: int
    right: int
    bottom: int
    core: tuple[float, float]
    vertical: bool

    def owns(self, x: float, y: float) -> bool:
        """Whether the point, in pixels of the whole picture, is this tile's to report."""
        start, end = self.core
        return start <= (y if self.vertical else x) < end


def tiles(width: int, height: int, *, window_px: int) -> list[Tile]:
    """One tile for an ordinary picture; overlapping windows along a very long one, at most TILES_MAX."""
    short, long = min(width, height), max(width, height)
    everything = (-np.inf, np.inf)
    if long <= _TILED_FROM_PX or long <= _TILED_FROM_RATIO * short:
        return [Tile(0, 0, width, height, everything, True)]
    vertical = height > width
    window = max(window_px, int(1.5 * short), int(np.ceil(long / (TILES_MAX * (1 - _OVERLAP)))))
    count = int(np.ceil((long - window) / (window * (1 - _OVERLAP)))) + 1
    starts = np.linspace(0, long - window, count).astype(int)
    # A core ends in the middle of the overlap with the next window.
    borders = [-np.inf, *((starts[1:] + starts[:-1] + window) / 2), np.inf]
    found = []
    for start, core_from, core_to in zip(starts.tolist(), borders[:-1], borders[1:], strict=True):
        left, top = (0, start) if vertical else (start, 0)
        right, bottom = (width, start + window) if vertical else (start + window, height)
        found.append(Tile(left, top, right, bottom, (float(core_from), float(core_to)), vertical))
    return found


def suppress(
    boxes: NDArray[Any], scores: NDArray[Any], *, overlap_max: float, kept_max: int | None = None
) -> list[int]:
    """Greedy non-maximum suppression: indices kept, best first. ``boxes`` [N,4] as left, top, right, bottom."""
    kept: list[int] = []
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    order = np.argsort(-scores, kind="stable")
    while order.size and len(kept) != kept_max:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        inner = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2])
        shared = np.prod(np.maximum(inner, 0), axis=1)
        order = rest[shared <= overlap_max * (areas[best] + areas[rest] - shared)]
    return kept
