"""Where the text detector looks in large and long pictures, and how what its windows found becomes one page.

Windows overlap by more than a line is high. A line cut by a seam is in both windows: its pieces are put together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmesh_models.text_detection import SIDE_LIMIT_PX, Quad, ordered

# Bounds the detector's time for one picture: a window costs up to 0.5 s on a CPU.
WINDOWS_MAX = 64
# Lines of one picture that are read; what is found beyond that is the least certain.
LINES_MAX = 2000
_OVERLAP = 0.2
# A very long picture would lose its letters in one view: it is seen in windows from the start.
_LONG_FROM_PX, _LONG_FROM_RATIO = 2880, 3.0
_LONG_WINDOW_RATIO = 1.5  # height of such a window over its width, so that few are needed
# Boxes below this height in detector pixels are hard to tell apart; looked at again, they should be as high as wanted.
SMALL_PX, _WANTED_PX = 14.0, 24.0
_LARGE_PX = 48.0
# A second look that enlarges by less does not pay.
_GAIN_MIN = 1.3
# Enlarging what the picture itself holds helps the detector up to about here.
_SCALE_MAX = 1.5
# With more windows than allowed the second look enlarges by this factor less, and so on.
_STEP_BACK = 0.85
_PIECE_HEIGHTS_RATIO_MAX, _PIECE_SHARED_MIN = 1.6, 0.6
_INSIDE_MIN = 0.6


@dataclass(frozen=True)
class Window:
    """A part of a picture (pixels, ends excluded) and by how much it is shrunk for the detector."""

    left: int
    top: int
    right: int
    bottom: int
    scale: float


def first_look(width: int, height: int) -> list[Window]:
    """The whole picture; a very long one in a row of windows."""
    short, long = min(width, height), max(width, height)
    if long <= _LONG_FROM_PX or long <= _LONG_FROM_RATIO * short:
        return [Window(0, 0, width, height, min(1.0, SIDE_LIMIT_PX / long))]
    side = max(SIDE_LIMIT_PX, int(_LONG_WINDOW_RATIO * short), math.ceil(long / (WINDOWS_MAX * (1 - _OVERLAP))))
    return _grid(width, height, (side if width >= height else width, side if height > width else height))


def second_look(width: int, height: int, quads: Sequence[Quad], scale: float) -> list[Window]:
    """Windows that show small letters larger, where some were seen at ``scale``; none where that would not pay."""
    heights = [min(quad.sides) * scale for quad in quads]
    small = [quad for quad, high in zip(quads, heights, strict=True) if high < SMALL_PX]
    if 2 * len(small) < len(quads) or not small:
        return []
    typical = float(np.median([high for high in heights if high < SMALL_PX]))
    wanted = min(_SCALE_MAX, scale * _WANTED_PX / typical)
    bounds = np.array([_bounds(quad) for quad in small])
    while wanted >= _GAIN_MIN * scale:
        side = int(SIDE_LIMIT_PX / wanted)
        windows = _grid(width, height, (min(side, width), min(side, height)))
        windows = [window for window in windows if _meets(window, bounds)]
        if len(windows) <= WINDOWS_MAX:
            return windows
        wanted *= _STEP_BACK
    return []


def large(quads: Sequence[Quad], scale: float) -> list[Quad]:
    """Those whose letters the second look might show too large."""
    return [quad for quad in quads if min(quad.sides) * scale >= _LARGE_PX]


def _meets(window: Window, bounds: NDArray[Any]) -> bool:
    across = (bounds[:, 0] < window.right) & (window.left < bounds[:, 2])
    return bool((across & (bounds[:, 1] < window.bottom) & (window.top < bounds[:, 3])).any())


def _grid(width: int, height: int, size: tuple[int, int]) -> list[Window]:
    scale = min(_SCALE_MAX, SIDE_LIMIT_PX / max(size))
    starts = [_starts(long, side) for long, side in zip((width, height), size, strict=True)]
    return [
        Window(left, top, min(left + size[0], width), min(top + size[1], height), scale)
        for top in starts[1]
        for left in starts[0]
    ]


def _starts(long: int, side: int) -> list[int]:
    if side >= long:
        return [0]
    count = math.ceil((long - side) / (side * (1 - _OVERLAP))) + 1
    return [int(start) for start in np.linspace(0, long - side, count)]


def one_page(found: Sequence[Sequence[Quad]]) -> list[Quad]:
    """The quads of all windows, in pixels of the picture, with the pieces of one line put together."""
    page: list[Quad] = []
    for quads in found:
        known = len(page)
        for quad in quads:
            # Quads of one window are no pieces of each other.
            _add(page, known, quad)
    return sorted(page, key=lambda quad: -quad.score)[:LINES_MAX]


def _add(page: list[Quad], known: int, quad: Quad) -> None:
    """Adds a quad to the page, or puts it together with the line among the first ``known`` that it is a piece of."""
    if known:
        bounds = np.array([_bounds(other) for other in page[:known]])
        left, top, right, bottom = _bounds(quad)
        near = (bounds[:, 0] < right) & (left < bounds[:, 2]) & (bounds[:, 1] < bottom) & (top < bounds[:, 3])
        for index in np.flatnonzero(near):
            whole = _together(page[index], quad)
            if whole is not None:
                page[index] = whole
                return
    page.append(quad)


def _bounds(quad: Quad) -> tuple[float, float, float, float]:
    (left, top), (right, bottom) = quad.corners.min(axis=0), quad.corners.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def _together(a: Quad, b: Quad) -> Quad | None:
    """One quad around both where they are pieces of a line, the larger where it holds most of the other, else None."""
    large, small = (a, b) if np.prod(a.sides) >= np.prod(b.sides) else (b, a)
    width, height = large.sides
    edge = large.corners[1] - large.corners[0] if width >= height else large.corners[3] - large.corners[0]
    along = edge / max(float(np.linalg.norm(edge)), 1e-6)
    axes = np.stack([along, [-along[1], along[0]]], axis=1)
    spans = [(points.min(axis=0), points.max(axis=0)) for points in (large.corners @ axes, small.corners @ axes)]
    (low, high), (low_small, high_small) = spans
    shared = np.minimum(high, high_small) - np.maximum(low, low_small)
    if (shared <= 0).any():
        return None
    extent, extent_small = high - low, high_small - low_small
    ratio = max(extent[1], extent_small[1]) / max(min(extent[1], extent_small[1]), 1e-6)
    if ratio <= _PIECE_HEIGHTS_RATIO_MAX and shared[1] >= _PIECE_SHARED_MIN * min(extent[1], extent_small[1]):
        (left, top), (right, bottom) = np.minimum(low, low_small), np.maximum(high, high_small)
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]]) @ axes.T
        return Quad(ordered(corners.astype(np.float32)), max(a.score, b.score))
    inside = float(np.prod(shared)) / max(float(np.prod(extent_small)), 1e-6)
    return large if inside >= _INSIDE_MIN else None
