"""Text side of the shared space: the vector of ``embed_text``, centred on the labels as the image side is, by half."""

from __future__ import annotations

from typing import Any

import numpy as np
from lensmesh_models.conse import query_vectors
from lensmesh_models.serving import Model, Tensors, call, strings, values


class TritonPythonModel(Model):
    """TEXT BYTES [B,1] -> VECTOR float32 [B,384] of length one."""

    def load(self) -> None:
        self.centre = np.load(self.folder / "centre.npy")

    def answer(self, request: Any) -> Tensors:
        vectors = call("embed_text", {"TEXT": strings(values(request, "TEXT"))}, ["VECTOR"])["VECTOR"]
        return {"VECTOR": query_vectors(vectors, self.centre)}
