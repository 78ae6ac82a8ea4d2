"""Image side of the shared space: a weighted sum of the text vectors of what is seen and read (ConSE)."""

from __future__ import annotations

from typing import Any

import numpy as np
from lensmesh_models.conse import image_vector
from lensmesh_models.serving import Model, Tensors, call, document, optional_values, strings, text_of, values
from numpy.typing import NDArray


class TritonPythonModel(Model):
    """IMAGE BYTES [B,1], optional TEXT BYTES [B,1] (read on the image) -> VECTOR float32 [B,384] of length one."""

    def load(self) -> None:
        self.labels = np.load(self.folder / "labels.npy")
        self.centre = self.labels.mean(axis=0)

    def answer(self, request: Any) -> Tensors:
        images = values(request, "IMAGE")
        texts = optional_values(request, "TEXT", len(images))
        return {"VECTOR": np.stack([self._vector(*pair) for pair in zip(images, texts, strict=True)])}

    def _vector(self, image: bytes, text: bytes | None) -> NDArray[np.float32]:
        facts = document(call("structure", {"IMAGE": strings([image])}, ["FACTS"])["FACTS"])
        probabilities = call("embed_image", {"IMAGE": strings([image])}, ["PROBABILITIES"])["PROBABILITIES"][0]
        read = None
        if text_of(text).strip():
            read = text_of(text), call("embed_text", {"TEXT": strings([text or b""])}, ["VECTOR"])["VECTOR"][0]
        return image_vector(probabilities, facts["objects"], read, self.labels, self.centre)
