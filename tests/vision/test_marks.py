"""Of which bytes a mark is made: the model judges transparency itself, everything else comes normalised."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from services.mesh.errors import Unimplemented
from services.mesh.models import ModelSet, Role, TritonModels, TritonSettings
from services.vision.acquire import AcquireSettings
from services.vision.acquire.decode import normalise, prepare_process
from services.vision.marks import Marks, markable

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
