"""Faces of any size and number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from tests.models import pictures
from tests.models.conftest import Client

_PHOTO = Path(__file__).resolve().parents[2] / "demo" / "photos" / "astronaut.jpg"
_HEAD = (120, 0, 320, 200)  # of the photo; the face in it is about 115 pixels high
_FACE_SHARE = 0.57
_THRESHOLD = 0.8


def _crowd(size: tuple[int, int], face_px: int, across: int, down: int) -> tuple[bytes, list[tuple[float, float]]]:
    """A wall of heads and the middles of their faces."""
    side = round(face_px / _FACE_SHARE)
    head = Image.open(_PHOTO).convert("RGB").crop(_HEAD).resize((side, side), Image.Resampling.LANCZOS)
    image = Image.new("RGB", size, "#8a9099")
    places = [
        ((column + 1) * size[0] // (across + 1), (row + 1) * size[1] // (down + 1))
        for row in range(down)
        for column in range(across)
    ]
    for x, y in places:
        image.paste(head, (x - side // 2, y - side // 2))
    return pictures.encoded(image), [(x, y + side * 0.12) for x, y in places]


async def _found(lite: Client, image: bytes) -> list[Any]:
    (faces,) = await lite.documents("faces", "FACES", IMAGE=[image])
    return [face for face in faces if face["confidence"] >= _THRESHOLD]


def _inside(box: list[float], point: tuple[float, float]) -> bool:
    left, top, width, height = box
    return left <= point[0] <= left + width and top <= point[1] <= top + height


async def test_a_crowd_of_small_faces_is_found(lite: Client) -> None:
    """Of 60 faces of 24 pixels on a wide picture nearly all are found, and nothing else."""
    image, middles = _crowd((1920, 1280), 24, 10, 6)

    faces = await _found(lite, image)

    right = [face for face in faces if any(_inside(face["box"], middle) for middle in middles)]
    assert len(right) >= 54
    assert len(faces) == len(right)
    assert all(len(face["landmarks"]) == 5 for face in faces)


async def test_a_face_that_fills_a_large_picture_is_found_once(lite: Client) -> None:
    """The closer looks, which know only smaller faces, neither lose nor repeat one of 1,100 pixels."""
    image, middles = _crowd((2000, 2000), 1100, 1, 1)

    (face,) = await _found(lite, image)

    assert _inside(face["box"], middles[0])
    assert 800 < face["box"][3] < 1500
