"""Stand-ins that keep every role's tensor contract and compute almost nothing, to measure the mesh around the models.

Answers are deterministic: they depend on the bytes of the request and on nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmesh_models.images import BadImage, decode
from lensmesh_models.serving import Model, Tensors, documents, optional_values, text_of, values

DIM = 64
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_QUAD = [[8.0, 8.0], [56.0, 8.0], [56.0, 24.0], [8.0, 24.0]]
_LINE = {"text": "trivial", "confidence": 0.9, "quad": _QUAD}
_FACE = {
    "confidence": 0.9,
    "box": [8.0, 8.0, 32.0, 32.0],
    "landmarks": [[16.0, 20.0], [32.0, 20.0], [24.0, 28.0], [18.0, 34.0], [30.0, 34.0]],
}
_FACTS = {
    "width": 64,
    "height": 64,
    "dominant_colors": [{"name": "gray", "hex": "#808080", "share": 1.0}],
    "objects": [],
    "classes": [{"label": "trivial", "confidence": 0.9}],
}
_CAPTION = {"text": "A trivial caption", "model": "trivial-1", "objects": [], "classes": [], "faces": 0}
_FIXED = {"LINES": [_LINE], "FACES": [_FACE], "LOGOS": [], "FACTS": _FACTS}


class TritonPythonModel(Model):
    """Serves whichever role its config's outputs name: LINES, CAPTION, FACES, LOGOS, REGIONS, MARK, FACTS or VECTOR.

    A picture shows a mark that was uploaded where both are the same bytes, and no other.
    """

    def initialize(self, args: Mapping[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.input = config["input"][0]["name"]

    def answer(self, request: Any) -> Tensors:
        main = values(request, self.input)
        if self.input == "IMAGE" and not all(value.startswith(_SIGNATURES) for value in main):
            raise BadImage("neither a JPEG nor a PNG")
        if self.outputs == ["VECTOR"]:
            return {"VECTOR": np.stack([_vector(value) for value in main])}
        if self.outputs == ["CAPTION"]:
            texts = optional_values(request, "TEXT", len(main))
            return {"CAPTION": documents(_caption(text_of(text)) for text in texts)}
        if self.input == "REGIONS":
            return {"LOGOS": documents(map(_verified, main, values(request, "MARKS")))}
        return {output: documents(_document(output, value) for value in main) for output in self.outputs}


def _document(output: str, value: bytes) -> Any:
    if output == "REGIONS":
        return [{"quad": _QUAD, "confidence": 0.9, "vector": _vector(value).tolist()}]
    return _mark(value) if output == "MARK" else _FIXED[output]


def _mark(value: bytes) -> dict[str, Any]:
    # As the real model: an image of one colour shows no mark.
    if np.ptp(decode(value).pixels(), axis=(0, 1)).max() == 0:
        raise BadImage("the image has one colour only")
    return {"vectors": [_vector(value).tolist()]}


def _verified(regions: bytes, marks: bytes) -> list[dict[str, Any]]:
    seen = [region["vector"] for region in json.loads(regions)]
    found = [mark["name"] for mark in json.loads(marks) if any(vector in seen for vector in mark["vectors"])]
    return [{"name": name, "confidence": 0.9, "quad": _QUAD} for name in found]


def _caption(text: str) -> dict[str, Any]:
    return {**_CAPTION, "text": f'{_CAPTION["text"]} with the text "{text}"'} if text else _CAPTION


def _vector(value: bytes) -> NDArray[np.float32]:
    """Unit vector float32 [DIM] seeded by the SHA-256 of the bytes."""
    seed = hashlib.sha256(value).digest()
    stretched = np.frombuffer(seed * (DIM // len(seed)), np.uint8).astype(np.float32)
    # A second digest makes the halves differ, so that vectors fill the space.
    stretched[len(seed) :] = np.frombuffer(hashlib.sha256(seed).digest(), np.uint8)
    centred = stretched - 127.5
    return centred / np.linalg.norm(centred)
