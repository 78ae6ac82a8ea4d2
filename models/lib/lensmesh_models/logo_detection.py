"""Where marks may be: a network says how much each place looks like one, connected shapes say how far it goes.

The network (models/train_logos) knows drawn from photographed but is vague about edges; the shapes are exact but many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lensmesh_models.geometry import suppress
from lensmesh_models.logo_regions import Box

OUTPUTS = ("SCORES", "SIDES")
LONG_PX = 640  # of what is searched: marks of 20 pixels there are the smallest found
REGIONS_MAX = 48  # a picture; each costs about 1.5 ms to embed
_COARSE = 0.4  # of the size of the first look: the network knows marks up to 160 pixels
_FLOOR = 0.12  # of the network's scores; what lies below is a photo
_CONFIDENCE_MIN = 0.04  # of a place
_INNER, _OUTER, _AROUND_WEIGHT = (
    0.6,
    1.6,
    0.5,
)  # a place is judged inside this part of it, and around it up to this size
_STRIDE, _MULTIPLE = 8, 64  # pixels of a cell; what the network's sides must be multiples of
_OVERLAP_MAX, _LOOSE_OVERLAP_MAX = 0.7, 0.5  # of two places (IoU), and of two that the network itself gives
_SIDE_MIN_PX = 14.0  # of a box's longer side, in pixels that were searched
_CANDIDATES_MAX = 300  # of one look, before the best are chosen
_SHARE_MAX = 0.9  # of the picture's sides that a shape may have: larger ones are its ground
_AREA_MIN_PX = 40
# A shape is what is lighter or darker, or of another hue, than its surroundings on average (Bradley and Roth 2007).
_WINDOWS_PX = (41, 161)
_STEPS = (7, 4, 4)  # of the channels L, a and b of CIELAB as OpenCV scales them
_GAPS_PX = (1, 7, 17)  # that parts of one mark may be apart


@dataclass(frozen=True)
class Found:
    """A place where a mark may be: box (left, top, right, bottom) in pixels of the picture, and a confidence 0..1."""

    box: Box
    confidence: float


@dataclass(frozen=True)
class Look:
    """What the network sees: uint8 [1,H,W,3], padded with grey, and the scale against the picture."""

    canvas: NDArray[np.uint8]
    scale: float


def looks(pixels: NDArray[np.uint8]) -> list[Look]:
    """The picture at LONG_PX, and smaller, where the large marks have the size that the network knows."""
    scale = min(1.0, LONG_PX / max(pixels.shape[:2]))
    first = _look(pixels, scale)
    return [first, _look(pixels, scale * _COARSE)]


def _look(pixels: NDArray[np.uint8], scale: float) -> Look:
    shrunk = _resized(pixels, scale)
    canvas = np.full((1, *(-(-side // _MULTIPLE) * _MULTIPLE for side in shrunk.shape[:2]), 3), 127, np.uint8)
    canvas[0, : shrunk.shape[0], : shrunk.shape[1]] = shrunk
    return Look(canvas, scale)


def _resized(pixels: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels, np.uint8)


def found(pixels: NDArray[np.uint8], seen: list[tuple[Look, dict[str, NDArray[Any]]]]) -> list[Found]:
    """The places in a picture RGB [h,w,3], best first, at most REGIONS_MAX.

    ``seen`` holds each look with the network's SCORES float32 [1,1,h,w] in 0..1 and SIDES [1,4,h,w]: distances to the
    left, top, right and bottom of the mark in cells.
    """
    scale = seen[0][0].scale
    boxes = [*(_of_look(look, maps) for look, maps in seen), shapes(_resized(pixels, scale)) / scale]
    every = np.clip(np.concatenate(boxes), 0, [*pixels.shape[1::-1], *pixels.shape[1::-1]])
    heats = [_heat(maps["SCORES"][0, 0], look.scale, every) for look, maps in seen]
    confidences = np.clip(np.max(heats, axis=0), 0, 1)
    long = (every[:, 2:] - every[:, :2]).max(axis=1, initial=0) * scale
    good = np.flatnonzero((confidences >= _CONFIDENCE_MIN) & (long >= _SIDE_MIN_PX))
    good = good[np.argsort(-confidences[good], kind="stable")][: 2 * _CANDIDATES_MAX]
    kept = good[suppress(every[good], confidences[good], overlap_max=_OVERLAP_MAX, kept_max=REGIONS_MAX)]
    return [Found(tuple(every[index].tolist()), float(confidences[index])) for index in kept]


def _of_look(look: Look, maps: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The network's own boxes [N,4] in pixels of the picture."""
    scores = maps["SCORES"][0, 0]
    rows, columns = np.nonzero(scores >= _FLOOR)
    order = np.argsort(-scores[rows, columns], kind="stable")[:_CANDIDATES_MAX]
    rows, columns = rows[order], columns[order]
    distances = maps["SIDES"][0][:, rows, columns].T
    middles = np.stack([columns + 0.5, rows + 0.5], axis=1)
    boxes = np.concatenate([middles - distances[:, :2], middles + distances[:, 2:]], axis=1) * _STRIDE / look.scale
    return boxes[suppress(boxes, scores[rows, columns], overlap_max=_LOOSE_OVERLAP_MAX)]


def _heat(scores: NDArray[Any], scale: float, boxes: NDArray[Any]) -> NDArray[Any]:
    """[N]: mean score inside each box, less where it goes on around it: a part of a mark is surrounded by the rest."""
    sums = np.pad(scores.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    cells = boxes * (scale / _STRIDE)
    inner, inner_count = _sum(sums, _grown(cells, _INNER))
    whole, whole_count = _sum(sums, cells)
    outer, outer_count = _sum(sums, _grown(cells, _OUTER))
    around = (outer - whole) / np.maximum(outer_count - whole_count, 1)
    return np.asarray(inner / inner_count - _AROUND_WEIGHT * around)


def _grown(boxes: NDArray[Any], factor: float) -> NDArray[Any]:
    middles, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
    return np.concatenate([middles - halves, middles + halves], axis=1)


def _sum(sums: NDArray[Any], boxes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sum over the cells that each box touches, and their number (at least 1), from sums over all cells before."""
    limit = np.array(sums.shape[::-1]) - 1
    low = np.floor(boxes[:, :2]).astype(int)
    high = np.clip(np.maximum(np.ceil(boxes[:, 2:]).astype(int), low + 1), 0, limit)
    low = np.clip(low, 0, limit)
    (left, top), (right, bottom) = low.T, high.T
    total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return total, np.maximum((right - left) * (bottom - top), 1)


def shapes(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Boxes [N,4] around connected shapes that stand out from their surroundings, parts a gap apart joined."""
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    most = np.array(pixels.shape[1::-1]) * _SHARE_MAX
    labels = np.empty(pixels.shape[:2], np.int32)  # the same for all: new memory takes longer than labelling
    boxes = []
    for channel, step in zip(cv2.split(lab), _STEPS, strict=True):
        for window in _WINDOWS_PX:
            mean = cv2.blur(channel, (window, window))
            for above in (cv2.subtract(channel, mean), cv2.subtract(mean, channel)):
                binary = cv2.threshold(above, step, 1, cv2.THRESH_BINARY)[1]
                for gap in _GAPS_PX:
                    kernel = np.ones((gap, gap), np.uint8)
                    joined = binary if gap == 1 else cv2.morphologyEx(binary, cv2.MORPH_CLOSE, kernel)
                    boxes.append(_components(joined, most, labels))
    return np.concatenate(boxes)


def _components(binary: NDArray[Any], most: NDArray[Any], labels: NDArray[np.int32]) -> NDArray[np.float64]:
    _, _, stats, _ = cv2.connectedComponentsWithStats(binary, labels=labels, connectivity=8)
    stats = stats[1:]
    sides = stats[:, 2:4]
    good = (stats[:, 4] >= _AREA_MIN_PX) & (sides.max(axis=1, initial=0) >= _SIDE_MIN_PX) & (sides <= most).all(axis=1)
    boxes = stats[good, :4].astype(np.float64)
    boxes[:, 2:] += boxes[:, :2]
    return boxes
