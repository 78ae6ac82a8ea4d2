"""Reads the text of an image: quads from ``text_detector``, strings from ``text_reader``, in reading order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lensmesh_models.geometry import Tile, tiles
from lensmesh_models.images import Pixels, decode, rounded
from lensmesh_models.serving import Model, Tensors, call, documents, values
from lensmesh_models.text_detection import Quad, crop, detector_input, find_quads, reading_order
from lensmesh_models.text_reading import collapse, reader_batches

# A JPEG is read no smaller than this on its short side: twice what the detector sees leaves small letters readable.
_SHORT_SIDE_PX = 1440
_TILE_PX = 960
_CONFIDENCE_MIN = 0.5


class TritonPythonModel(Model):
    """IMAGE BYTES [B,1] -> LINES BYTES [B,1]: JSON list of {text, confidence 0..1, quad of four [x,y] in pixels}."""

    def load(self) -> None:
        self.alphabet = (self.folder / "characters.txt").read_text(encoding="utf-8").split("\n")

    def answer(self, request: Any) -> Tensors:
        return {"LINES": documents(self._lines(data) for data in values(request, "IMAGE"))}

    def _lines(self, data: bytes) -> list[dict[str, Any]]:
        picture = decode(data, side_px=_SHORT_SIDE_PX)
        pixels = picture.pixels()
        height, width = pixels.shape[:2]
        quads = [quad for tile in tiles(width, height, window_px=_TILE_PX) for quad in _detect(pixels, tile)]
        ordered = reading_order(quads)
        read = self._read([crop(pixels, quad.corners) for quad in ordered])
        scale = [picture.width / width, picture.height / height]
        return [
            {
                "text": text,
                "confidence": round(confidence, 4),
                "quad": [rounded(corner * scale) for corner in quad.corners],
            }
            for quad, (text, confidence) in zip(ordered, read, strict=True)
            if text.strip() and confidence >= _CONFIDENCE_MIN
        ]

    def _read(self, crops: Sequence[Pixels]) -> list[tuple[str, float]]:
        found = [("", 0.0)] * len(crops)
        for indices, batch in reader_batches(crops):
            outputs = call("text_reader", {"IMAGE": batch}, ["INDEX", "PROBABILITY"])
            for row, index in enumerate(indices):
                found[index] = collapse(outputs["INDEX"][row], outputs["PROBABILITY"][row], self.alphabet)
        return found


def _detect(pixels: Pixels, tile: Tile) -> list[Quad]:
    """Quads of one window that are its own, in pixels of the whole picture."""
    part = pixels[tile.top : tile.bottom, tile.left : tile.right]
    outputs = call("text_detector", {"IMAGE": detector_input(part)}, ["PROBABILITY"])
    quads = find_quads(outputs["PROBABILITY"][0, 0], part.shape[1], part.shape[0])
    offset = [tile.left, tile.top]
    moved = [Quad(quad.corners + offset, quad.score) for quad in quads]
    return [quad for quad in moved if tile.owns(*quad.centre)]
