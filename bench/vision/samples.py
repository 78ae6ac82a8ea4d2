"""What is measured: images on disk with what they hold, handed between the two environments as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class TextSample:
    """An image and its text: ``lines`` in reading order; words over ``ignored`` quads (pixels) count neither way."""

    path: str
    subset: str
    lines: list[str]
    ignored: list[list[Point]] = field(default_factory=list)


@dataclass(frozen=True)
class FaceSample:
    """An image and its faces as [left, top, width, height] in pixels; ``ignored`` boxes count neither way."""

    path: str
    subset: str
    boxes: list[Box]
    ignored: list[Box] = field(default_factory=list)


@dataclass(frozen=True)
class LogoSample:
    """An image and its marks: names, and a quad in pixels for each, or none where only the image is labelled.

    ``known`` is False where the gallery lacks the marks, so that whatever is named is wrong. ``labelled`` are the
    brands that the truth speaks of; none: all there are. Other names are judged only where it says that there is none.
    """

    path: str
    subset: str
    names: list[str]
    quads: list[list[Point]] = field(default_factory=list)
    known: bool = True
    labelled: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LogoCrop:
    """A mark as somebody uploads it: the ``box`` (left, top, right, bottom in pixels) of an image."""

    name: str
    path: str
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class PhotoSample:
    """A photo and sentences that people would look for it by; none: it is only a photo among others."""

    path: str
    captions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Samples:
    """All images of one run, by role."""

    texts: list[TextSample] = field(default_factory=list)
    faces: list[FaceSample] = field(default_factory=list)
    logos: list[LogoSample] = field(default_factory=list)
    photos: list[PhotoSample] = field(default_factory=list)
    crops: list[LogoCrop] = field(default_factory=list)

    def __add__(self, other: Samples) -> Samples:
        parts = (self.texts + other.texts, self.faces + other.faces, self.logos + other.logos)
        return Samples(*parts, self.photos + other.photos, self.crops + other.crops)


def write(samples: Samples, path: Path) -> None:
    """Keeps the samples as JSON."""
    path.write_text(json.dumps(asdict(samples)))


def read(path: Path) -> Samples:
    """The samples of a file that ``write`` made."""
    found = json.loads(path.read_text())
    texts = [TextSample(**each) for each in found["texts"]]
    faces = [FaceSample(**each) for each in found["faces"]]
    logos = [LogoSample(**each) for each in found["logos"]]
    crops = [LogoCrop(**each) for each in found["crops"]]
    return Samples(texts, faces, logos, [PhotoSample(**each) for each in found["photos"]], crops)


def paths(samples: Sequence[TextSample] | Sequence[FaceSample] | Sequence[LogoSample]) -> list[str]:
    """The files of the samples, in order."""
    return [sample.path for sample in samples]
