"""What the lite set's real models can do, on images with a known content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.models import pictures
from tests.models.conftest import Client

_PHOTOS = Path(__file__).resolve().parents[2] / "demo" / "photos"


def _photo(name: str) -> bytes:
    return (_PHOTOS / name).read_bytes()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
async def test_text_is_read_in_order(lite: Client, form: str) -> None:
    """Rendered lines are read letter by letter, from top to bottom, where they stand."""
    image = pictures.written(["Hello World", "Invoice 2026", "Total 42.50"], form=form)

    (lines,) = await lite.documents("ocr", "LINES", IMAGE=[image])

    assert [line["text"] for line in lines] == ["Hello World", "Invoice 2026", "Total 42.50"]
    tops = [min(corner[1] for corner in line["quad"]) for line in lines]
    assert all(abs(top - expected) < 25 for top, expected in zip(tops, (20, 100, 180), strict=True))


async def test_a_row_is_read_from_left_to_right(lite: Client) -> None:
    """Words far apart in one row come in reading order."""
    (lines,) = await lite.documents("ocr", "LINES", IMAGE=[pictures.written(["left              right", "below"])])

    assert " ".join(line["text"] for line in lines).split() == ["left", "right", "below"]


async def test_a_blank_image_holds_nothing(lite: Client) -> None:
    """An image without content has no text, faces, logos or objects."""
    image = [pictures.blank()]

    (facts,) = await lite.documents("structure", "FACTS", IMAGE=image)

    assert await lite.documents("ocr", "LINES", IMAGE=image) == [[]]
    assert await lite.documents("faces", "FACES", IMAGE=image) == [[]]
    assert await lite.documents("logos", "LOGOS", IMAGE=image) == [[]]
    assert facts["objects"] == []
    assert [color["name"] for color in facts["dominant_colors"]] == ["white"]


@pytest.mark.parametrize("size", [(1, 1), (2000, 1), (1, 2000), (33, 7)])
async def test_tiny_and_thin_images_are_answered(lite: Client, size: tuple[int, int]) -> None:
    """An image of one pixel, or of one pixel's width, breaks no model."""
    image = [pictures.blank(*size)]

    assert await lite.documents("ocr", "LINES", IMAGE=image) == [[]]
    assert await lite.documents("faces", "FACES", IMAGE=image) == [[]]
    assert len(await lite.documents("caption", "CAPTION", IMAGE=image)) == 1


async def test_a_truncated_jpeg_is_a_bad_image(lite: Client) -> None:
    """A JPEG that ends early is refused rather than read half."""
    with pytest.raises(InferenceServerException, match="bad image:"):
        await lite.documents("ocr", "LINES", IMAGE=[pictures.TRUNCATED])


async def test_too_many_pixels_are_a_bad_image(lite: Client) -> None:
    """More than 64 megapixels are refused before they are decoded."""
    with pytest.raises(InferenceServerException, match=r"bad image: .*pixels"):
        await lite.documents("structure", "FACTS", IMAGE=[pictures.strip(8200, 8200, {})])


async def test_a_very_long_image_is_read_to_its_end(lite: Client) -> None:
    """Words at the top, in the middle and at the bottom of a strip are read once each, in their places."""
    words = {100: "beginning", 5990: "middle", 11900: "ending"}

    (lines,) = await lite.documents("ocr", "LINES", IMAGE=[pictures.strip(790, 12_000, words)])

    assert list(words.values()) == [line["text"] for line in lines]
    tops = [min(corner[1] for corner in line["quad"]) for line in lines]
    assert all(abs(top - expected) < 30 for top, expected in zip(tops, words, strict=True))


async def test_a_face_is_found_where_it_is(lite: Client) -> None:
    """The astronaut's face is found once, with five landmarks inside its box."""
    (faces,) = await lite.documents("faces", "FACES", IMAGE=[_photo("astronaut.jpg")])

    (face,) = [face for face in faces if face["confidence"] >= lite.server.model_set["roles"]["faces"]["threshold"]]
    left, top, width, height = face["box"]
    assert len(face["landmarks"]) == 5
    assert all(left <= x <= left + width and top <= y <= top + height for x, y in face["landmarks"])


async def test_a_caption_names_what_is_seen(lite: Client) -> None:
    """The caption of a photo of a cat says so, and the model calls itself a template."""
    (caption,) = await lite.documents("caption", "CAPTION", IMAGE=[_photo("cat.jpg")])

    assert "cat" in caption["text"]
    assert caption["model"].startswith("template-")


async def test_a_wordmark_is_a_logo(lite: Client) -> None:
    """A brand's name standing alone on a poster is found with its quad."""
    image = pictures.written(["Coca-Cola", "summer 2026"])

    (logos,) = await lite.documents("logos", "LOGOS", IMAGE=[image])

    assert [logo["name"] for logo in logos] == ["Coca-Cola"]
    assert len(logos[0]["quad"]) == 4


@pytest.mark.parametrize(
    "lines",
    [
        ["Summer sale", "target your goals", "orange juice"],
        ["I bought new shoes from Nike last week"],
        ["the shell of a snail"],
    ],
)
async def test_ordinary_words_are_no_logos(lite: Client, lines: list[str]) -> None:
    """Words that are also brands, and prose that mentions one, are not taken for logos."""
    image = pictures.written(lines, width=1000)

    assert await lite.documents("logos", "LOGOS", IMAGE=[image]) == [[]]


async def test_lines_that_are_no_lines_are_refused(lite: Client) -> None:
    """LINES of another form fail as bad input, not as a crash."""
    with pytest.raises(InferenceServerException, match="bad input: LINES"):
        await lite.documents("logos", "LOGOS", IMAGE=[pictures.blank()], LINES=[b'[{"word": 1}]'])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("a cat", "cat.jpg"),
        ("a cup of coffee on a table", "coffee.jpg"),
        ("a rocket launch", "rocket.jpg"),
    ],
)
async def test_a_text_finds_its_photo(lite: Client, query: str, expected: str) -> None:
    """In the shared space a plain description lies nearest to its photo."""
    names = sorted(path.name for path in _PHOTOS.glob("*.jpg"))
    images = await lite.tensor("embed_multimodal_image", "VECTOR", IMAGE=[_photo(name) for name in names])
    (text,) = await lite.tensor("embed_multimodal_text", "VECTOR", TEXT=[query.encode()])

    assert expected == names[int(np.argmax(images @ text))]


async def test_a_few_read_letters_hardly_move_a_photo(lite: Client) -> None:
    """Stray letters are often misread and say little; a sentence on a poster says what it is about."""
    image = [_photo("coffee.jpg")]
    (without,) = await lite.tensor("embed_multimodal_image", "VECTOR", IMAGE=image)
    (letters,) = await lite.tensor("embed_multimodal_image", "VECTOR", IMAGE=image, TEXT=[b"REX"])
    sentence = [b"an invitation to an open house on saturday"]
    (read,) = await lite.tensor("embed_multimodal_image", "VECTOR", IMAGE=image, TEXT=sentence)

    assert without @ letters > 0.95
    assert without @ read < 0.9


async def test_similar_texts_are_near(lite: Client) -> None:
    """Two ways to say the same thing are nearer than another topic."""
    texts = [b"a fast car on the road", b"an automobile driving quickly", b"recipe for tomato soup"]

    vectors = await lite.tensor("embed_text", "VECTOR", TEXT=texts)

    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


async def test_an_image_is_nearest_to_its_smaller_self(lite: Client) -> None:
    """A photo shrunk to a third is nearer to itself than to any other photo."""
    names = sorted(path.name for path in _PHOTOS.glob("*.jpg"))
    small = pictures.shrunk(_photo("coffee.jpg"), 3)

    images = await lite.tensor("embed_image", "VECTOR", IMAGE=[_photo(name) for name in names])
    (vector,) = await lite.tensor("embed_image", "VECTOR", IMAGE=[small])

    assert names[int(np.argmax(images @ vector))] == "coffee.jpg"
