"""From the text detector's probability map to text quads.

Differentiable binarization (Liao et al. 2020): threshold, contours, smallest rectangle, grown back by its unclip ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lensmesh_models.images import Pixels

SIDE_LIMIT_PX, STRIDE_PX = 960, 32
_PIXEL_THRESHOLD, _BOX_THRESHOLD = 0.3, 0.5
_UNCLIP_RATIO = 1.6
_CONTOURS_MAX = 1000
_SIDE_MIN_PX = 3.0

cv2.setNumThreads(1)


@dataclass(frozen=True)
class Quad:
    """Four corners, float32 [4,2] as x, y: top left, top right, bottom right, bottom left; ``score`` in 0..1."""

    corners: NDArray[np.float32]
    score: float

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the corners."""
        x, y = self.corners.mean(axis=0)
        return float(x), float(y)

    @property
    def sides(self) -> tuple[float, float]:
        """Width and height in pixels, the larger of two opposite sides each."""
        edges = np.linalg.norm(self.corners - np.roll(self.corners, -1, axis=0), axis=1)
        return float(max(edges[0], edges[2])), float(max(edges[1], edges[3]))


def detector_input(pixels: Pixels, scale: float) -> Pixels:
    """uint8 [1,H,W,3]: the pixels shrunk by about ``scale``, each side a multiple of 32 and at most 960 pixels."""
    height, width = pixels.shape[:2]
    factor = min(scale, SIDE_LIMIT_PX / max(height, width))
    sides = [max(STRIDE_PX, round(side * factor / STRIDE_PX) * STRIDE_PX) for side in (width, height)]
    return np.asarray(cv2.resize(pixels, (sides[0], sides[1]), interpolation=cv2.INTER_AREA))[None]


def find_quads(probability: NDArray[np.float32], width: int, height: int) -> list[Quad]:
    """Quads in pixels of a ``width`` x ``height`` image from the map [H,W] that the detector gave for it."""
    mask = cv2.dilate((probability > _PIXEL_THRESHOLD).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    scale = np.array([width / probability.shape[1], height / probability.shape[0]], np.float32)
    limit = np.array([width - 1, height - 1], np.float32)
    quads = []
    for contour in contours[:_CONTOURS_MAX]:
        centre, (side_a, side_b), angle = cv2.minAreaRect(contour)
        if min(side_a, side_b) < _SIDE_MIN_PX:
            continue
        score = _mean_inside(probability, cv2.boxPoints((centre, (side_a, side_b), angle)))
        if score < _BOX_THRESHOLD:
            continue
        # The network is taught shrunken boxes; a rectangle grown by d on each side stays a rectangle.
        grown = 2 * side_a * side_b * _UNCLIP_RATIO / (2 * (side_a + side_b))
        corners = cv2.boxPoints((centre, (side_a + grown, side_b + grown), angle))
        quad = Quad(np.clip(ordered(corners) * scale, 0, limit).astype(np.float32), score)
        if min(quad.sides) > _SIDE_MIN_PX:
            quads.append(quad)
    return quads


def _mean_inside(probability: NDArray[np.float32], corners: NDArray[np.float32]) -> float:
    high, wide = probability.shape
    left, top = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, [wide - 1, high - 1])
    right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, [wide - 1, high - 1])
    mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    cv2.fillPoly(mask, [(corners - [left, top]).astype(np.int32)], 1)
    return float(cv2.mean(probability[top : bottom + 1, left : right + 1], mask)[0])


def ordered(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clockwise from the top left: the two left points by height, then the two right ones."""
    by_x = corners[np.argsort(corners[:, 0], kind="stable")]
    left, right = (pair[np.argsort(pair[:, 1], kind="stable")] for pair in (by_x[:2], by_x[2:]))
    return np.array([left[0], right[0], right[1], left[1]], np.float32)
