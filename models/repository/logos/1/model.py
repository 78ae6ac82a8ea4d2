"""Finds logos: wordmarks among the read lines by a lexicon, pictorial marks by the gallery that ships."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from lensmesh_models import logo_detection
from lensmesh_models.images import decode
from lensmesh_models.logo_marks import Gallery, Region, distinct, judge, region_document
from lensmesh_models.logo_search import regions
from lensmesh_models.logos import find, lexicon
from lensmesh_models.serving import BadInput, Model, Tensors, call, documents, optional_values, strings, values

# A JPEG is read no smaller than this on its short side: patches of small marks are cut from it.
_SHORT_SIDE_PX = 960


class TritonPythonModel(Model):
    """IMAGE, optional LINES (of ``ocr``) BYTES [B,1] -> LOGOS BYTES [B,1]: JSON list of {name, confidence, quad}.

    REGIONS BYTES [B,1], made only where it is asked for: JSON list of the places that may show a mark, each {quad,
    confidence, vector, patch}, to be compared with other marks by ``logo_verifier``.
    """

    def load(self) -> None:
        self.known = lexicon(json.loads((self.folder / "brands.json").read_text(encoding="utf-8")))
        with np.load(self.folder / "gallery.npz") as gallery:
            self.gallery = Gallery.read(gallery)

    def answer(self, request: Any) -> Tensors:
        images = values(request, "IMAGE")
        given = optional_values(request, "LINES", len(images))
        lines = [_lines(*pair) for pair in zip(images, given, strict=True)]
        seen = [self._regions(*pair) for pair in zip(images, lines, strict=True)]
        words = [find(read, self.known) for read in lines]
        logos = [distinct(found + self._marks(places)) for found, places in zip(words, seen, strict=True)]
        tensors: Tensors = {"LOGOS": documents(logos)}
        if "REGIONS" in request.requested_output_names():
            tensors["REGIONS"] = documents([region_document(place) for place in places] for places in seen)
        return tensors

    def _regions(self, image: bytes, lines: list[dict[str, Any]]) -> list[Region]:
        picture = decode(image, side_px=_SHORT_SIDE_PX)
        pixels = picture.pixels()
        return regions(pixels, picture.width / pixels.shape[1], self.gallery.vectors, _detect, _embed, lines)

    def _marks(self, places: list[Region]) -> list[dict[str, Any]]:
        found = map(judge, places, self.gallery.nearest(places))
        return [finding for finding in found if finding is not None]


def _detect(canvas: Any) -> Tensors:
    return call("logo_detector", {"IMAGE": canvas}, logo_detection.OUTPUTS)


def _embed(patches: Any) -> Any:
    return call("logo_encoder", {"PATCH": patches}, ["VECTOR"])["VECTOR"]


def _lines(image: bytes, given: bytes | None) -> list[dict[str, Any]]:
    if given is None:
        given = bytes(call("ocr", {"IMAGE": strings([image])}, ["LINES"])["LINES"].reshape(-1)[0])
    try:
        lines: list[dict[str, Any]] = json.loads(given)
        return [{"text": line["text"], "confidence": line["confidence"], "quad": line["quad"]} for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"LINES is not what ocr gives: {error}") from error
