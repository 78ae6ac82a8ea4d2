"""Dominant colours of an image, with plain English names."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from PIL import Image

from lensmesh_models.images import Pixels

_CLUSTERS = 8
_COLORS_MAX = 5
_SHARE_MIN = 0.04
_NAMED = {
    "black": "000000", "white": "ffffff", "gray": "808080", "silver": "c0c0c0", "charcoal": "363636",
    "red": "d0202a", "maroon": "7a1420", "pink": "f7a8bd", "magenta": "c8179e", "orange": "f08020",
    "brown": "7a4a24", "tan": "cfae85", "beige": "ede4d0", "gold": "d4a520", "yellow": "f5e12a",
    "olive": "76782c", "lime": "8edb2c", "green": "2e9440", "dark green": "153f22", "teal": "14807e",
    "cyan": "2ed3e0", "sky blue": "86c2ec", "blue": "2a58cf", "navy": "16224f", "purple": "70309c",
    "lavender": "c4b4e6",
}  # fmt: skip


def _lab(rgb: Pixels) -> Any:
    """CIE L*a*b* of uint8 [N,3], float32 [N,3], where distances follow the eye."""
    return cv2.cvtColor((rgb[None] / 255).astype(np.float32), cv2.COLOR_RGB2LAB)[0]


_NAMES = list(_NAMED)
_REFERENCE = _lab(np.array([list(bytes.fromhex(value)) for value in _NAMED.values()], np.uint8))


def dominant(pixels: Pixels) -> list[dict[str, Any]]:
    """Up to five colours of uint8 [h,w,3], largest first: name, hex (#rrggbb), share of the image in 0..1."""
    small = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BOX)
    quantized = small.quantize(_CLUSTERS, method=Image.Quantize.MEDIANCUT)
    palette = np.array(quantized.getpalette(), np.uint8).reshape(-1, 3)
    counts = np.bincount(np.asarray(quantized).reshape(-1), minlength=len(palette))[: len(palette)]
    palette, counts = palette[counts > 0], counts[counts > 0]
    nearest = np.linalg.norm(_lab(palette)[:, None] - _REFERENCE[None], axis=2).argmin(axis=1)
    found = []
    for name_index in np.unique(nearest):
        own = nearest == name_index
        mean = np.average(palette[own], axis=0, weights=counts[own]).round().astype(int)
        share = float(counts[own].sum() / counts.sum())
        found.append({"name": _NAMES[name_index], "hex": "#{:02x}{:02x}{:02x}".format(*mean), "share": round(share, 4)})
    found.sort(key=lambda color: -color["share"])
    return [color for color in found if color["share"] >= _SHARE_MIN][:_COLORS_MAX]
