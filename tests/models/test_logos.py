"""Marks that are pictures: those of the gallery, those that somebody uploads, and what is no mark at all."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tritonclient.utils import InferenceServerException

from bench.images import PHOTOS
from tests.models import pictures
from tests.models.conftest import Client

_NO_LINES = [b"[]"]
_THRESHOLD = 0.5  # the set's


def _mark(ink: str, ground: str | None, side: int = 240) -> Image.Image:
    """A mark that no gallery has: a bolt in a broken ring, with a bar below."""
    image = Image.new("RGBA", (side, side), ground or (0, 0, 0, 0))
    pen, unit = ImageDraw.Draw(image), side / 24
    pen.arc([2 * unit, 1 * unit, 22 * unit, 21 * unit], -50, 200, ink, round(2.4 * unit))
    bolt = [(13, 4), (7, 12), (11, 12), (9, 18), (17, 9), (12.5, 9), (16, 4)]
    pen.polygon([(x * unit, y * unit) for x, y in bolt], ink)
    pen.rectangle([4 * unit, 21.6 * unit, 20 * unit, 23.4 * unit], ink)
    return image


def _png(image: Image.Image) -> bytes:
    return pictures.encoded(image)


def _photo_with(mark: Image.Image, at: tuple[int, int], side: int, degrees: float) -> bytes:
    photo = Image.open(PHOTOS / "coffee.jpg").convert("RGB")
    turned = mark.resize((side, side), Image.Resampling.LANCZOS).rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    photo.paste(turned, at, turned)
    data = io.BytesIO()
    photo.save(data, "JPEG", quality=80)
    return data.getvalue()


def _nearest(regions: list[Any], mark: Any) -> float:
    seen = np.array([region["vector"] for region in regions])
    return float((seen @ np.array(mark["vectors"]).T).max())


async def test_an_uploaded_mark_is_found_in_a_photo(lite: Client) -> None:
    """A mark that nobody trained on is found, where it is, by its document, the regions of a photo and the verifier."""
    (mark,) = await lite.documents("logo_mark", "MARK", IMAGE=[_png(_mark("black", None))])
    photo = _photo_with(_mark("white", None), (60, 70), 130, 8)

    (regions,) = await lite.documents("logos", "REGIONS", IMAGE=[photo], LINES=_NO_LINES)
    named = json.dumps([{"name": "Bolt & Ring", **mark}]).encode()
    (logos,) = await lite.documents("logo_verifier", "LOGOS", REGIONS=[json.dumps(regions).encode()], MARKS=[named])

    best = logos[0]
    assert best["name"] == "Bolt & Ring"
    assert best["confidence"] >= _THRESHOLD
    middle = np.mean(best["quad"], axis=0)
    assert np.abs(middle - (60 + 73, 70 + 73)).max() < 20


async def test_a_mark_cut_from_a_photo_is_found_in_another(lite: Client) -> None:
    """A crop of a photo serves as the mark: what is uploaded is not always a drawing."""
    first = Image.open(io.BytesIO(_photo_with(_mark("#203060", "#c8b070"), (60, 70), 130, 0)))
    crop = pictures.encoded(first.crop((60, 70, 202, 212)))
    (mark,) = await lite.documents("logo_mark", "MARK", IMAGE=[crop])
    photo = _photo_with(_mark("white", "#802020"), (60, 70), 110, 6)

    (regions,) = await lite.documents("logos", "REGIONS", IMAGE=[photo], LINES=_NO_LINES)
    named = json.dumps([{"name": "Bolt & Ring", **mark}]).encode()
    (logos,) = await lite.documents("logo_verifier", "LOGOS", REGIONS=[json.dumps(regions).encode()], MARKS=[named])

    assert logos[0]["confidence"] >= _THRESHOLD
    assert np.abs(np.mean(logos[0]["quad"], axis=0) - (60 + 60, 70 + 60)).max() < 20


async def test_a_photo_without_the_mark_does_not_show_it(lite: Client) -> None:
    """The verifier names nothing in a photo that lacks the mark, although it was asked about it."""
    (mark,) = await lite.documents("logo_mark", "MARK", IMAGE=[_png(_mark("black", "white"))])
    photo = (PHOTOS / "coffee.jpg").read_bytes()

    (regions,) = await lite.documents("logos", "REGIONS", IMAGE=[photo], LINES=_NO_LINES)
    named = json.dumps([{"name": "Bolt & Ring", **mark}]).encode()
    (logos,) = await lite.documents("logo_verifier", "LOGOS", REGIONS=[json.dumps(regions).encode()], MARKS=[named])

    assert [] == [logo for logo in logos if logo["confidence"] >= _THRESHOLD]


@pytest.mark.parametrize(("ink", "ground"), [("white", "black"), ("red", "white"), ("#20c040", None)])
async def test_a_mark_is_the_same_on_any_ground(lite: Client, ink: str, ground: str | None) -> None:
    """Colours, an inverted drawing and a missing ground hardly move a mark's vectors."""
    images = [_png(_mark("black", "white")), _png(_mark(ink, ground))]

    plain, other = await lite.documents("logo_mark", "MARK", IMAGE=images)

    for mark in (plain, other):
        assert np.linalg.norm(mark["vectors"], axis=1) == pytest.approx(1, abs=1e-3)
    assert _nearest([{"vector": plain["vectors"][0]}], other) > 0.9


async def test_a_mark_is_told_from_others_with_more_and_fewer_views(lite: Client) -> None:
    """Among several marks, each of one view or of two, the one that a photo shows is named."""
    bolt = _mark("black", None)
    others = [
        _png(drawn)
        for drawn in (
            bolt.transpose(Image.Transpose.ROTATE_180),
            bolt.crop((0, 0, 240, 120)),
            _mark("black", "white").crop((0, 100, 240, 240)),
            _mark("black", "white").transpose(Image.Transpose.ROTATE_90),
        )
    ]
    marks = await lite.documents("logo_mark", "MARK", IMAGE=[*others, _png(bolt)])
    assert {1, 2} == {len(mark["vectors"]) for mark in marks}
    photo = _photo_with(_mark("white", None), (60, 70), 130, 8)

    (regions,) = await lite.documents("logos", "REGIONS", IMAGE=[photo], LINES=_NO_LINES)
    named = json.dumps([{"name": str(number), **mark} for number, mark in enumerate(marks)]).encode()
    (logos,) = await lite.documents("logo_verifier", "LOGOS", REGIONS=[json.dumps(regions).encode()], MARKS=[named])

    assert "4" == logos[0]["name"]
    assert logos[0]["confidence"] >= _THRESHOLD


async def test_parts_of_a_read_line_are_no_regions(lite: Client) -> None:
    """What lies inside of a read line and is much shorter is a letter, not a mark; the rest stays."""
    photo = _photo_with(_mark("white", None), (60, 70), 130, 8)
    line = {"text": "coffee", "confidence": 0.9, "quad": [[0, 0], [400, 0], [400, 220], [0, 220]]}

    (every,) = await lite.documents("logos", "REGIONS", IMAGE=[photo], LINES=_NO_LINES)
    (apart,) = await lite.documents("logos", "REGIONS", IMAGE=[photo], LINES=[json.dumps([line]).encode()])

    assert apart
    assert [each for each in every if each in apart] == apart
    left_out = [np.array(each["quad"]) for each in every if each not in apart]
    assert left_out
    assert all((quad.min(axis=0) < (400, 220)).all() and np.ptp(quad, axis=0).max() < 0.6 * 400 for quad in left_out)


async def test_photos_without_logos_stay_empty(lite: Client) -> None:
    """No sample photo shows a mark of the gallery, and none is found at the set's threshold."""
    for name in ("cat.jpg", "china.jpg", "coffee.jpg", "grace_hopper.jpg"):
        (logos,) = await lite.documents("logos", "LOGOS", IMAGE=[(PHOTOS / name).read_bytes()], LINES=_NO_LINES)
        assert [] == [logo for logo in logos if logo["confidence"] >= _THRESHOLD], name


async def test_an_image_of_one_colour_is_no_mark(lite: Client) -> None:
    """What shows nothing but its ground is a bad image, and says so."""
    with pytest.raises(InferenceServerException, match="bad image: the image"):
        await lite.documents("logo_mark", "MARK", IMAGE=[pictures.blank()])


@pytest.mark.parametrize(
    ("regions", "marks", "message"),
    [(b"{", b"[]", "REGIONS"), (b"[]", b'[{"name": "x"}]', "MARKS"), (b'[{"quad": []}]', b"[]", "REGIONS")],
)
async def test_the_verifier_refuses_other_documents(lite: Client, regions: bytes, marks: bytes, message: str) -> None:
    """What is no region or no mark is bad input, and the message names the tensor."""
    with pytest.raises(InferenceServerException, match=f"bad input: {message}"):
        await lite.documents("logo_verifier", "LOGOS", REGIONS=[regions], MARKS=[marks])


async def test_either_set_finds_an_image_in_itself(client: Client) -> None:
    """Both sets have the same documents: regions and marks have vectors of one length, and the verifier answers."""
    image = _png(_mark("black", "white", 400))

    (regions,) = await client.documents("logos", "REGIONS", IMAGE=[image], LINES=_NO_LINES)
    (mark,) = await client.documents("logo_mark", "MARK", IMAGE=[image])
    named = json.dumps([{"name": "mine", **mark}]).encode()
    (logos,) = await client.documents("logo_verifier", "LOGOS", REGIONS=[json.dumps(regions).encode()], MARKS=[named])

    assert {len(vector) for vector in mark["vectors"]} == {len(region["vector"]) for region in regions}
    assert ["mine"] == [logo["name"] for logo in logos]
