"""Reads the text of an image with PP-OCRv6 small."""

from __future__ import annotations

from lensmesh_models.ocr import Ocr


class TritonPythonModel(Ocr):
    """IMAGE BYTES [B,1] -> LINES BYTES [B,1]: JSON list of {text, confidence 0..1, quad of four [x,y] in pixels}."""

    detector, reader = "text_detector", "text_reader"
