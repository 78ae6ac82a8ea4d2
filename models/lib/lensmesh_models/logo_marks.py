"""Marks and the regions of a picture that may show one: what is kept of each, and when a region is called a mark.

A gallery that ships and marks that somebody uploads go through the same functions, each with a bar of its own.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lensmesh_models.logo_alignment import Alignment, align
from lensmesh_models.logo_regions import SIDE, Box, Patch, to_picture

DIM = 128
FLOOR = 0.3  # confidence of a finding; the set's threshold is higher
CANDIDATES_MAX = 3  # marks that are laid over a region
_OVERLAP_MAX = 0.5  # of two findings: the better one stays
_COHORT = (4, 12)  # ranks of the nearest marks that a cosine is measured against; the first may be the mark itself
_IN_LINE_MIN, _LINE_COVERED_MIN = 0.7, 0.6  # of a region in a line, and of its length, to be part of it
_LITTLE_DETAIL = 0.25  # from here on a drawing is not plain
_EDGE_LEVEL = 40.0  # Sobel response of a patch that counts as an edge


@dataclass(frozen=True)
class Bar:
    """When a region is called a mark: a logistic regression over ``features``.

    ``promise`` is the same over the features that need no alignment: from 0 up a mark is worth the 2 ms of one.
    """

    weights: Mapping[str, float]
    bias: float
    promise: Mapping[str, float]
    promise_bias: float


_PROMISE = {"margin": 17.79, "cosine": 6.69, "size": 2.46, "place": 4.89}
# For the gallery that ships, drawn outlines of thousands of brands: fitted to the findings on validation composites
# (models/train_logos/calibrate.py), moved so that confidence 0.5 is where the precision aimed at holds. Of the pairs
# that are right and end up named, the promise passes 98 in 100; of all pairs one in four.
SHIPPED = Bar(
    weights={
        "margin": 16.21,
        "cosine": -6.08,
        "likeness": -2.72,
        "edges": -5.99,
        "detail": 1.49,
        "size": 1.59,
        "place": 2.94,
        "edges_squared": 13.02,
        "margin_squared": 4.42,
        "little_detail": 10.8,
        "detailed_edges": 9.74,
    },
    bias=-8.78,
    promise=_PROMISE,
    promise_bias=-10.06,
)
# For marks that somebody uploads, images of the mark itself, photographed at times, and far fewer: fitted to the
# training photos of FlickrLogos-27, drawn towards the weights above (models/train_logos/README.md).
OWN = Bar(
    weights={
        "margin": 15.1,
        "cosine": -2.59,
        "likeness": -2.0,
        "edges": -5.25,
        "detail": 1.11,
        "size": 2.38,
        "place": 2.73,
        "edges_squared": 12.9,
        "margin_squared": 4.18,
        "little_detail": 10.78,
        "detailed_edges": 9.8,
    },
    bias=-8.2,
    promise=_PROMISE,
    promise_bias=-8.06,
)
FEATURES = tuple(SHIPPED.weights)

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Mark:
    """A mark as it is compared: name, unit vectors [V,DIM], and for each its patch and the mark's box in it."""

    name: str
    vectors: Vectors
    patches: tuple[Patch, ...]
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Region:
    """A place that may show a mark: box in pixels of the picture, confidence 0..1, patch, unit vector [DIM].

    ``cohort`` is the cosine that marks reach which the place cannot all show: see ``cohort``.
    """

    box: Box
    confidence: float
    patch: Patch
    vector: Vectors
    cohort: float


class Gallery:
    """Marks that regions are compared with, their vectors in one matrix."""

    def __init__(self, marks: Sequence[Mark]) -> None:
        self._marks = marks
        self.vectors = np.concatenate([np.empty((0, DIM), np.float32), *(mark.vectors for mark in marks)])
        self._firsts = np.cumsum([0, *(len(mark.vectors) for mark in marks[:-1])])  # rows, one a mark

    @classmethod
    def read(cls, arrays: Mapping[str, Any]) -> Gallery:
        """The gallery that ships, of names [N], vectors [N,DIM], patches [N,SIDE,SIDE] and boxes [N,4]."""
        rows = zip(arrays["names"], arrays["vectors"], arrays["patches"], arrays["boxes"].tolist(), strict=True)
        return cls([Mark(str(name), vector[None], (patch,), (tuple(box),)) for name, vector, patch, box in rows])

    def nearest(self, regions: Sequence[Region]) -> list[list[Mark]]:
        """For each region the marks that are nearest by their nearest view, at most CANDIDATES_MAX, in any order."""
        if not regions or not self._marks:
            return [[] for _ in regions]
        views = np.stack([region.vector for region in regions]) @ self.vectors.T
        cosines = np.maximum.reduceat(views, self._firsts, axis=1)
        count = min(CANDIDATES_MAX, len(self._marks))
        rows = np.argpartition(cosines, -count, axis=1)[:, -count:]
        return [[self._marks[row] for row in chosen] for chosen in rows.tolist()]


def cohort(vectors: Vectors, gallery: Vectors) -> NDArray[np.float32]:
    """For each of the vectors [B,DIM] the mean cosine [B] of a few marks that come after the nearest ones.

    What resembles a dozen marks shows none of them: a cosine counts by how far it stands above these (as in T-norm,
    Auckenthaler et al. 2000).
    """
    first, last = _COHORT
    nearest_first = -np.sort(-np.partition(vectors @ gallery.T, -last, axis=1)[:, -last:], axis=1)
    return np.asarray(nearest_first[:, first:].mean(axis=1))


def mark_document(mark: Mark) -> dict[str, Any]:
    """The mark as JSON, without its name."""
    views = [
        {"patch": _packed(patch), "box": [round(value, 2) for value in box]}
        for patch, box in zip(mark.patches, mark.boxes, strict=True)
    ]
    return {"vectors": [_listed(vector) for vector in mark.vectors], "views": views}


def read_mark(document: Mapping[str, Any]) -> Mark:
    """The mark of a document with its name. Raises KeyError, TypeError or ValueError for anything else."""
    views = document["views"]
    vectors = np.asarray(document["vectors"], np.float32)
    if vectors.shape != (len(views), DIM):
        raise ValueError(f"vectors of shape {vectors.shape} for {len(views)} views")
    left_top_right_bottom = [tuple(float(value) for value in view["box"]) for view in views]
    boxes = tuple((box[0], box[1], box[2], box[3]) for box in left_top_right_bottom)
    return Mark(str(document["name"]), vectors, tuple(_unpacked(view["patch"]) for view in views), boxes)


def region_document(region: Region) -> dict[str, Any]:
    """The region as JSON: what ``read_region`` needs, and its corners."""
    left, top, right, bottom = (round(value, 1) for value in region.box)
    return {
        "quad": [[left, top], [right, top], [right, bottom], [left, bottom]],
        "confidence": round(region.confidence, 4),
        "cohort": round(region.cohort, 4),
        "vector": _listed(region.vector),
        "patch": _packed(region.patch),
    }


def read_region(document: Mapping[str, Any]) -> Region:
    """The region of a document. Raises KeyError, TypeError or ValueError for anything else."""
    (left, top), _, (right, bottom), _ = document["quad"]
    box = (float(left), float(top), float(right), float(bottom))
    vector = np.asarray(document["vector"], np.float32)
    if vector.shape != (DIM,):
        raise ValueError(f"a vector of shape {vector.shape}")
    patch = _unpacked(document["patch"])
    return Region(box, float(document["confidence"]), patch, vector, float(document["cohort"]))


def judge(region: Region, marks: Iterable[Mark], bar: Bar = SHIPPED) -> dict[str, Any] | None:
    """The best of the marks that the region shows, as {name, confidence, quad}; None where it shows none of them.

    ``marks`` are those of ``Gallery.nearest``: each that is worth it is laid over the region.
    """
    best: dict[str, Any] | None = None
    nearest_first = sorted(((mark.vectors @ region.vector, mark) for mark in marks), key=lambda pair: -pair[0].max())
    for cosines, mark in nearest_first:
        view = int(cosines.argmax())
        if not worth(float(cosines[view]), region, bar):
            break
        laid = align(region.patch, mark.patches[view], mark.boxes[view])
        if laid is None:
            continue
        seen = features(region, mark.patches[view], float(cosines[view]), laid)
        confidence = certainty(seen, bar)
        if confidence >= FLOOR and (best is None or confidence > best["confidence"]):
            quad = corners(region, mark.boxes[view], laid)
            best = {"name": mark.name, "confidence": round(confidence, 4), "quad": quad}
    return best


def features(region: Region, drawing: Patch, cosine: float, laid: Alignment) -> dict[str, float]:
    """What a finding is judged by; each about 0..1."""
    margin, edges, detailed = cosine - region.cohort, laid.edges, detail(drawing)
    return {
        "margin": margin,
        "cosine": cosine,
        "likeness": laid.likeness,
        "edges": edges,
        "detail": detailed,
        "size": _size(region),
        "place": region.confidence,
        "edges_squared": edges**2,
        "margin_squared": margin**2,
        "little_detail": min(detailed, _LITTLE_DETAIL),
        "detailed_edges": edges * detailed,
    }


def detail(drawing: Patch) -> float:
    """Length of the edges of a drawing, 0..1: little for a disc, much for lettering."""
    smooth = cv2.GaussianBlur(drawing, (0, 0), 1).astype(np.float32)
    strength = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    return float((strength > _EDGE_LEVEL).mean())


def certainty(seen: Mapping[str, float], bar: Bar) -> float:
    """Confidence 0..1 of a finding."""
    return float(1 / (1 + np.exp(-(bar.bias + sum(weight * seen[name] for name, weight in bar.weights.items())))))


def worth(cosine: float, region: Region, bar: Bar) -> bool:
    """Whether a mark is near enough for the cost of laying it over the region."""
    known = {"margin": cosine - region.cohort, "cosine": cosine, "size": _size(region), "place": region.confidence}
    return bar.promise_bias + sum(weight * known[name] for name, weight in bar.promise.items()) >= 0


def _size(region: Region) -> float:
    """0 for 16 pixels, 1 for 256 and more."""
    left, top, right, bottom = region.box
    return min(max(math.log2(max(right - left, bottom - top, 1.0) / 16) / 4, 0.0), 1.0)


def apart_from_text(boxes: Sequence[Box], lines: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether each box is no part of a read line ``{"quad"}``: a letter of a word looks like a mark that is one.

    What covers most of a line is none: lettering may be the mark.
    """
    bounds = [_bounds(line["quad"]) for line in lines]
    return [not any(_is_part(np.reshape(box, (2, 2)), line) for line in bounds) for box in boxes]


def _is_part(box: NDArray[Any], line: NDArray[Any]) -> bool:
    shared = np.prod(np.maximum(np.minimum(box[1], line[1]) - np.maximum(box[0], line[0]), 0))
    inside = bool(shared >= _IN_LINE_MIN * np.prod(box[1] - box[0]))
    return inside and bool((box[1] - box[0]).max() < _LINE_COVERED_MIN * (line[1] - line[0]).max())


def _bounds(quad: Any) -> NDArray[Any]:
    """[[left, top], [right, bottom]] around a quad."""
    return np.stack([np.min(quad, axis=0), np.max(quad, axis=0)])


def distinct(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The findings, best first, without those that lie on a better one, or inside of one with the same name."""
    kept: list[dict[str, Any]] = []
    for finding in sorted(found, key=lambda finding: -finding["confidence"]):
        if not any(_same(finding, other) for other in kept):
            kept.append(finding)
    return kept


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    (low_a, high_a), (low_b, high_b) = _bounds(first["quad"]), _bounds(second["quad"])
    shared = float(np.prod(np.maximum(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0)))
    areas = float(np.prod(high_a - low_a)), float(np.prod(high_b - low_b))
    # The lettering of a mark is often found beside the mark as a whole.
    whole = min(areas) if first["name"] == second["name"] else sum(areas) - shared
    return shared > _OVERLAP_MAX * whole


def corners(region: Region, box: Box, laid: Alignment) -> list[list[float]]:
    """Four [x, y] of the mark in pixels of the picture, from its top left clockwise, by its alignment."""
    left, top, right, bottom = box
    own = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]])
    points = to_picture(region.box, own @ laid.warp.T.astype(np.float64))
    return [[round(float(x), 1), round(float(y), 1)] for x, y in points]


def _packed(patch: Patch) -> str:
    return base64.b64encode(patch.tobytes()).decode()


def _unpacked(text: str) -> Patch:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(SIDE, SIDE)


def _listed(vector: Vectors) -> list[float]:
    listed: list[float] = np.round(vector.astype(np.float64), 5).tolist()
    return listed
