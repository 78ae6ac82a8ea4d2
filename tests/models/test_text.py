"""How the lite set reads pictures that a plain pass over the whole would get wrong."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.models import pictures
from tests.models.conftest import Client

_PHOTOS = Path(__file__).resolve().parents[2] / "demo" / "photos"
_LEFT = ["The harbour was quiet", "before the boats came", "back from the islands", "late in the evening"]
_RIGHT = ["Nobody on the bridge", "had seen the lights", "go out one by one", "along the far shore"]


async def _lines(lite: Client, image: Image.Image) -> list[Any]:
    (lines,) = await lite.documents("ocr", "LINES", IMAGE=[pictures.encoded(image)])
    found: list[Any] = lines
    return found


def _texts(lines: list[Any]) -> list[str]:
    return [line["text"] for line in lines]


def _page(texts: dict[tuple[int, int], str], *, width: int = 1000, height: int = 700, size: int = 30) -> Image.Image:
    """Black text on white, each at its place."""
    image = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    for place, text in texts.items():
        pen.text(place, text, "black", font)
    return image


@pytest.mark.parametrize("name", ["coffee.jpg", "cat.jpg", "china.jpg", "rocket.jpg"])
async def test_a_photo_without_text_has_no_lines(lite: Client, name: str) -> None:
    """Rims, fur and roofs are not read as characters."""
    (lines,) = await lite.documents("ocr", "LINES", IMAGE=[(_PHOTOS / name).read_bytes()])

    assert _texts(lines) == []


async def test_a_ring_that_fills_the_picture_is_no_letter(lite: Client) -> None:
    """A drawn circle is no lone O or 0, though the reader is sure of it."""
    image = Image.new("RGB", (500, 500), "#b98a5a")
    ImageDraw.Draw(image).ellipse((40, 30, 460, 470), outline="#f5efe6", width=40)

    assert await _lines(lite, image) == []


async def test_a_lone_character_of_usual_size_is_read(lite: Client) -> None:
    """What is said of rings does not cost a platform its number."""
    assert _texts(await _lines(lite, _page({(470, 300): "5"}, size=90))) == ["5"]


async def test_a_screenshot_of_36861_pixels_is_read_completely(lite: Client) -> None:
    """Every line of a 790 x 36,861 strip is read once, in order and in its place, wherever windows meet."""
    # Unevenly spaced against the windows, so that some lines lie on seams; the last one ends the strip.
    places = [*range(12, 36_000, 2911), 36_790]
    words = {y: f"Paragraph number {number}" for number, y in enumerate(places)}

    (lines,) = await lite.documents("ocr", "LINES", IMAGE=[pictures.strip(790, 36_861, words)])

    assert _texts(lines) == list(words.values())
    tops = [min(corner[1] for corner in line["quad"]) for line in lines]
    assert all(abs(top - expected) < 30 for top, expected in zip(tops, words, strict=True))


async def test_a_line_across_windows_is_one_line(lite: Client) -> None:
    """On a very wide picture a sentence longer than a window comes in one piece."""
    sentence = " ".join(["the quick brown fox jumps over the lazy dog and runs on"] * 3)

    lines = await _lines(lite, _page({(30, 60): sentence}, width=4200, height=170, size=50))

    assert _texts(lines) == [sentence]


async def test_small_letters_of_a_large_scan_are_read(lite: Client) -> None:
    """Letters of 60 pixels on 5,000 x 7,000 are looked at again, closer."""
    texts = {(400, 600 + 900 * row): f"Clause {row} of the agreement" for row in range(6)}

    lines = await _lines(lite, _page(texts, width=5000, height=7000, size=60))

    assert _texts(lines) == list(texts.values())


@pytest.mark.parametrize("degrees", [90, 180, 270])
async def test_a_turned_page_is_read_in_its_own_order(lite: Client, degrees: int) -> None:
    """A page on its side or upside down gives the lines that a person would read after turning it."""
    texts = {(60, 80 + 70 * row): line for row, line in enumerate(_LEFT)}

    lines = await _lines(lite, _page(texts, width=600, height=450).rotate(degrees, expand=True))

    assert _texts(lines) == list(texts.values())


async def test_columns_are_read_one_after_the_other(lite: Client) -> None:
    """Under a heading across both, the left column comes before the right one, though their lines are level."""
    heading = "An evening at the harbour told from two sides"
    left = {(40, 150 + 60 * row): line for row, line in enumerate(_LEFT)}
    right = {(560, 150 + 60 * row): line for row, line in enumerate(_RIGHT)}

    lines = await _lines(lite, _page({(120, 40): heading, **left, **right}))

    assert _texts(lines) == [heading, *_LEFT, *_RIGHT]


async def test_a_table_is_read_row_by_row(lite: Client) -> None:
    """Short cells are no columns of prose: each name is followed by its number."""
    rows = [("Bread", "120"), ("Butter", "340"), ("Coffee", "560"), ("Flowers", "785")]
    texts = {(x, 80 + 90 * row): cells[side] for row, cells in enumerate(rows) for side, x in enumerate((60, 700))}

    assert _texts(await _lines(lite, _page(texts))) == [cell for row in rows for cell in row]


async def test_spaces_of_wide_lettering_are_kept(lite: Client) -> None:
    """Words on a photo stay apart."""
    photo = Image.open(io.BytesIO((_PHOTOS / "cat.jpg").read_bytes())).convert("RGB")
    ImageDraw.Draw(photo).text((30, 30), "OPEN UNTIL 22", "white", ImageFont.load_default(44), stroke_width=1)

    assert _texts(await _lines(lite, photo)) == ["OPEN UNTIL 22"]
