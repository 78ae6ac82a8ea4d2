"""What every model set must keep, whichever models are behind its roles."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.models import pictures
from tests.models.conftest import Client

_DOCUMENT_MODELS = [
    ("ocr", "LINES"),
    ("faces", "FACES"),
    ("logos", "LOGOS"),
    ("caption", "CAPTION"),
    ("structure", "FACTS"),
]
_IMAGE_MODELS = [*_DOCUMENT_MODELS, ("embed_image", "VECTOR"), ("embed_multimodal_image", "VECTOR")]
_TEXT_MODELS = [("embed_text", "embed_text"), ("embed_multimodal_text", "embed_multimodal")]


def _inside(value: float) -> bool:
    return isinstance(value, float) and 0 <= value <= 1


def _is_quad(value: Any) -> bool:
    return len(value) == 4 and all(len(corner) == 2 for corner in value)


@pytest.mark.parametrize(("model", "output"), _DOCUMENT_MODELS)
async def test_one_document_comes_back_for_each_image(client: Client, model: str, output: str) -> None:
    """A batch of images gives one JSON document each, in order."""
    images = [pictures.blank(), pictures.written(["first"]), pictures.blank(64, 64, "red")]

    together = await client.documents(model, output, IMAGE=images)
    alone = [(await client.documents(model, output, IMAGE=[image]))[0] for image in images]

    assert alone == together


async def test_lines_have_text_confidence_and_quad(client: Client) -> None:
    """A read line is text, a confidence within 0..1 and four corners."""
    (lines,) = await client.documents("ocr", "LINES", IMAGE=[pictures.written(["hello"])])

    assert lines
    for line in lines:
        assert {"text", "confidence", "quad"} == set(line)
        assert line["text"]
        assert _inside(line["confidence"])
        assert _is_quad(line["quad"])


async def test_caption_has_its_parts(client: Client) -> None:
    """A caption is a text with the model's name and what it was composed from."""
    (caption,) = await client.documents("caption", "CAPTION", IMAGE=[pictures.blank()])

    assert {"text", "model", "objects", "classes", "faces"} == set(caption)
    assert caption["text"]
    assert caption["model"]
    assert isinstance(caption["faces"], int)


async def test_given_text_is_in_the_caption(client: Client) -> None:
    """Text handed over with the image is quoted in the caption."""
    (caption,) = await client.documents("caption", "CAPTION", IMAGE=[pictures.blank()], TEXT=[b"grand opening"])

    assert '"grand opening"' in caption["text"]


async def test_structure_has_its_facts(client: Client) -> None:
    """The facts of an image are size, colours, objects and classes."""
    (facts,) = await client.documents("structure", "FACTS", IMAGE=[pictures.blank(64, 64, "gray")])

    assert {"width", "height", "dominant_colors", "objects", "classes"} == set(facts)
    assert (facts["width"], facts["height"]) == (64, 64)
    for color in facts["dominant_colors"]:
        assert {"name", "hex", "share"} == set(color)
        assert _inside(color["share"])


@pytest.mark.parametrize(
    ("model", "role"), [("embed_image", "embed_image"), ("embed_multimodal_image", "embed_multimodal")]
)
async def test_image_vectors_have_unit_length(client: Client, model: str, role: str) -> None:
    """An image embedding is float32, of the set's dimension, of length one, and the same each time."""
    images = [pictures.blank(), pictures.written(["vector"])]

    first = await client.tensor(model, "VECTOR", IMAGE=images)
    again = await client.tensor(model, "VECTOR", IMAGE=images)

    assert (2, client.server.dim(role)) == first.shape
    assert np.float32 == first.dtype
    assert np.allclose(1, np.linalg.norm(first, axis=1), atol=1e-4)
    assert np.allclose(first, again, atol=1e-5)


@pytest.mark.parametrize(("model", "role"), _TEXT_MODELS)
async def test_text_vectors_have_unit_length(client: Client, model: str, role: str) -> None:
    """A text embedding has length one for ordinary, empty, very long and broken text."""
    texts = [b"a red bicycle", b"", b"word " * 20_000, b"\xff\xfe", "Grüße, 世界 🌍".encode()]

    vectors = await client.tensor(model, "VECTOR", TEXT=texts)

    assert (len(texts), client.server.dim(role)) == vectors.shape
    assert np.float32 == vectors.dtype
    assert np.allclose(1, np.linalg.norm(vectors, axis=1), atol=1e-4)


async def test_text_beside_the_image_is_optional(client: Client) -> None:
    """The multimodal image model takes read text or none."""
    image = [pictures.blank()]

    without = await client.tensor("embed_multimodal_image", "VECTOR", IMAGE=image)
    beside = await client.tensor("embed_multimodal_image", "VECTOR", IMAGE=image, TEXT=[b"bicycle shop"])

    assert without.shape == beside.shape


async def test_lines_beside_the_image_are_optional(client: Client) -> None:
    """The logo model takes read lines or reads itself."""
    image = [pictures.blank()]

    assert await client.documents("logos", "LOGOS", IMAGE=image) == [[]]
    assert await client.documents("logos", "LOGOS", IMAGE=image, LINES=[b"[]"]) == [[]]


@pytest.mark.parametrize(("model", "output"), _IMAGE_MODELS)
async def test_a_broken_image_is_named_so(client: Client, model: str, output: str) -> None:
    """What is no image fails with INVALID_ARGUMENT and a message that begins with `bad image:`."""
    with pytest.raises(InferenceServerException) as failure:
        await client.tensor(model, output, IMAGE=[pictures.NO_IMAGE])

    assert failure.value.message().startswith("bad image:")
    assert "INVALID_ARGUMENT" in failure.value.status()


@pytest.mark.parametrize(("model", "output"), _IMAGE_MODELS)
async def test_a_broken_image_fails_alone(client: Client, model: str, output: str) -> None:
    """Requests at the same moment as a broken one are answered."""
    images = [pictures.blank(64 + index, 64) for index in range(4)]
    images.insert(2, pictures.NO_IMAGE)

    answers = await asyncio.gather(
        *(client.tensor(model, output, IMAGE=[image]) for image in images), return_exceptions=True
    )

    assert [index for index, answer in enumerate(answers) if isinstance(answer, BaseException)] == [2]
