"""Readers of public data sets as their authors publish them, unpacked anywhere below one folder.

ICDAR 2015 scene text (focus: incidental text, task 4.1), WIDER FACE, FDDB or any list in its rectangle form,
FlickrLogos-27 (Kalantidis et al. 2011), and Flickr8k (Hodosh et al. 2013) or any list of captions in its form.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from bench.vision.samples import Box, FaceSample, LogoCrop, LogoSample, PhotoSample, Point, Samples, TextSample

_ICDAR_TRUTH = "gt_img_*.txt"
_ICDAR_CORNERS = 8
_DO_NOT_CARE = "###"
_WIDER_TRUTH = "wider_face_*_bbx_gt.txt"
_FDDB_TRUTH = "FDDB-fold-*-ellipseList.txt"
_FLICKR_LOGOS_TRUTH = "flickr_logos_27_dataset_*_set_annotation.txt"
_FLICKR8K_TRUTH = "*.token.txt"
_CAPTION = re.compile(r"(\S+)#\d+\s+(.+)")  # one of the 40,460 rows has spaces for its tab
_NO_LOGO = "none"
_CROPS_A_BRAND = 5  # as many as one of the six training subsets has
_TRAINING_MAX = 100  # photos of the training set beside those that the crops are of
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# Of each set: enough for a stable ratio, few enough for minutes.
IMAGES_MAX = 300
_SEED = 0

Sample = TypeVar("Sample")
Corners = tuple[int, int, int, int]


class BadDataset(ValueError):
    """A truth file is not what its name says; the message names file and line."""


def read(folder: Path) -> Samples:
    """The samples of every known layout below ``folder``, at most IMAGES_MAX a set. Raises BadDataset."""
    images = {path.name: path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _IMAGE_SUFFIXES}
    faces = _some(_wider(folder)) + _some(_fddb(folder))
    logos, crops = _flickr_logos(folder, images)
    # The first ones: settings of the multimodal index were chosen on the last 300 of a thousand.
    photos = [*_flickr8k(folder, images)][:IMAGES_MAX]
    return Samples(_some(_icdar(folder, images)), faces, logos, photos, crops)


def _some(samples: Iterable[Sample], count: int = IMAGES_MAX) -> list[Sample]:
    """At most ``count`` of the samples, in their order, drawn the same way each time: sets are often sorted by kind."""
    every = list(samples)
    chosen = random.Random(_SEED).sample(range(len(every)), min(count, len(every)))
    return [every[index] for index in sorted(chosen)]


def _flickr8k(folder: Path, images: dict[str, Path]) -> Iterator[PhotoSample]:
    for truth in sorted(folder.rglob(_FLICKR8K_TRUTH)):
        captions: dict[str, list[str]] = {}
        for number, row in enumerate(truth.read_text(encoding="utf-8").splitlines(), start=1):
            if not row.strip():
                continue
            parts = _CAPTION.fullmatch(row)
            if parts is None:
                raise BadDataset(f"{truth}:{number} is not FILE#NUMBER, a tab and a caption")
            captions.setdefault(parts[1], []).append(parts[2].strip())
        yield from (PhotoSample(str(images[name]), texts) for name, texts in captions.items() if name in images)


def _icdar(folder: Path, images: dict[str, Path]) -> Iterator[TextSample]:
    for truth in sorted(folder.rglob(_ICDAR_TRUTH)):
        stem = truth.stem.removeprefix("gt_")
        image = next((images[stem + suffix] for suffix in _IMAGE_SUFFIXES if stem + suffix in images), None)
        if image is None:
            continue
        lines, ignored = [], []
        for number, row in enumerate(truth.read_text(encoding="utf-8-sig").splitlines(), start=1):
            if not row.strip():
                continue
            parts = row.split(",", _ICDAR_CORNERS)
            if len(parts) != _ICDAR_CORNERS + 1 or not all(re.fullmatch(r"-?\d+", part) for part in parts[:-1]):
                raise BadDataset(f"{truth}:{number} is not x1,y1,...,x4,y4,transcription")
            corners = [float(part) for part in parts[:_ICDAR_CORNERS]]
            if parts[-1] == _DO_NOT_CARE:
                ignored.append(list(zip(corners[::2], corners[1::2], strict=True)))
            else:
                lines.append(parts[-1])
        yield TextSample(str(image), "icdar2015", lines, ignored)


def _wider(folder: Path) -> Iterator[FaceSample]:
    """Rows of x y w h blur expression illumination invalid occlusion pose; invalid faces count neither way."""
    for truth in sorted(folder.rglob(_WIDER_TRUTH)):
        rows = iter(enumerate(truth.read_text().splitlines(), start=1))
        for number, name in rows:
            if not name.strip():
                continue
            try:
                count = int(next(rows)[1])
                # A picture without a face still has one row of zeros.
                values = [[int(value) for value in next(rows)[1].split()] for _ in range(max(count, 1))]
                faces = [(_box(value), bool(value[7])) for value in values if value[2] > 0 and value[3] > 0]
            except (StopIteration, ValueError, IndexError) as error:
                raise BadDataset(f"{truth}:{number}: the faces of {name} cannot be read") from error
            image = next((path for path in folder.rglob(Path(name).name) if str(path).endswith(name)), None)
            if image is not None:
                wanted = [box for box, invalid in faces if not invalid]
                yield FaceSample(str(image), "wider", wanted, [box for box, invalid in faces if invalid])


def _fddb(folder: Path) -> Iterator[FaceSample]:
    """Rows of major minor angle x y 1: an ellipse, taken as the box around it."""
    for truth in sorted(folder.rglob(_FDDB_TRUTH)):
        rows = iter(enumerate(truth.read_text().splitlines(), start=1))
        for number, name in rows:
            if not name.strip():
                continue
            try:
                values = [[float(value) for value in next(rows)[1].split()] for _ in range(int(next(rows)[1]))]
                boxes = [_around(*value[:5]) for value in values]
            except (StopIteration, ValueError, TypeError) as error:
                raise BadDataset(f"{truth}:{number}: the faces of {name} cannot be read") from error
            image = next((path for path in folder.rglob(f"{Path(name).name}.jpg") if name in str(path)), None)
            if image is not None:
                yield FaceSample(str(image), "fddb", boxes)


def _flickr_logos(folder: Path, images: dict[str, Path]) -> tuple[list[LogoSample], list[LogoCrop]]:
    """All query photos, some training photos, and the crops of others that serve as the gallery."""
    queries: list[LogoSample] = []
    training: dict[str, list[tuple[str, Corners]]] = {}
    for truth in sorted(folder.rglob(_FLICKR_LOGOS_TRUTH)):
        for name, instances in _logo_rows(truth).items():
            if name not in images:
                continue
            if any(corners is None for _, corners in instances):
                brands = [brand for brand, _ in instances if brand.lower() != _NO_LOGO]
                queries.append(LogoSample(str(images[name]), "query" if brands else "no logo", brands))
            else:
                training[name] = [(brand, corners) for brand, corners in instances if corners is not None]
    crops = [crop for brand in sorted(_brands(training)) for crop in _largest(brand, training, images)]
    shown = {crop.path for crop in crops}
    rest = [
        LogoSample(str(images[name]), "training", [brand for brand, _ in marks], [_quad(box) for _, box in marks])
        for name, marks in sorted(training.items())
        if str(images[name]) not in shown
    ]
    labelled = sorted(_brands(training) | {name for sample in queries for name in sample.names})
    chosen = _some(queries) + _some(rest, _TRAINING_MAX)
    return [replace(sample, labelled=labelled) for sample in chosen], crops


def _logo_rows(truth: Path) -> dict[str, list[tuple[str, Corners | None]]]:
    """Photo -> (brand, box or None) of rows of file, brand and, in the training set, a subset and x1 y1 x2 y2."""
    found: dict[str, list[tuple[str, Corners | None]]] = {}
    for number, row in enumerate(truth.read_text().splitlines(), start=1):
        parts = row.split()
        if not parts:
            continue
        if len(parts) not in (2, 7) or not all(part.isdigit() for part in parts[2:]):
            raise BadDataset(f"{truth}:{number} is not file, brand and perhaps subset, x1, y1, x2, y2")
        left, top, right, bottom = (int(part) for part in parts[3:]) if len(parts) == 7 else (0, 0, 0, 0)
        instance = (parts[1], (left, top, right, bottom) if len(parts) == 7 else None)
        marked = found.setdefault(parts[0], [])
        empty = len(parts) == 7 and (right <= left or bottom <= top)
        if instance not in marked and not empty:  # an instance may stand in several of the training subsets
            marked.append(instance)
    return found


def _brands(training: dict[str, list[tuple[str, Corners]]]) -> set[str]:
    return {brand for marks in training.values() for brand, _ in marks}


def _largest(brand: str, training: dict[str, list[tuple[str, Corners]]], images: dict[str, Path]) -> list[LogoCrop]:
    """The instances of a brand with the longest short sides, one a photo: what somebody would upload is legible."""
    every = [
        (-min(box[2] - box[0], box[3] - box[1]), name, box)
        for name, marks in training.items()
        for owner, box in marks
        if owner == brand
    ]
    kept: dict[str, LogoCrop] = {}
    for _, name, box in sorted(every):
        kept.setdefault(name, LogoCrop(brand, str(images[name]), box))
    return list(kept.values())[:_CROPS_A_BRAND]


def _quad(box: Corners) -> list[Point]:
    left, top, right, bottom = (float(value) for value in box)
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _box(value: list[int]) -> Box:
    return (float(value[0]), float(value[1]), float(value[2]), float(value[3]))


def _around(major: float, minor: float, angle: float, x: float, y: float) -> Box:
    half_width = math.hypot(major * math.cos(angle), minor * math.sin(angle))
    half_height = math.hypot(major * math.sin(angle), minor * math.cos(angle))
    return (x - half_width, y - half_height, 2 * half_width, 2 * half_height)
