"""Images that the tests render, as encoded bytes."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw, ImageFont


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    """The image as a file."""
    data = io.BytesIO()
    image.save(data, form)
    return data.getvalue()


def blank(width: int = 320, height: int = 240, color: str = "white") -> bytes:
    """One colour and nothing else."""
    return encoded(Image.new("RGB", (width, height), color))


def written(lines: list[str], *, width: int = 640, height: int = 360, size: int = 40, form: str = "PNG") -> bytes:
    """Black lines of text on white, one below the other."""
    image = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    for row, line in enumerate(lines):
        pen.text((20, 20 + row * size * 2), line, "black", font)
    return encoded(image, form)


def strip(width: int, height: int, words: dict[int, str]) -> bytes:
    """A very long picture with a word at each given height."""
    image = Image.new("L", (width, height), 255)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(48)
    for y, word in words.items():
        pen.text((40, y), word, 0, font)
    return encoded(image)


TRUNCATED = written(["cut"], form="JPEG")[:400]
NO_IMAGE = b"this is no image"


def shrunk(data: bytes, factor: int) -> bytes:
    """The image at 1/factor of its size, as a JPEG."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return encoded(image.resize((image.width // factor, image.height // factor)), "JPEG")
