"""What training draws from: the photos, the classes, and endless patches of marks for the encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from lensmesh_models import logo_regions
from numpy.typing import NDArray

from models.convert.gallery import on_ground
from models.train_logos.composites import Mark, Pixels, background, box_of, corners, degrade, draw

_ALIKE = 0.9  # correlation of two small masks from which they are one class
_PHOTO_LONG_PX = 1000
_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_JITTER = 0.07  # of a box's sides: a detector's boxes are no better


def photos(folder: Path) -> list[Pixels]:
    """All pictures below a folder, RGB, at most _PHOTO_LONG_PX long, one of each size or crop of the same picture."""
    found: list[Pixels] = []
    thumbs: list[NDArray[Any]] = []
    for path in sorted(folder.rglob("*")):
        image = cv2.imread(str(path)) if path.suffix.lower() in _PHOTO_SUFFIXES and not path.is_symlink() else None
        if image is None or min(image.shape[:2]) < 200:
            continue
        scale = min(1.0, _PHOTO_LONG_PX / max(image.shape[:2]))
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[..., ::-1]
        thumb = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
        if all(np.abs(thumb - other).mean() >= 6 for other in thumbs):
            thumbs.append(thumb)
            found.append(np.ascontiguousarray(image))
    return found


def variants(found: list[Mark]) -> list[Pixels]:
    """The masks, and those mirrored and turned, without any that looks like another: each is a class of its own."""
    kept: list[Pixels] = []
    small: list[NDArray[Any]] = []
    for change in (lambda m: m, lambda m: m[:, ::-1], np.rot90, lambda m: np.rot90(m, 3)):
        for mark in found:
            changed = np.ascontiguousarray(change(mark.mask))
            patch = logo_regions.cut(on_ground(changed), (0, 0, *changed.shape[::-1]))
            if patch is None:
                continue
            thin = cv2.resize(patch, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
            thin -= thin.mean()
            thin /= np.linalg.norm(thin) + 1e-6
            if small and float((np.array(small) @ thin).max()) > _ALIKE:
                continue
            small.append(thin)
            kept.append(changed)
    return kept


class Patches:
    """What the encoder learns from: patches of marks in photos, clean drawings of the same, and patches of nothing."""

    def __init__(self, masks: list[Pixels], pictures: list[Pixels], seed: int) -> None:
        self.masks, self._photos, self._rng = masks, pictures, np.random.default_rng(seed)

    def seen(self, index: int) -> Pixels:
        """The mark in a photo, found by an inexact box."""
        rng, drawn = self._rng, self.masks[index]
        while True:
            long_px = float(np.exp(rng.uniform(np.log(24), np.log(115))))
            side = int(long_px * 1.6) + 8
            image = background(self._photos, side, side, rng)
            quad = corners(drawn.shape[1] / drawn.shape[0], (side / 2, side / 2), long_px, rng)
            draw(image, drawn, quad, rng)
            box = box_of(quad)
            size = np.tile(box[2:] - box[:2], 2)
            patch = logo_regions.cut(degrade(image, rng), tuple(box + rng.normal(0, _JITTER, 4) * size))
            if patch is not None:
                return patch

    def clean(self, index: int) -> Pixels:
        """The mark as it is drawn for the gallery, hardly moved."""
        rng, drawn = self._rng, self.masks[index]
        drawn = cv2.resize(drawn, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        height, width = drawn.shape
        edge = max(height, width) // 4
        angle, grow = rng.normal(0, 3), np.exp(rng.normal(0, 0.03))
        move = cv2.getRotationMatrix2D((width / 2 + edge, height / 2 + edge), angle, grow)
        turned = cv2.warpAffine(np.pad(drawn, edge), move, (width + 2 * edge, height + 2 * edge))
        ground, ink = (60, 200) if rng.random() < 0.5 else (220, 30)
        patch = logo_regions.cut(on_ground(turned, ground, ink), (edge, edge, edge + width, edge + height))
        assert patch is not None
        return patch

    def nothing(self) -> Pixels:
        """A patch of a photo without any mark."""
        while True:
            side = int(self._rng.uniform(40, 160))
            image = background(self._photos, side, side, self._rng)
            patch = logo_regions.cut(degrade(image, self._rng), (side * 0.15, side * 0.15, side * 0.85, side * 0.85))
            if patch is not None:
                return patch
