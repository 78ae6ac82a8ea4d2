"""Converts every pixel mode that a file can have to 8-bit RGB or grey.

It changes no geometry and reads no files.
"""

from __future__ import annotations

import numpy
from PIL import Image, ImageCms

_WHITE = (255, 255, 255)
_WITH_ALPHA = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})


def to_eight_bits(image: Image.Image) -> Image.Image:
    """The same picture in mode RGB or L, opaque.

    Transparency is laid over white, which is what most pages behind transparent images are. 16-bit grey keeps its high
    byte. 32-bit integers and floats have no fixed white: values within 0..255 are taken as they are, others are
    stretched from the smallest to the largest. A colour profile is kept where its colour space is; raises ValueError
    for a mode that can't be converted.
    """
    image.load()
    profile = image.info.get("icc_profile")
    result = _converted(image)
    # A profile of CMYK or LAB says nothing about the RGB that was made of it.
    same_space = image.mode in ("RGB", "RGBA", "P", "PA") or (image.mode in ("L", "LA") and result.mode == "L")
    result.info = {"icc_profile": profile} if profile and same_space else {}
    return result


def _converted(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode in _WITH_ALPHA or "transparency" in image.info:
        return _over_white(image)
    if mode in ("RGB", "L"):
        return image
    if mode == "1":
        return image.convert("L")
    if mode.startswith("I;16"):
        return Image.fromarray((numpy.asarray(image).astype(numpy.uint16) >> 8).astype(numpy.uint8))
    if mode in ("I", "F"):
        return _stretched(image)
    if mode == "LAB":
        return _from_lab(image)
    return image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image if image.mode == "RGBA" else _as_rgba(image)
    background = Image.new("RGB", image.size, _WHITE)
    background.paste(rgba, mask=rgba.getchannel("A"))
    return background


def _as_rgba(image: Image.Image) -> Image.Image:
    # Pillow converts premultiplied grey to grey with alpha only, and transparent 16-bit or bilevel grey via L only.
    if image.mode == "La":
        return image.convert("LA").convert("RGBA")
    if image.mode in ("RGB", "L", "P", "PA", "LA", "RGBa"):
        return image.convert("RGBA")
    plain = image.copy()
    plain.info.pop("transparency", None)
    return _converted(plain).convert("RGBA")


def _stretched(image: Image.Image) -> Image.Image:
    values = numpy.nan_to_num(numpy.asarray(image).astype(numpy.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255 or (image.mode == "F" and high <= 1):
        # An image of one value has no contrast to stretch.
        values = (values - low) * (255.0 / ((high - low) or 1.0))
    return Image.fromarray(values.astype(numpy.uint8))


def _from_lab(image: Image.Image) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    if converted is None:
        raise ValueError("the LAB image can't be converted")
    return converted
