"""Which bytes a mark is made of, and what the models are asked when a picture is searched for marks."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.mesh.errors import Unimplemented
from services.mesh.models import ModelSet, Role, TritonModels, TritonSettings, bytes_tensor
from services.mesh.tenancy import Tenant
from services.vision.acquire import AcquireSettings
from services.vision.acquire.decode import normalise, prepare_process
from services.vision.look import Look
from services.vision.marks import KnownMark, Marks, markable

LIMITS = AcquireSettings().decode_limits


def file(mode: str, format: str, **saved: Any) -> bytes:
    """An image file of a mode."""
    colour = {"RGBA": (200, 0, 0, 100), "LA": (90, 100)}.get(mode, 0)
    content = io.BytesIO()
    Image.new(mode, (20, 10), colour).save(content, format, **saved)
    return content.getvalue()


ROTATED = Image.Exif()
ROTATED[0x0112] = 6


@pytest.mark.parametrize(
    ("content", "as_it_is"),
    [
        (file("RGBA", "PNG"), True),
        (file("LA", "PNG"), True),
        (file("P", "PNG", transparency=0), True),
        (file("RGBA", "PNG", exif=ROTATED), False),
        (file("RGBA", "WEBP", lossless=True), False),
        (file("I;16", "PNG"), False),
        (file("P", "PNG"), False),
        (file("RGBA", "TIFF"), False),
    ],
    ids=[
        "alpha",
        "grey with alpha",
        "palette with a transparent colour",
        "turned",
        "webp",
        "16 bits",
        "palette",
        "tiff",
    ],
)
def test_a_transparent_png_is_handed_on_as_it_is(content: bytes, as_it_is: bool) -> None:
    """Only an upright, 8-bit PNG with transparency goes to the model as it came; nothing else does."""
    prepare_process(LIMITS)
    image = normalise(content, LIMITS)
    assert image.content != content
    assert (content if as_it_is else image.content) == markable(content, image)


async def test_a_set_without_the_models_says_so() -> None:
    """A model set that can make no marks refuses to, by its name, and asks no server."""
    models = TritonModels("127.0.0.1:1", TritonSettings())
    marks = Marks(models, ModelSet(name="bare", roles={"logos": Role(model="logos", version="1")}))
    assert not marks.offered
    with pytest.raises(Unimplemented, match="'bare'"):
        await marks.make(file("RGB", "PNG"))
    await models.close()


QUAD = [[0, 0], [9, 0], [9, 9], [0, 9]]
SET = ModelSet(
    name="whole",
    roles={"logos": Role(model="logos", mark_model="logo_mark", verifier_model="logo_verifier", version="1")},
)


class Answers:
    """Models with one region on every picture; whichever marks the verifier is given, the picture shows the last."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self.given: list[dict[str, Any]] = []

    async def infer(self, model: str, inputs: dict[str, Any], outputs: list[str]) -> dict[str, Any]:
        """Answer as Triton does."""
        self.asked.append((model, list(outputs)))
        found: list[dict[str, Any]] = []
        if model == "logo_verifier":
            self.given = json.loads(inputs["MARKS"][0, 0])
            found = [{"name": self.given[-1]["name"], "confidence": 0.9, "quad": QUAD}]
        answers = {"LOGOS": found, "REGIONS": [{"vector": [1.0, 0.0], "quad": QUAD}]}
        return {name: bytes_tensor(json.dumps(answers[name]).encode()) for name in outputs}


async def test_a_namespace_without_logos_costs_nothing() -> None:
    """Without marks, the model is asked for the logos that ship, and for nothing else."""
    models, logos = Answers(), SimpleNamespace(has=lambda tenant: False)
    look = Look(models, SET, logos, Tenant("ns"), b"image", reading=False)  # type: ignore[arg-type]
    assert [] == await look.ask("logos")
    assert [("logos", ["LOGOS"])] == models.asked


async def test_the_verifier_is_asked_only_where_a_mark_is_near() -> None:
    """No mark near: one call. One near: a second call with its document, and the finding has its name and id."""
    models, seen = Answers(), []
    marks, inputs = Marks(models, SET), {"IMAGE": bytes_tensor(b"image")}  # type: ignore[arg-type]
    assert [] == await marks.find(inputs, lambda regions: [])
    assert [("logos", ["LOGOS", "REGIONS"])] == models.asked

    def near(regions: Any) -> list[KnownMark]:
        seen.append(regions)
        return [KnownMark("id-1", "Acme", b' {"vectors": [[1]]}'), KnownMark("id-2", "Acme", b'{"vectors": [[2]]}')]

    (finding,) = await marks.find(inputs, near)
    assert ("Acme", "id-2", 0.9, QUAD) == (finding.name, finding.logo_id, finding.confidence, finding.quad)
    assert ("logo_verifier", ["LOGOS"]) == models.asked[-1]
    assert [{"name": "id-1", "vectors": [[1]]}, {"name": "id-2", "vectors": [[2]]}] == models.given
    assert np.array_equal([[1.0, 0.0]], seen[0])
