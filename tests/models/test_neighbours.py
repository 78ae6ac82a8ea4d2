"""A broken image fails by itself: whoever is served at the same moment gets what it would get alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from tests.models import pictures
from tests.models.conftest import Client

_PHOTO = (Path(__file__).resolve().parents[2] / "demo" / "photos" / "astronaut.jpg").read_bytes()
_ROLES = (
    ("ocr", "LINES"),
    ("caption", "CAPTION"),
    ("faces", "FACES"),
    ("logos", "LOGOS"),
    ("structure", "FACTS"),
    ("embed_image", "VECTOR"),
    ("embed_multimodal_image", "VECTOR"),
)


async def _answer(lite: Client, model: str, output: str, image: bytes) -> NDArray[Any]:
    return await lite.tensor(model, output, IMAGE=[image])


@pytest.mark.parametrize(("model", "output"), _ROLES)
async def test_a_broken_image_changes_nothing_for_its_neighbours(lite: Client, model: str, output: str) -> None:
    """Of requests that a model has at once, the broken ones fail and the others' answers are those they get alone."""
    alone = await _answer(lite, model, output, _PHOTO)
    images = [pictures.TRUNCATED, _PHOTO, pictures.NO_IMAGE, _PHOTO]
    answers = await asyncio.gather(*(_answer(lite, model, output, each) for each in images), return_exceptions=True)
    for image, answer in zip(images, answers, strict=True):
        if image == _PHOTO:
            assert isinstance(answer, np.ndarray), answer
            if answer.dtype == np.object_:
                assert answer[0, 0] == alone[0, 0]
            else:
                assert np.allclose(answer, alone, atol=1e-5)
        else:
            assert isinstance(answer, InferenceServerException)
            assert "bad image" in str(answer)
