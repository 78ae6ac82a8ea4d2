"""Finds wordmarks in an image: its read lines against a lexicon of brands. Pictorial marks are not seen."""

from __future__ import annotations

import json
from typing import Any

from lensmesh_models.images import check
from lensmesh_models.logos import find, lexicon
from lensmesh_models.serving import BadInput, Model, Tensors, call, documents, optional_values, strings, values


class TritonPythonModel(Model):
    """IMAGE, optional LINES (of ``ocr``) BYTES [B,1] -> LOGOS BYTES [B,1]: JSON list of {name, confidence, quad}."""

    def load(self) -> None:
        self.known = lexicon(json.loads((self.folder / "brands.json").read_text(encoding="utf-8")))

    def answer(self, request: Any) -> Tensors:
        images = values(request, "IMAGE")
        given = optional_values(request, "LINES", len(images))
        return {"LOGOS": documents(find(_lines(*pair), self.known) for pair in zip(images, given, strict=True))}


def _lines(image: bytes, given: bytes | None) -> list[dict[str, Any]]:
    if given is None:
        given = bytes(call("ocr", {"IMAGE": strings([image])}, ["LINES"])["LINES"].reshape(-1)[0])
    else:
        check(image)  # what is no image fails here too, as it does when we read it ourselves
    try:
        lines: list[dict[str, Any]] = json.loads(given)
        return [{"text": line["text"], "confidence": line["confidence"], "quad": line["quad"]} for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"LINES is not what ocr gives: {error}") from error
