"""Lays the drawing of a mark over a patch of a picture and says how well the two agree.

ECC (Evangelidis and Psarakis 2008) from the best of a few turns; then correlation of what is seen and of its edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lensmesh_models.logo_regions import SIDE, Patch

_TURNS_DEGREES = (0.0, -12.0, 12.0, -24.0, 24.0)
_SIZES = (1.0, 0.85)
_STARTS = tuple(
    cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), turn, size).astype(np.float32)
    for size in _SIZES
    for turn in _TURNS_DEGREES
)
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 25, 1e-3)
_SMOOTH_PX = 5  # of ECC's own filter: wider sees further, narrower is more exact
_BLUR = 1.0  # standard deviation in pixels before edges are compared
_GROUND_PX = 3  # around the mark's box that count too: a mark ends somewhere
_STRETCH_MAX = 1.8  # of an axis by the alignment: more is no view of a mark but something else
_SEEN_MIN = 0.8  # of the mark's area must lie in the patch

Grey = NDArray[np.float32]


@dataclass(frozen=True)
class Alignment:
    """How a mark lies in a patch: correlations -1..1 of brightness and edges, and where it takes the mark's points."""

    likeness: float
    edges: float
    warp: NDArray[np.float32]  # [2,3]: pixels of the mark's patch to pixels of the picture's


def align(seen: Patch, mark: Patch, box: tuple[float, float, float, float]) -> Alignment | None:
    """The alignment of ``mark`` (its own box in pixels of its patch) with what is seen; None where there is none."""
    picture, drawing = seen.astype(np.float32), mark.astype(np.float32)
    warp = _best_start(picture, drawing)
    try:
        _, warp = cv2.findTransformECC(drawing, picture, warp, cv2.MOTION_AFFINE, _CRITERIA, None, _SMOOTH_PX)
    except cv2.error:  # it says so where the two do not correlate at all
        return None
    stretches = np.linalg.svd(warp[:, :2], compute_uv=False)
    if stretches[0] > _STRETCH_MAX or stretches[1] < 1 / _STRETCH_MAX or np.linalg.det(warp[:, :2]) < 0:
        return None
    back = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    straight = cv2.warpAffine(picture, warp, (SIDE, SIDE), flags=back, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones_like(picture), warp, (SIDE, SIDE), flags=back) > 0.5
    area = _around(box) & inside
    if area.sum() < _SEEN_MIN * _around(box).sum():
        return None
    return Alignment(_correlation(straight[area], drawing[area]), _edge_agreement(straight, drawing, area), warp)


def _best_start(picture: Grey, drawing: Grey) -> NDArray[np.float32]:
    """The warp, among a few turns and sizes about the middle, that correlates best at half the resolution."""
    blurred = cv2.GaussianBlur(drawing, (0, 0), 2)
    moved = [cv2.warpAffine(blurred, warp, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE) for warp in _STARTS]
    rows = _halved([cv2.GaussianBlur(picture, (0, 0), 2), *moved])
    return _STARTS[int(np.argmax(rows[1:] @ rows[0]))].copy()  # ECC writes into it


def _halved(images: Sequence[Grey]) -> Grey:
    """Each image at half the resolution as a row of mean 0 and length 1, so that products are correlations."""
    rows = np.stack([cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).ravel() for image in images])
    rows -= rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6))


def _around(box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    left, top, right, bottom = box
    area = np.zeros((SIDE, SIDE), bool)
    rows = slice(max(0, round(top) - _GROUND_PX), round(bottom) + _GROUND_PX)
    area[rows, max(0, round(left) - _GROUND_PX) : round(right) + _GROUND_PX] = True
    return area


def _correlation(first: Grey, second: Grey) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second) + 1e-6))


def _edge_agreement(first: Grey, second: Grey, area: NDArray[np.bool_]) -> float:
    """Sum of products of gradients over the area: 1 where all edges lie at the same places in the same directions."""
    gradients: list[Any] = []
    for image in (first, second):
        smooth = cv2.GaussianBlur(image, (0, 0), _BLUR)
        gradients.append(
            np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0)[area], cv2.Sobel(smooth, cv2.CV_32F, 0, 1)[area]])
        )
    norms = [np.linalg.norm(gradient) for gradient in gradients]
    return float((gradients[0] * gradients[1]).sum() / (norms[0] * norms[1] + 1e-6))
