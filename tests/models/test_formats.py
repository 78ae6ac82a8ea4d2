"""The same picture in any form of file gives the same findings as its plain version."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from services.vision.acquire.config import AcquireSettings
from services.vision.acquire.decode import normalise, prepare_process
from tests.models.conftest import Client
from tests.models.pictures import encoded
from tests.orientations import ORIENTATIONS, stored

WORDS = "Summer sale 2026"


def _plain() -> Image.Image:
    """A face, and a line of text on a light band below it."""
    photo = Image.open(Path(__file__).resolve().parents[2] / "demo" / "photos" / "astronaut.jpg").convert("RGB")
    photo = photo.resize((480, round(480 * photo.height / photo.width)))
    picture = Image.new("RGB", (480, photo.height + 80), "white")
    picture.paste(photo)
    ImageDraw.Draw(picture).text((20, photo.height + 16), WORDS, "black", ImageFont.load_default(44))
    return picture


def _turned(picture: Image.Image, orientation: int) -> bytes:
    held, exif = stored(picture, orientation)
    target = io.BytesIO()
    held.save(target, "JPEG", quality=95, exif=exif)
    return target.getvalue()


def _with_alpha(picture: Image.Image) -> bytes:
    """The white band is transparent instead, over black that must not show."""
    rgba = picture.convert("RGBA")
    pixels = np.array(rgba)
    pixels[(pixels[..., :3] == 255).all(axis=-1)] = (0, 0, 0, 0)
    return encoded(Image.fromarray(pixels))


def _sixteen_bits(picture: Image.Image) -> bytes:
    return encoded(Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257))


def _animated(picture: Image.Image) -> bytes:
    target = io.BytesIO()
    picture.save(target, "WEBP", save_all=True, append_images=[Image.new("RGB", picture.size)], quality=95)
    return target.getvalue()


FORMS: dict[str, Callable[[Image.Image], bytes]] = {
    **{f"orientation {number}": lambda picture, number=number: _turned(picture, number) for number in ORIENTATIONS},  # type: ignore[misc]
    "CMYK": lambda picture: encoded(picture.convert("CMYK"), "JPEG"),
    "16 bits": _sixteen_bits,
    "palette": lambda picture: encoded(picture.quantize(256)),
    "alpha": _with_alpha,
    "grey": lambda picture: encoded(picture.convert("L"), "JPEG"),
    "animated": _animated,
    "TIFF": lambda picture: encoded(picture, "TIFF"),
    "AVIF": lambda picture: encoded(picture, "AVIF"),
}


async def _findings(client: Client, file: bytes) -> tuple[list[str], list[dict[str, Any]]]:
    """The lines that are read, and the sure faces."""
    image = normalise(file, AcquireSettings().decode_limits).content
    (lines,) = await client.documents("ocr", "LINES", IMAGE=[image])
    (faces,) = await client.documents("faces", "FACES", IMAGE=[image])
    return [line["text"] for line in lines], [face for face in faces if face["confidence"] >= 0.8]


def _overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes [x, y, w, h]."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    common = max(width, 0.0) * max(height, 0.0)
    return common / (one[2] * one[3] + other[2] * other[3] - common)


@pytest.mark.parametrize("form", FORMS)
async def test_a_form_of_file_changes_no_finding(lite: Client, form: str) -> None:
    """The same words are read and the same face is found, in the same place."""
    prepare_process(AcquireSettings().decode_limits)
    picture = _plain()
    words, (face,) = await _findings(lite, encoded(picture))
    assert WORDS in words

    read, found = await _findings(lite, FORMS[form](picture))

    assert WORDS in read
    assert 1 == len(found)
    assert _overlap(face["box"], found[0]["box"]) > 0.8
