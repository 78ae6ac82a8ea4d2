"""The plain way to find logos: SIFT, votes of nearest neighbours, an affine map by RANSAC (Lowe 2004), over a gallery.

Runs in the bench environment. One instance a brand is found, as it is usual.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import cv2  # type: ignore[import-not-found]
import numpy as np

from models.convert.icons import STRANGERS, bucket, collected, mask, tight

_MARK_PX = 160  # of a drawn mark: about the size of marks in pictures
_MARGIN_PX = 16
_POINTS_A_MARK_MAX = 80
_POINTS_MAX = 1500  # of a picture
_RATIO_MAX = 0.85  # Lowe's: a match must be this much nearer than the nearest of another brand
_NEIGHBOURS = 4  # of each point
_VOTED_MAX = 10  # marks with the most votes are verified
_VOTES_MIN = 3  # an affine map has three points
_ERROR_PX = 4.0
_SEARCHES = 64  # leaves that the k-d trees look at

_SIGNS = str.maketrans("", "", " '!.-")

# Name, image file, and box (left, top, right, bottom) in pixels.
Crop = tuple[str, str, tuple[int, int, int, int]]


def finder(icons: Path, crops: Sequence[Crop] = ()) -> Callable[[bytes], list[dict[str, Any]]]:
    """A function from an image to [{name, confidence, quad}]; confidence is the number of points that agree.

    ``crops`` are marks of one's own beside those of ``icons``; several may have one name.
    """
    sift = cv2.SIFT_create(_POINTS_A_MARK_MAX)
    names: list[str] = []
    sizes: list[tuple[int, int, int]] = []
    points: list[tuple[float, float]] = []
    descriptors: list[Any] = []
    owners: list[int] = []
    for name, drawing, margin in chain(_drawn(icons), _cut(crops)):
        found, described = sift.detectAndCompute(drawing, None)
        if described is None:
            continue
        owners += [len(names)] * len(found)
        names.append(name)
        sizes.append((drawing.shape[1], drawing.shape[0], margin))
        points += [point.pt for point in found]
        descriptors.append(described)
    matcher = cv2.FlannBasedMatcher({"algorithm": 1, "trees": 4}, {"checks": _SEARCHES})
    matcher.add([np.concatenate(descriptors)])
    matcher.train()
    owner_of, place_of = np.array(owners), np.array(points, np.float32)
    brands = {name: number for number, name in enumerate(dict.fromkeys(map(_plain, names)))}
    brand_of = np.array([brands[_plain(name)] for name in names])[owner_of]
    larger = cv2.SIFT_create(_POINTS_MAX)
    # Other marks of the nearest brand may stand before the next brand.
    neighbours = _NEIGHBOURS + max(Counter(_plain(name) for name in names).values()) - 1

    def find(data: bytes) -> list[dict[str, Any]]:
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        found: list[dict[str, Any]] = []
        # Marks are drawn dark on light; light ones on dark are dark in the negative.
        for picture in (grey, 255 - grey):
            spots, described = larger.detectAndCompute(picture, None)
            if described is None or len(described) < _VOTES_MIN:
                continue
            pairs = _matches(matcher.knnMatch(described, k=neighbours), brand_of)
            votes = Counter(int(owner_of[row]) for _, row in pairs)
            for mark, count in votes.most_common(_VOTED_MAX):
                if count < _VOTES_MIN:
                    break
                rows = [(spot, row) for spot, row in pairs if owner_of[row] == mark]
                seen = np.array([spots[spot].pt for spot, _ in rows], np.float32)
                drawn = place_of[[row for _, row in rows]]
                affine, agree = cv2.estimateAffine2D(drawn, seen, ransacReprojThreshold=_ERROR_PX)
                if affine is not None and np.isfinite(affine).all():
                    found.append(
                        {"name": names[mark], "confidence": float(agree.sum()), "quad": _quad(sizes[mark], affine)}
                    )
        return found

    return find


def _drawn(icons: Path) -> Iterator[tuple[str, Any, int]]:
    """Name, grey drawing and the margin in pixels around the mark."""
    for icon in collected(icons.read_text("utf-8")):
        if bucket(icon.name) >= STRANGERS:
            yield icon.name, 255 - np.pad(tight(mask(icon.path, _MARK_PX)), _MARGIN_PX), _MARGIN_PX


def _cut(crops: Sequence[Crop]) -> Iterator[tuple[str, Any, int]]:
    for name, path, (left, top, right, bottom) in crops:
        grey = cv2.imread(path, cv2.IMREAD_GRAYSCALE)[top:bottom, left:right]
        scale = min(1.0, _MARK_PX / max(grey.shape))
        yield name, cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), 0


def _plain(name: str) -> str:
    """Data sets write names without the signs in them; C and C++ stay two."""
    return name.casefold().translate(_SIGNS)


def _matches(neighbours: Any, owner_of: Any) -> list[tuple[int, int]]:
    """(point of the picture, point of the gallery) where the nearest brand is clearly nearer than the next one."""
    kept = []
    for near in neighbours:
        if not near:
            continue
        other = next((match for match in near if owner_of[match.trainIdx] != owner_of[near[0].trainIdx]), None)
        if other is None or near[0].distance < _RATIO_MAX * other.distance:
            kept.append((near[0].queryIdx, near[0].trainIdx))
    return kept


def _quad(size: tuple[int, int, int], affine: Any) -> list[list[float]]:
    width, height, margin = size
    right, bottom = width - margin, height - margin
    corners = [(margin, margin), (right, margin), (right, bottom), (margin, bottom)]
    return [[float(value) for value in affine @ (x, y, 1)] for x, y in corners]
