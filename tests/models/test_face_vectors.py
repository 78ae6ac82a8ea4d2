"""The vector of a face is that of the person, whatever the picture; of two persons it differs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tritonclient.utils import InferenceServerException

from tests.models import pictures
from tests.models.conftest import Client

_PHOTOS = Path(__file__).resolve().parents[2] / "demo" / "photos"
_SAME = 0.363  # the threshold that the network's authors give


async def _vector(lite: Client, image: bytes) -> NDArray[Any]:
    (faces,) = await lite.documents("faces", "FACES", IMAGE=[image])
    landmarks = json.dumps(faces[0]["landmarks"]).encode()
    found: NDArray[Any] = (await lite.tensor("embed_face", "VECTOR", IMAGE=[image], LANDMARKS=[landmarks]))[0]
    return found


def _edited(name: str, how: str) -> bytes:
    image = Image.open(_PHOTOS / name).convert("RGB")
    edited = {
        "turned by 25 degrees": lambda: image.rotate(25, expand=True, fillcolor="gray"),
        "half the size": lambda: image.resize((image.width // 2, image.height // 2)),
        "mirrored": lambda: ImageOps.mirror(image),
        "grey": lambda: image.convert("L").convert("RGB"),
        "darker": lambda: image.point(lambda value: value // 2),
    }[how]()
    return pictures.encoded(edited, "JPEG")


@pytest.mark.parametrize("how", ["turned by 25 degrees", "half the size", "mirrored", "grey", "darker"])
@pytest.mark.parametrize("name", ["astronaut.jpg", "grace_hopper.jpg"])
async def test_a_person_stays_the_same(lite: Client, name: str, how: str) -> None:
    """A turned, shrunk, mirrored, grey or dark picture of a person is near to the plain one."""
    plain = await _vector(lite, (_PHOTOS / name).read_bytes())
    assert np.linalg.norm(plain) == pytest.approx(1, abs=1e-5)
    assert float(plain @ await _vector(lite, _edited(name, how))) > 0.6


async def test_two_persons_differ(lite: Client) -> None:
    """The vectors of two persons are further apart than the threshold of sameness."""
    vectors = [await _vector(lite, (_PHOTOS / name).read_bytes()) for name in ("astronaut.jpg", "grace_hopper.jpg")]
    assert float(vectors[0] @ vectors[1]) < _SAME


async def test_each_face_of_an_image_has_its_own_vector(lite: Client) -> None:
    """Two persons side by side in one picture have the vectors of their own pictures."""
    singles = [Image.open(_PHOTOS / name).convert("RGB") for name in ("astronaut.jpg", "grace_hopper.jpg")]
    both = Image.new("RGB", (sum(each.width for each in singles), max(each.height for each in singles)))
    both.paste(singles[0], (0, 0))
    both.paste(singles[1], (singles[0].width, 0))
    data = io.BytesIO()
    both.save(data, "PNG")
    (faces,) = await lite.documents("faces", "FACES", IMAGE=[data.getvalue()])
    left, right = sorted(faces[:2], key=lambda face: face["box"][0])
    for face, name in ((left, "astronaut.jpg"), (right, "grace_hopper.jpg")):
        landmarks = json.dumps(face["landmarks"]).encode()
        found = (await lite.tensor("embed_face", "VECTOR", IMAGE=[data.getvalue()], LANDMARKS=[landmarks]))[0]
        assert float(found @ await _vector(lite, (_PHOTOS / name).read_bytes())) > 0.9


@pytest.mark.parametrize("landmarks", [b"[]", b"[[1,1],[1,1],[1,1],[1,1],[1,1]]", b"no json", b"[[1,2,3]]"])
async def test_landmarks_that_are_none_are_refused(lite: Client, landmarks: bytes) -> None:
    """Anything but five different points is bad input."""
    image = (_PHOTOS / "astronaut.jpg").read_bytes()
    with pytest.raises(InferenceServerException, match="bad input: LANDMARKS"):
        await lite.tensor("embed_face", "VECTOR", IMAGE=[image], LANDMARKS=[landmarks])
