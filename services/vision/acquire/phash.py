"""The perceptual hash: 64 bits of a picture's coarse structure, few of which change when it is resized or recompressed.

The DCT hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), section 3.2, as
phash.org publishes it: 32 x 32 grey values, their 8 x 8 lowest frequencies but those that are constant along an axis,
one bit each for being above the median. The smoothing before it is the shrinking itself. Opens no files.
"""

from __future__ import annotations

import numpy
from numpy.typing import NDArray
from PIL import Image

#: Pixels that a side is not shrunk below before it is smoothed: twice the samples. With less, a picture of another size
#: differs in twice as many bits.
SIDE_PIXELS_MIN = 64
_SAMPLES = 32
_FREQUENCIES = 8
# Integers instead of floats: every machine finds the same bits, and a blank picture has exactly no structure.
_BASIS_SCALE = 2**12


def _basis() -> NDArray[numpy.int64]:
    """The DCT-II's frequencies 1..8 over 32 samples, int64[8, 32]."""
    frequencies = numpy.arange(1, _FREQUENCIES + 1)[:, None]
    places = 2 * numpy.arange(_SAMPLES)[None, :] + 1
    waves = numpy.cos(numpy.pi * frequencies * places / (2 * _SAMPLES))
    basis: NDArray[numpy.int64] = numpy.rint(waves * _BASIS_SCALE).astype(numpy.int64)
    return basis


_BASIS = _basis()


def perceptual_hash(picture: Image.Image) -> str:
    """The hash of an upright picture as 16 lower-case hex digits; a blank picture's is all zeros.

    Args:
        picture: RGB or grey, of any size; from 64 pixels a side on, the size makes little difference.
    """
    grey = shrunk(picture).convert("L").resize((_SAMPLES, _SAMPLES), Image.Resampling.BILINEAR)
    values = numpy.asarray(grey).astype(numpy.int64)
    coefficients: NDArray[numpy.int64] = (_BASIS @ values @ _BASIS.T).ravel()
    # Twice the median; numpy's own takes longer than all the rest.
    middle = numpy.sort(coefficients)[coefficients.size // 2 - 1 : coefficients.size // 2 + 1].sum()
    return numpy.packbits(2 * coefficients > middle).tobytes().hex()


def shrunk(picture: Image.Image) -> Image.Image:
    """The picture at 1/8, 1/4 or 1/2, as a JPEG decoder shrinks: by means of squares, and not below what is needed."""
    factor = shrink_factor(picture.size)
    return picture.reduce(factor) if factor > 1 else picture


def shrink_factor(size: tuple[int, int]) -> int:
    """The largest of 8, 4, 2 and 1 that leaves both sides long enough."""
    return next((factor for factor in (8, 4, 2) if min(size) // factor >= SIDE_PIXELS_MIN), 1)
