"""Finds faces with five landmarks by ``face_detector``.

A look at the whole, a closer one, a third where faces are tiny; a very long picture is searched window by window.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lensmesh_models.faces import OUTPUTS, Faces, decode_faces, network_input, together
from lensmesh_models.geometry import Tile, tiles
from lensmesh_models.images import Pixels, decode, rounded
from lensmesh_models.serving import Model, Tensors, call, documents, values

# A JPEG is read no smaller than this on its short side: what the closer look can use.
_SHORT_SIDE_PX = 1280
_TILE_PX = 1280
# The first look sees large faces, which the network knows up to this size of a picture, and enlarges small images.
_WHOLE_PX = 640
# The closer look is at the picture's own pixels; it is left out where it would show hardly more.
_CLOSER_PX, _CLOSER_GAIN_MIN = 1920, 1.1
# Where it found faces smaller than this, there are smaller ones beside them: they appear when the picture is enlarged.
_TINY_PX = 32.0
_TINY_SCALE_MAX, _TINY_SIDE_PX, _TINY_GAIN_MIN = 1.5, 2560, 1.2
# Of the look before, only faces of at least this many of its pixels are kept: the rest is seen better now.
_KEPT_PX = 64.0


class TritonPythonModel(Model):
    """IMAGE BYTES [B,1] -> FACES BYTES [B,1]: JSON list of {confidence, box [x,y,w,h], landmarks 5 x [x,y]}, pixels."""

    def answer(self, request: Any) -> Tensors:
        return {"FACES": documents(_faces(data) for data in values(request, "IMAGE"))}


def _faces(data: bytes) -> list[dict[str, Any]]:
    picture = decode(data, side_px=_SHORT_SIDE_PX)
    pixels = picture.pixels()
    height, width = pixels.shape[:2]
    found = together([_in_tile(pixels, tile) for tile in tiles(width, height, window_px=_TILE_PX)])
    to_original = np.array([picture.width / width, picture.height / height])
    limit = [width, height]
    return [
        {
            "confidence": round(float(score), 4),
            "box": rounded(np.concatenate([low, high - low])),
            "landmarks": [rounded(point * to_original) for point in points],
        }
        for score, box, points in zip(found.scores, found.boxes, found.points, strict=True)
        for low, high in [np.clip(box.reshape(2, 2), 0, limit) * to_original]
    ]


def _in_tile(pixels: Pixels, tile: Tile) -> Faces:
    """The faces that are the tile's own, in pixels of the picture."""
    found = _search(pixels[tile.top : tile.bottom, tile.left : tile.right]).moved(1.0, (tile.left, tile.top))
    middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    return found.of(np.array([tile.owns(*middle) for middle in middles], bool))


def _search(pixels: Pixels) -> Faces:
    """All faces of a part: up to three looks, each at faces that the one before shows too small."""
    side = max(pixels.shape[:2])
    scale = _WHOLE_PX / side
    found = _look(pixels, scale)
    closer = min(1.0, _CLOSER_PX / side)
    if closer > _CLOSER_GAIN_MIN * scale:
        found = together([_large(found, scale), _look(pixels, closer)])
        scale = closer
    closest = min(_TINY_SCALE_MAX, _TINY_SIDE_PX / side)
    if closest > _TINY_GAIN_MIN * scale and (_heights(found) * scale < _TINY_PX).any():
        found = together([_large(found, scale), _look(pixels, closest)])
    return found


def _look(pixels: Pixels, scale: float) -> Faces:
    canvas, covered = network_input(pixels, scale)
    return decode_faces(call("face_detector", {"IMAGE": canvas}, OUTPUTS), canvas.shape[2]).moved(covered, (0, 0))


def _large(faces: Faces, scale: float) -> Faces:
    return faces.of(_heights(faces) * scale >= _KEPT_PX)


def _heights(faces: Faces) -> Any:
    return faces.boxes[:, 3] - faces.boxes[:, 1]
