"""What every rendered sample is made of: fonts and backgrounds of pinned packages, words, and wear.

Runs in the bench environment. All choice comes from the given random generator, so a seed gives the same image.
"""

from __future__ import annotations

import importlib
import io
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageFont

from bench.images import PHOTOS

# Packages and files of text faces, all under the SIL Open Font Licence or Apache-2.0.
_TEXT_FONTS = (
    ("font_roboto", "Roboto-Regular.ttf"),
    ("font_roboto", "Roboto-Medium.ttf"),
    ("font_lato", "Lato-Regular.ttf"),
    ("font_source_serif_pro", "SourceSerifPro-Regular.ttf"),
    ("font_caladea", "Caladea-Regular.ttf"),
    ("font_caladea", "Caladea-Italic.ttf"),
)
_SIGN_FONTS = (
    ("font_roboto", "Roboto-Bold.ttf"),
    ("font_roboto", "Roboto-Light.ttf"),
    ("font_lato", "Lato-Black.ttf"),
    ("font_source_serif_pro", "SourceSerifPro-Bold.ttf"),
    ("font_caladea", "Caladea-BoldItalic.ttf"),
    ("font_fredoka_one", "FredokaOne-Regular.ttf"),
    ("font_amatic_sc", "AmaticSC-Bold.ttf"),
)
# Photos without text or faces.
_PHOTOS = tuple(PHOTOS / name for name in ("cat.jpg", "coffee.jpg", "china.jpg"))
_PACKAGE_PHOTOS = ("brick.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "moon.png", "rocket.jpg")

_WORD_LIST = """
the of and to in is for on with as by from at this that which are was have not all new one more about time
year people way day man thing woman life child world school state family student group country problem hand part place
case week company system program question work government number night point home water room mother area money story
fact month lot right study book eye job word business issue side kind head house service friend father power hour game
line end member law car city community name president team minute idea kid body information back parent face others
level office door health person art war history party result change morning reason research girl guy moment air teacher
force education foot boy age policy everything process music market sense nation plan college interest death experience
effect use class control field development role effort rate heart drug show leader light voice wife police mind price
report decision son view relationship town road arm difference value building action season society tax director
position player record paper space ground form event official matter center couple site project activity star table
need court oil situation cost industry figure street image phone data picture practice piece land product doctor wall
patient worker news test movie north love support technology step baby computer type attention film tree source
organization hair window culture chance brother energy period course summer hotel welcome exit station coffee fresh
garden library museum parking bridge harbour kitchen orange yellow purple invoice total discount delivery
"""
_SIGN_LIST = """
OPEN CLOSED SALE EXIT STOP PARKING HOTEL COFFEE PHARMACY MUSEUM STATION WELCOME FRESH BREAD MARKET GARDEN
LIBRARY SCHOOL STREET AVENUE BRIDGE CENTRAL PARK NORTH SOUTH EAST WEST KITCHEN BAKERY FLOWERS BOOKS MUSIC SUMMER WINTER
CAFE GRAND PALACE ROYAL THEATRE CINEMA TICKETS ENTRANCE PRIVATE DANGER CAUTION PUSH PULL TODAY ONLY BEST QUALITY
"""
_WORDS, _SIGNS = _WORD_LIST.split(), _SIGN_LIST.split()


def font(rng: random.Random, size_px: int, *, sign: bool = False) -> Any:
    """A face for body text, or for signs, at ``size_px``."""
    package, name = rng.choice(_SIGN_FONTS + _TEXT_FONTS if sign else _TEXT_FONTS)
    return _font(package, name, size_px)


@cache
def _font(package: str, name: str, size_px: int) -> Any:
    folder = Path(str(importlib.import_module(package).__file__)).parent / "files"
    return ImageFont.truetype(str(folder / name), size_px)


def word(rng: random.Random) -> str:
    """A word of running text: mostly plain, now and then a number, a price or a date."""
    kind = rng.random()
    if kind < 0.86:
        chosen = rng.choice(_WORDS)
        return chosen.capitalize() if rng.random() < 0.15 else chosen
    if kind < 0.92:
        return str(rng.randrange(10, 10_000))
    if kind < 0.96:
        return f"{rng.randrange(1, 1000)}.{rng.randrange(10, 100)}"
    return f"{rng.randrange(1, 29):02d}.{rng.randrange(1, 13):02d}.{rng.randrange(1990, 2027)}"


def sign(rng: random.Random) -> str:
    """What stands on a sign: one to three words, in capitals or not, perhaps with a number."""
    parts = [rng.choice(_SIGNS) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.25:
        parts.append(str(rng.randrange(1, 1000)))
    text = " ".join(parts)
    return text if rng.random() < 0.6 else text.title()


@cache
def _photo(number: int) -> Image.Image:
    if number < len(_PHOTOS):
        return Image.open(_PHOTOS[number]).convert("RGB")
    import skimage  # type: ignore[import-not-found]

    folder = Path(skimage.__file__).parent / "data"
    return Image.open(folder / _PACKAGE_PHOTOS[number - len(_PHOTOS)]).convert("RGB")


def background(rng: random.Random, width: int, height: int) -> Image.Image:
    """A photo's or texture's random part, or a drawn gradient with blobs, filling ``width`` x ``height``."""
    number = rng.randrange(len(_PHOTOS) + len(_PACKAGE_PHOTOS) + 3)
    if number >= len(_PHOTOS) + len(_PACKAGE_PHOTOS):
        return _drawn(rng, width, height)
    photo = _photo(number)
    share = rng.uniform(0.6, 1.0) * min(photo.width / width, photo.height / height)
    wide, high = width * share, height * share
    left, top = rng.uniform(0, photo.width - wide), rng.uniform(0, photo.height - high)
    box = (left, top, left + wide, top + high)
    return photo.resize((width, height), Image.Resampling.BICUBIC, box=box)


def _drawn(rng: random.Random, width: int, height: int) -> Image.Image:
    """Smooth noise in two colours: what a wall or the sky looks like from afar."""
    noise = np.random.default_rng(rng.getrandbits(32)).random((6, 8))
    field = Image.fromarray((noise * 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    low, high = (np.array([rng.randrange(256) for _ in range(3)], np.float32) for _ in range(2))
    share = np.asarray(field, np.float32)[..., None] / 255
    return Image.fromarray((low + (high - low) * share).astype(np.uint8))


def worn(rng: random.Random, image: Image.Image, *, blur_px: float, noise: float) -> Image.Image:
    """The image out of focus by up to ``blur_px`` (sigma) and with up to ``noise`` grey levels of sensor noise."""
    blurred = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, blur_px)))
    grain = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(0, noise), (image.height, image.width, 1))
    return Image.fromarray(np.clip(np.asarray(blurred, np.float32) + grain, 0, 255).astype(np.uint8))


def jpeg(rng: random.Random, image: Image.Image, *, quality_min: int = 55) -> bytes:
    """The image as a JPEG of a random quality from ``quality_min`` to 92."""
    data = io.BytesIO()
    image.convert("RGB").save(data, "JPEG", quality=rng.randint(quality_min, 92))
    return data.getvalue()
