"""Image embedding: the pooled features of ``image_classifier`` at unit length, and its class probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from lensmesh_models.images import decode
from lensmesh_models.memo import Memo
from lensmesh_models.sentences import unit
from lensmesh_models.serving import Model, Tensors, call, values
from numpy.typing import NDArray

_SIDE_PX = 224


class TritonPythonModel(Model):
    """IMAGE BYTES [B,1] -> VECTOR float32 [B,1280] of length one, PROBABILITIES float32 [B,1000] (ImageNet)."""

    def load(self) -> None:
        # ``structure`` and ``embed_multimodal_image`` ask for the same image at about the same time.
        self.look = Memo(_look)

    def answer(self, request: Any) -> Tensors:
        vectors, probabilities = zip(*(self.look(data) for data in values(request, "IMAGE")), strict=True)
        return {"VECTOR": np.stack(vectors), "PROBABILITIES": np.stack(probabilities)}


def _look(data: bytes) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    pixels = decode(data, side_px=_SIDE_PX).centred(_SIDE_PX)
    outputs = call("image_classifier", {"IMAGE": pixels[None]}, ["FEATURES", "PROBABILITIES"])
    return unit(outputs["FEATURES"][0]), outputs["PROBABILITIES"][0]
