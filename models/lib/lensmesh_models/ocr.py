"""Reads the text of an image: quads from a detector, strings from a reader, in reading order.

Which networks these are the models say; their tensors are those of `text_detector` and `text_reader`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lensmesh_models.images import Pixels, decode, rounded
from lensmesh_models.serving import Model, Tensors, call, documents, values
from lensmesh_models.text_detection import Quad, detector_input, find_quads
from lensmesh_models.text_direction import along_writing, read_all
from lensmesh_models.text_order import reading_order
from lensmesh_models.text_reading import NOTHING, Reading, batches, collapse, crop, joined, line_pieces, reader_input
from lensmesh_models.text_trust import believable
from lensmesh_models.text_windows import Window, first_look, large, one_page, second_look

# A JPEG is read no smaller than this on its short side: twice what the detector sees leaves small letters readable.
_SHORT_SIDE_PX = 1440
# A window whose grey levels differ by less holds nothing that a person could read.
_CONTRAST_MIN = 16


class Ocr(Model):
    """IMAGE BYTES [B,1] -> LINES BYTES [B,1]: JSON list of {text, confidence 0..1, quad of four [x,y] in pixels}."""

    detector: str
    reader: str

    def load(self) -> None:
        self.alphabet = (self.folder / "characters.txt").read_text(encoding="utf-8").split("\n")

    def answer(self, request: Any) -> Tensors:
        return {"LINES": documents(self._lines(data) for data in values(request, "IMAGE"))}

    def _lines(self, data: bytes) -> list[dict[str, Any]]:
        picture = decode(data, side_px=_SHORT_SIDE_PX)
        pixels = picture.pixels()
        quads = self._find(pixels)
        answers = read_all(quads, lambda wanted: self._read(pixels, wanted))
        area = pixels.shape[0] * pixels.shape[1]
        kept = [index for index, (reading, _) in enumerate(answers) if believable(reading, quads[index], area)]
        order = reading_order([along_writing(quads[index], answers[index][1]) for index in kept])
        scale = [picture.width / pixels.shape[1], picture.height / pixels.shape[0]]
        return [
            {
                "text": answers[index][0].text,
                "confidence": round(answers[index][0].confidence, 4),
                "quad": [rounded(corner * scale) for corner in quads[index].corners],
            }
            for index in (kept[position] for position in order)
        ]

    def _read(self, pixels: Pixels, wanted: Sequence[tuple[Quad, int]]) -> list[Reading]:
        """What each quad says when it is turned by its quarter turns; crops exist only batch by batch."""
        found = [NOTHING] * len(wanted)
        for batch in batches([_width(quad) for quad, _ in wanted]):
            pieces = [line_pieces(crop(pixels, wanted[index][0].corners, wanted[index][1])) for index in batch]
            readings = self._read_lines([piece for each in pieces for piece in each])
            for index, each in zip(batch, pieces, strict=True):
                found[index] = joined(readings[: len(each)])
                readings = readings[len(each) :]
        return found

    def _read_lines(self, lines: Sequence[Pixels]) -> list[Reading]:
        found = [NOTHING] * len(lines)
        for batch in batches([line.shape[1] for line in lines]):
            image = reader_input([lines[index] for index in batch])
            outputs = call(self.reader, {"IMAGE": image}, ["INDEX", "PROBABILITY", "SPACE"])
            for row, index in enumerate(batch):
                steps = (outputs[name][row] for name in ("INDEX", "PROBABILITY", "SPACE"))
                found[index] = collapse(*steps, self.alphabet)
        return found

    def _find(self, pixels: Pixels) -> list[Quad]:
        """All quads of a picture: from one look, and from a closer one where its letters are small."""
        height, width = pixels.shape[:2]
        windows = first_look(width, height)
        quads = one_page([self._detect(pixels, window) for window in windows])
        closer = second_look(width, height, quads, windows[0].scale)
        if not closer:
            return quads
        return one_page([large(quads, windows[0].scale), *(self._detect(pixels, window) for window in closer)])

    def _detect(self, pixels: Pixels, window: Window) -> list[Quad]:
        """Quads of one window, in pixels of the whole picture."""
        part = pixels[window.top : window.bottom, window.left : window.right]
        if int(part.max()) - int(part.min()) < _CONTRAST_MIN:
            return []
        outputs = call(self.detector, {"IMAGE": detector_input(part, window.scale)}, ["PROBABILITY"])
        quads = find_quads(outputs["PROBABILITY"][0, 0], part.shape[1], part.shape[0])
        offset = np.array([window.left, window.top], np.float32)
        return [Quad(quad.corners + offset, quad.score) for quad in quads]


def _width(quad: Quad) -> int:
    short, long = sorted(quad.sides)
    return round(48 * long / short)
