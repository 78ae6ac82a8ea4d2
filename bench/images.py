"""Images for benchmarks: small ones without meaning, and the sample photos, each one different from all others."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw

PHOTOS = Path(__file__).resolve().parent.parent / "demo" / "photos"


def small(number: int) -> bytes:
    """A 160 x 120 JPEG of about 3 KB."""
    image = Image.new("RGB", (160, 120), ((number * 37) % 256, (number * 91) % 256, (number * 53) % 256))
    ImageDraw.Draw(image).text((8, 50), f"image {number}", fill="white")
    return _jpeg(image)


def photos(count: int, salt: int) -> list[bytes]:
    """The sample photos in turn, each with a few pixels of its own, so that no model can remember it."""
    originals = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.*g")) if path.suffix != ".svg"]
    made = []
    for number in range(count):
        image = originals[number % len(originals)].copy()
        for bit in range(24):
            image.putpixel((bit, 0), (255, 255, 255) if (number + salt * 10_000) >> bit & 1 else (0, 0, 0))
        made.append(_jpeg(image))
    return made


def _jpeg(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=90)
    return content.getvalue()
