"""From the pixels of a picture to its regions, and from a drawing to a mark; the networks are given as functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lensmesh_models import logo_detection
from lensmesh_models.logo_marks import Mark, Region, Vectors, apart_from_text, cohort
from lensmesh_models.logo_regions import Box, Patch, cut, drawn_box

# uint8 [1,H,W,3] -> SCORES, SIDES; and patches uint8 [B,64,64] -> unit vectors float32 [B,DIM].
Detect = Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]
Embed = Callable[[NDArray[np.uint8]], Vectors]

_DRAWING_PX = 96  # of a mark's longer side before it becomes a patch
_INK_MIN = 24  # grey levels or opacity by which a pixel differs from the ground
_EDGE_PX_MIN = 4  # of an uploaded mark's sides


class NoMark(ValueError):
    """An image holds nothing that could be a mark."""


def regions(
    pixels: NDArray[np.uint8],
    scale: float,
    gallery: Vectors,
    detect: Detect,
    embed: Embed,
    lines: Sequence[Mapping[str, Any]] = (),
) -> list[Region]:
    """The regions of a picture, best first, boxes in pixels of an original ``scale`` times as large as ``pixels``.

    ``gallery`` [N,DIM] are the marks that ship, at least a dozen: what likeness is measured against. Parts of the read
    ``lines``, in pixels of the original, are left out.
    """
    seen = [(look, detect(look.canvas)) for look in logo_detection.looks(pixels)]
    places = logo_detection.found(pixels, seen)
    boxes = [_times(place.box, scale) for place in places]
    apart = zip(places, boxes, apart_from_text(boxes, lines), strict=True)
    kept = [(place, box) for place, box, is_apart in apart if is_apart]
    cuts = [(*each, patch) for each in kept if (patch := cut(pixels, each[0].box)) is not None]
    if not cuts:
        return []
    vectors = embed(np.stack([patch for _, _, patch in cuts]))
    rows = zip(cuts, vectors, cohort(vectors, gallery).tolist(), strict=True)
    return [Region(box, place.confidence, patch, vector, others) for (place, box, patch), vector, others in rows]


def _times(box: Box, scale: float) -> Box:
    left, top, right, bottom = (value * scale for value in box)
    return left, top, right, bottom


def drawn(mark: NDArray[np.uint8], ground: NDArray[Any]) -> tuple[Patch, Box]:
    """Patch of a tight drawing RGB [h,w,3] on its ground (a colour [3]), and the mark's box in it. Raises NoMark."""
    scale = min(1.0, _DRAWING_PX / max(mark.shape[:2]))
    if scale < 1:
        size = (max(1, round(mark.shape[1] * scale)), max(1, round(mark.shape[0] * scale)))
        mark = cv2.resize(mark, size, interpolation=cv2.INTER_AREA)
    height, width = mark.shape[:2]
    edge = max(height, width)  # enough for any window around the mark
    colour = tuple(float(value) for value in ground)
    framed = cv2.copyMakeBorder(mark, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=colour)
    patch = cut(framed, (edge, edge, edge + width, edge + height))
    if patch is None:
        raise NoMark("the image has one colour only")
    return patch, drawn_box(width, height)


def uploaded(rgba: NDArray[np.uint8], embed: Embed) -> Mark:
    """The mark of an image [h,w,4] that somebody uploads, seen on light and on dark ground. Raises NoMark."""
    colours, opacity = rgba[..., :3], rgba[..., 3]
    grounds: list[NDArray[Any]]
    if opacity.min() >= 255 - _INK_MIN:
        edge = np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
        grounds = [np.median(edge, axis=0)]
        ink = np.abs(colours.astype(np.int16) - grounds[0]).max(axis=2) > _INK_MIN
    else:
        grounds = [np.full(3, level) for level in (255.0, 0.0, 127.0)]
        ink = opacity > _INK_MIN
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if len(rows) < _EDGE_PX_MIN or len(columns) < _EDGE_PX_MIN:
        raise NoMark("the image shows nothing but its ground")
    inside = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    share = opacity[inside][..., None].astype(np.float32) / 255
    patches, boxes = [], []
    for ground in grounds:
        flat = (colours[inside] * share + ground * (1 - share)).astype(np.uint8)
        try:
            patch, box = drawn(flat, ground)
        except NoMark:  # white on white: another ground shows it
            continue
        patches.append(patch)
        boxes.append(box)
    if not patches:
        raise NoMark("the image has one colour only")
    return Mark("", embed(np.stack(patches)), tuple(patches), tuple(boxes))
