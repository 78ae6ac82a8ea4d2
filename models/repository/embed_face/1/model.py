"""Face embedding: a face, turned upright by its landmarks, through ``face_encoder``, at unit length."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from lensmesh_models.face_alignment import aligned
from lensmesh_models.images import decode
from lensmesh_models.memo import Memo
from lensmesh_models.sentences import unit
from lensmesh_models.serving import BadInput, Model, Tensors, call, values
from numpy.typing import NDArray


class TritonPythonModel(Model):
    """IMAGE BYTES [B,1], LANDMARKS BYTES [B,1] (JSON 5 x [x,y] as in ``faces``) -> VECTOR float32 [B,128], length one.

    Pixels of the landmarks are those of the image.
    """

    def load(self) -> None:
        # The faces of one image come one after the other.
        self.pixels = Memo(_pixels, entries_max=1)

    def answer(self, request: Any) -> Tensors:
        pairs = zip(values(request, "IMAGE"), values(request, "LANDMARKS"), strict=True)
        return {"VECTOR": np.stack([self._vector(image, _points(landmarks)) for image, landmarks in pairs])}

    def _vector(self, image: bytes, points: NDArray[np.float64]) -> NDArray[np.float32]:
        face = aligned(self.pixels(image), points)
        return unit(call("face_encoder", {"IMAGE": face[None]}, ["VECTOR"])["VECTOR"][0])


def _pixels(image: bytes) -> NDArray[np.uint8]:
    return decode(image).pixels()


def _points(landmarks: bytes) -> NDArray[np.float64]:
    try:
        points = np.array(json.loads(landmarks), dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise BadInput(f"LANDMARKS is no list of points: {error}") from error
    if points.shape != (5, 2) or not np.isfinite(points).all() or np.ptp(points, axis=0).max() < 1:
        raise BadInput("LANDMARKS must be five different points [x, y]")
    return points
