"""Turns a region of a picture into what marks are compared by: one grey patch, free of colour, brightness and polarity.

The same for a region of a photo and for the drawing of a mark, so that both meet in one space.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 64  # pixels of a patch
_MARGIN = 0.1  # of the longer side, around the box
_SHORT_MIN = 0.5  # of the longer side: narrower boxes are widened, so that letters are not stretched beyond reading
_SPREAD_MIN = 4.0  # grey levels; a flatter region holds nothing
_RANGE = 3.0  # standard deviations that a patch spans
_RING = 4  # pixels from the edge that are taken for ground

Box = tuple[float, float, float, float]
Patch = NDArray[np.uint8]


def window(box: Box) -> Box:
    """The window (left, top, right, bottom) in pixels that a patch shows for a mark's box."""
    left, top, right, bottom = box
    long = max(right - left, bottom - top)
    half_w, half_h = (max(side, _SHORT_MIN * long) / 2 + _MARGIN * long for side in (right - left, bottom - top))
    x, y = (left + right) / 2, (top + bottom) / 2
    return (x - half_w, y - half_h, x + half_w, y + half_h)


def in_patch(box: Box, points: NDArray[Any]) -> NDArray[np.float64]:
    """Points [N,2] of the picture in pixels of the box's patch."""
    left, top, right, bottom = _whole(box)
    return np.asarray((points - (left, top)) * (SIDE / (right - left), SIDE / (bottom - top)))


def drawn_box(width: float, height: float) -> Box:
    """Where a mark of these sides lies in its own patch, in pixels of the patch."""
    (left, top), (right, bottom) = in_patch((0.0, 0.0, width, height), np.array([[0.0, 0.0], [width, height]]))
    return (float(left), float(top), float(right), float(bottom))


def to_picture(box: Box, points: NDArray[Any]) -> NDArray[np.float64]:
    """Points [N,2] of the box's patch in pixels of the picture."""
    left, top, right, bottom = _whole(box)
    return np.asarray(points * ((right - left) / SIDE, (bottom - top) / SIDE) + (left, top))


def _whole(box: Box) -> tuple[int, int, int, int]:
    """The window in whole pixels, at least two each way."""
    left, top, right, bottom = (round(value) for value in window(box))
    return left, top, max(right, left + 2), max(bottom, top + 2)


def cut(pixels: NDArray[np.uint8], box: Box) -> Patch | None:
    """The patch uint8 [SIDE,SIDE] of a box in RGB pixels [h,w,3]; None where there is nothing but one colour."""
    left, top, right, bottom = _whole(box)
    height, width = pixels.shape[:2]
    inner = pixels[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if not inner.size:
        return None
    outside = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    if any(outside):
        inner = cv2.copyMakeBorder(inner, *outside, borderType=cv2.BORDER_REPLICATE)
    shrinks = min(inner.shape[:2]) >= SIDE
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return plain(cv2.resize(inner, (SIDE, SIDE), interpolation=method))


def plain(colours: NDArray[Any]) -> Patch | None:
    """The colours [SIDE,SIDE,3] along their main axis, ground dark, mean at 127 and spread fixed; None where flat.

    Marks differ from their ground by colour as often as by brightness: the axis of most variance (PCA) sees both.
    """
    values = colours.reshape(-1, 3).astype(np.float32)
    values -= values.mean(axis=0)
    variances, axes = np.linalg.eigh(values.T @ values / len(values))
    spread = float(np.sqrt(max(variances[-1], 0.0)))
    if spread < _SPREAD_MIN:
        return None
    grey = (values @ axes[:, -1]).reshape(SIDE, SIDE) / spread
    if _ring_mean(grey) > 0:
        grey = -grey
    return np.clip((grey / _RANGE + 1) * 127.5, 0, 255).astype(np.uint8)


def _ring_mean(grey: NDArray[np.float32]) -> float:
    inner = grey[_RING:-_RING, _RING:-_RING]
    return float((grey.sum() - inner.sum()) / (grey.size - inner.size))
