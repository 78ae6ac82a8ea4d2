"""Logos as the mesh finds them for a namespace: those that ship and marks of its own, with the lines that are read."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.vision.engines import Answer, Ours
from bench.vision.samples import LogoCrop
from services.vision.gallery import Finding, Gallery, merged

MODELS = ("logo_mark", "logo_verifier", "ocr")
NO_LINES = b"[]"
# Printed now and then: a set takes minutes.
_PROGRESS_IMAGES = 60


@dataclass(frozen=True)
class Found:
    """What is found in each image, in order: with read lines, without, by the gallery that ships alone, and reading."""

    read: list[Answer]
    unread: list[Answer]
    shipped: list[Answer]
    reading_cpu_ms: float  # an image


class OwnLogos:
    """A namespace's marks, one a crop, beside the gallery that ships."""

    def __init__(self, ours: Ours, crops: Sequence[LogoCrop]) -> None:
        self._ours, self._gallery = ours, Gallery()
        self._marks: dict[str, dict[str, Any]] = {}
        for number, crop in enumerate(crops):
            document = ours.document("logo_mark", "MARK", IMAGE=_cut(crop))
            self._gallery.put(str(number), np.asarray(document["vectors"], np.float32))
            self._marks[str(number)] = {"name": crop.name} | document

    def answers(self, files: Sequence[str]) -> Found:
        """One answer of each kind a file; the first is asked for once before, to be warm."""
        read: list[Answer] = []
        unread: list[Answer] = []
        shipped: list[Answer] = []
        reading = 0.0
        self._find(Path(files[0]).read_bytes(), NO_LINES)
        for number, file in enumerate(files, start=1):
            image = Path(file).read_bytes()
            before = self._ours.cpu_s()
            lines = json.dumps(self._ours.document("ocr", "LINES", IMAGE=image)).encode()
            reading += self._ours.cpu_s() - before
            every, by_shipped = self._find(image, lines)
            read.append(every)
            shipped.append(by_shipped)
            unread.append(self._find(image, NO_LINES)[0])
            if number % _PROGRESS_IMAGES == 0:
                print(f"logos: {number} of {len(files)} photos", flush=True)
        return Found(read, unread, shipped, round(reading * 1e3 / len(files), 1))

    def _find(self, image: bytes, lines: bytes) -> tuple[Answer, Answer]:
        """What all marks give, and what those that ship give alone; the cost is that of all."""
        before, started = self._ours.cpu_s(), time.perf_counter()
        logos, regions = self._ours.documents("logos", ["LOGOS", "REGIONS"], IMAGE=image, LINES=lines)
        shipped = [Finding(**each) for each in logos]
        own: list[Finding] = []
        near = self._gallery.near(np.array([each["vector"] for each in regions], np.float32)) if regions else []
        if near:
            marks = json.dumps([self._marks[each] for each in near]).encode()
            given = {"REGIONS": json.dumps(regions).encode(), "MARKS": marks}
            own = [Finding(**each, logo_id="own") for each in self._ours.document("logo_verifier", "LOGOS", **given)]
        found = [asdict(finding) for finding in merged(own, shipped)]
        cpu_ms, ms = (self._ours.cpu_s() - before) * 1e3, (time.perf_counter() - started) * 1e3
        return Answer(found, cpu_ms, ms), Answer(logos, cpu_ms, ms)


def _cut(crop: LogoCrop) -> bytes:
    target = io.BytesIO()
    Image.open(crop.path).convert("RGB").crop(crop.box).save(target, "PNG")
    return target.getvalue()
