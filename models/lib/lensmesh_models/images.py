"""Decodes one encoded image into pixels within fixed limits.

Everything that can go wrong with foreign bytes leaves here as ``BadImage``.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PIXELS_MAX = 64 * 1024 * 1024
Image.MAX_IMAGE_PIXELS = None  # our own limit below answers with an error of ours instead of a warning

Pixels = NDArray[np.uint8]


class BadImage(ValueError):
    """The bytes are not an image that this repository reads."""


@dataclass(frozen=True)
class Picture:
    """A decoded image: ``image`` is RGB, perhaps smaller than the ``width`` x ``height`` pixels of the original."""

    image: Image.Image
    width: int
    height: int

    def pixels(self) -> Pixels:
        """uint8 [h,w,3], RGB, of the decoded (perhaps reduced) image."""
        return np.asarray(self.image)

    def squashed(self, side: int) -> Pixels:
        """uint8 [side,side,3]: the whole image, aspect ratio given up."""
        return np.asarray(self.image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0))

    def centred(self, side: int) -> Pixels:
        """uint8 [side,side,3]: the largest square in the middle, aspect ratio kept."""
        width, height = self.image.size
        edge = min(width, height)
        box = ((width - edge) / 2, (height - edge) / 2, (width + edge) / 2, (height + edge) / 2)
        resized = self.image.resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
        return np.asarray(resized)


def decode(data: bytes, *, side_px: int | None = None) -> Picture:
    """Decodes a JPEG or PNG; a JPEG at the least of 1/1, 1/2, 1/4, 1/8 whose short side still has ``side_px``.

    Raises BadImage for anything else, for broken files and for more than PIXELS_MAX pixels.
    """
    with _foreign_bytes():
        image = _open(data)
        width, height = image.size
        if side_px is not None and image.format == "JPEG":
            factor = side_px / min(width, height)
            image.draft("RGB", (max(1, round(width * factor)), max(1, round(height * factor))))
        return Picture(image.convert("RGB"), width, height)


def decode_with_opacity(data: bytes, *, side_px: int) -> Pixels:
    """uint8 [h,w,4], RGB and opacity (255 where the image has none), the longer side at most ``side_px``.

    Raises BadImage as ``decode`` does.
    """
    with _foreign_bytes():
        image = _open(data)
        image.draft("RGB", (side_px, side_px))
        whole = image.convert("RGBA")
        whole.thumbnail((side_px, side_px), reducing_gap=2.0)
        return np.asarray(whole)


def check(data: bytes) -> None:
    """Raises BadImage for what ``decode`` would refuse by its header; the pixels are not looked at."""
    with _foreign_bytes():
        _open(data)


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    width, height = image.size
    if width * height > PIXELS_MAX:
        raise BadImage(f"{width}x{height} pixels, at most {PIXELS_MAX} are read")
    return image


@contextlib.contextmanager
def _foreign_bytes() -> Iterator[None]:
    try:
        yield
    except BadImage:
        raise
    except Exception as error:  # Pillow's decoders raise at least seven unrelated classes on foreign bytes
        raise BadImage(f"{type(error).__name__}: {error}"[:200]) from error


def rounded(values: NDArray[Any]) -> list[float]:
    """Plain numbers with one digit after the point, for JSON."""
    return [round(float(value), 1) for value in values]
