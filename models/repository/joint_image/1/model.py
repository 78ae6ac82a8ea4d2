"""Image side of a joint image-text encoder: the image tower's embedding at unit length."""

from __future__ import annotations

from typing import Any

import numpy as np
from lensmesh_models.memo import Memo
from lensmesh_models.preparation import Preparation
from lensmesh_models.sentences import unit
from lensmesh_models.serving import Model, Tensors, call, optional_values, values
from numpy.typing import NDArray


class TritonPythonModel(Model):
    """IMAGE BYTES [B,1] -> VECTOR float32 [B,768] of length one; TEXT is taken and not needed: the pixels say it."""

    def load(self) -> None:
        self.preparation = Preparation.read(self.folder / "preprocessor_config.json")
        # Two roles may ask for the same image at about the same time.
        self.look = Memo(self._look)

    def answer(self, request: Any) -> Tensors:
        images = values(request, "IMAGE")
        optional_values(request, "TEXT", len(images))
        return {"VECTOR": np.stack([self.look(data) for data in images])}

    def _look(self, data: bytes) -> NDArray[np.float32]:
        pixels = self.preparation.apply(data)[None]
        return unit(call("image_tower", {"pixel_values": pixels}, ["embedding"])["embedding"])[0]
