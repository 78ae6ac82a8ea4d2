"""Plain facts of an image: its size, colours, objects (``object_detector``) and classes (``embed_image``)."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
from lensmesh_models.colors import dominant
from lensmesh_models.images import Pixels, decode
from lensmesh_models.memo import Memo
from lensmesh_models.objects import SIDE_PX, records
from lensmesh_models.serving import Model, Tensors, call, documents, strings, values

_CLASSES_MAX = 5
_CLASS_FLOOR = 0.1


class TritonPythonModel(Model):
    """IMAGE BYTES [B,1] -> FACTS BYTES [B,1]: JSON {width, height, dominant_colors, objects, classes}."""

    def load(self) -> None:
        self.names: list[str] = json.loads((self.folder / "classes.json").read_text(encoding="utf-8"))
        # Its weights come by another registry than all others and may be missing; the other facts are given without it.
        self.detects = (self.folder.parents[1] / "object_detector" / "1" / "model.onnx").exists()
        # ``caption`` and ``embed_multimodal_image`` ask for the same image at about the same time.
        self.facts = Memo(self._facts)

    def answer(self, request: Any) -> Tensors:
        return {"FACTS": documents(self.facts(data) for data in values(request, "IMAGE"))}

    def _facts(self, data: bytes) -> dict[str, Any]:
        picture = decode(data, side_px=SIDE_PX)
        pixels = picture.squashed(SIDE_PX)
        return {
            "width": picture.width,
            "height": picture.height,
            "dominant_colors": dominant(pixels),
            "objects": _objects(pixels, picture.width, picture.height) if self.detects else [],
            "classes": self._classes(data),
        }

    def _classes(self, data: bytes) -> list[dict[str, Any]]:
        """Labels of at least 0.1, best first; the same image is then in the memory of ``embed_image``."""
        probabilities = call("embed_image", {"IMAGE": strings([data])}, ["PROBABILITIES"])["PROBABILITIES"][0]
        shares: Counter[str] = Counter()  # two of ImageNet's classes may bear one name, "missile" for one
        for index in np.argsort(-probabilities, kind="stable")[: 2 * _CLASSES_MAX]:
            shares[self.names[index]] += float(probabilities[index])
        best = shares.most_common(_CLASSES_MAX)
        return [{"label": label, "confidence": round(share, 4)} for label, share in best if share >= _CLASS_FLOOR]


def _objects(pixels: Pixels, width: int, height: int) -> list[dict[str, Any]]:
    found = call("object_detector", {"IMAGE": pixels[None]}, ["BOXES", "CONFIDENCE", "CLASS"])
    boxes, confidence, category = (found[name][0] for name in ("BOXES", "CONFIDENCE", "CLASS"))
    return records(boxes, confidence, category, width, height)
