"""Finds faces with five landmarks by ``face_detector``; a very long picture is searched window by window."""

from __future__ import annotations

from typing import Any

import numpy as np
from lensmesh_models.faces import OUTPUTS, decode_faces, letterbox
from lensmesh_models.geometry import tiles
from lensmesh_models.images import decode, rounded
from lensmesh_models.serving import Model, Tensors, call, documents, values

_SHORT_SIDE_PX = 640
_TILE_PX = 1280


class TritonPythonModel(Model):
    """IMAGE BYTES [B,1] -> FACES BYTES [B,1]: JSON list of {confidence, box [x,y,w,h], landmarks 5 x [x,y]}, pixels."""

    def answer(self, request: Any) -> Tensors:
        return {"FACES": documents(_faces(data) for data in values(request, "IMAGE"))}


def _faces(data: bytes) -> list[dict[str, Any]]:
    picture = decode(data, side_px=_SHORT_SIDE_PX)
    pixels = picture.pixels()
    height, width = pixels.shape[:2]
    to_original = np.array([picture.width / width, picture.height / height])
    found = []
    for tile in tiles(width, height, window_px=_TILE_PX):
        canvas, scale = letterbox(pixels[tile.top : tile.bottom, tile.left : tile.right])
        scores, boxes, points = decode_faces(call("face_detector", {"IMAGE": canvas}, OUTPUTS))
        corners = boxes.reshape(-1, 2, 2) * scale + [tile.left, tile.top]
        marks = points * scale + [tile.left, tile.top]
        for score, corner, mark in zip(scores, corners, marks, strict=True):
            if not tile.owns(*corner.mean(axis=0)):
                continue
            low, high = (np.clip(edge, 0, [width, height]) * to_original for edge in corner)
            found.append(
                {
                    "confidence": round(float(score), 4),
                    "box": rounded(np.concatenate([low, high - low])),
                    "landmarks": [rounded(point) for point in mark * to_original],
                }
            )
    return sorted(found, key=lambda face: -face["confidence"])
