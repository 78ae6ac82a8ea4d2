"""Readers of public data sets as their authors publish them, unpacked anywhere below one folder.

ICDAR 2015 scene text (focus: incidental text, task 4.1), WIDER FACE, FDDB or any list in its rectangle form,
FlickrLogos-27 (Kalantidis et al. 2011), and Flickr8k (Hodosh et al. 2013) or any list of captions in its form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from bench.vision.samples import Box, FaceSample, LogoSample, PhotoSample, Samples, TextSample

_ICDAR_TRUTH = "gt_img_*.txt"
_ICDAR_CORNERS = 8
_DO_NOT_CARE = "###"
_WIDER_TRUTH = "wider_face_*_bbx_gt.txt"
_FDDB_TRUTH = "FDDB-fold-*-ellipseList.txt"
_FLICKR_LOGOS_TRUTH = "flickr_logos_27_dataset_*_set_annotation.txt"
_FLICKR8K_TRUTH = "*.token.txt"
_NO_LOGO = "none"
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# Of each set: enough for a stable ratio, few enough for minutes.
IMAGES_MAX = 300


class BadDataset(ValueError):
    """A truth file is not what its name says; the message names file and line."""


def read(folder: Path) -> Samples:
    """The samples of every known layout below ``folder``, at most IMAGES_MAX a set. Raises BadDataset."""
    images = {path.name: path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _IMAGE_SUFFIXES}
    texts = list(_icdar(folder, images))
    faces = [*_wider(folder)][:IMAGES_MAX] + [*_fddb(folder)][:IMAGES_MAX]
    logos = [*_flickr_logos(folder, images)][:IMAGES_MAX]
    return Samples(texts[:IMAGES_MAX], faces, logos, [*_flickr8k(folder, images)][:IMAGES_MAX])


def _flickr8k(folder: Path, images: dict[str, Path]) -> Iterator[PhotoSample]:
    for truth in sorted(folder.rglob(_FLICKR8K_TRUTH)):
        captions: dict[str, list[str]] = {}
        for number, row in enumerate(truth.read_text(encoding="utf-8").splitlines(), start=1):
            if not row.strip():
                continue
            name, found, caption = row.partition("\t")
            if not found or "#" not in name:
                raise BadDataset(f"{truth}:{number} is not FILE#NUMBER, a tab and a caption")
            captions.setdefault(name.rpartition("#")[0], []).append(caption.strip())
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


def _flickr_logos(folder: Path, images: dict[str, Path]) -> Iterator[LogoSample]:
    """Rows of file, brand and, in the training set, a subset and the corners x1 y1 x2 y2 of one instance."""
    for truth in sorted(folder.rglob(_FLICKR_LOGOS_TRUTH)):
        names: dict[str, list[str]] = {}
        quads: dict[str, list[list[tuple[float, float]]]] = {}
        for number, row in enumerate(truth.read_text().splitlines(), start=1):
            parts = row.split()
            if not parts:
                continue
            if len(parts) not in (2, 7) or not all(part.isdigit() for part in parts[2:]):
                raise BadDataset(f"{truth}:{number} is not file, brand and perhaps subset, x1, y1, x2, y2")
            found, marked = names.setdefault(parts[0], []), quads.setdefault(parts[0], [])
            if len(parts) == 2:
                found += [parts[1]] if parts[1].lower() != _NO_LOGO else []
                continue
            left, top, right, bottom = (float(part) for part in parts[3:])
            quad = [(left, top), (right, top), (right, bottom), (left, bottom)]
            if quad not in marked:  # an instance may stand in several of the training subsets
                found.append(parts[1])
                marked.append(quad)
        for name, brands in names.items():
            if name in images:
                yield LogoSample(str(images[name]), "flickr_logos_27", brands, quads[name])


def _box(value: list[int]) -> Box:
    return (float(value[0]), float(value[1]), float(value[2]), float(value[3]))


def _around(major: float, minor: float, angle: float, x: float, y: float) -> Box:
    half_width = math.hypot(major * math.cos(angle), minor * math.sin(angle))
    half_height = math.hypot(major * math.sin(angle), minor * math.cos(angle))
    return (x - half_width, y - half_height, 2 * half_width, 2 * half_height)
