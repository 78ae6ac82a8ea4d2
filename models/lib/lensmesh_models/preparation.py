"""Image bytes to the normalised tensor that a vision transformer was trained on, by its own preprocessor_config.json.

The steps and their order are those of Hugging Face's image processors: resize, rescale, normalise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lensmesh_models.images import decode

# A JPEG is decoded at no less than twice the wanted side: what Pillow then averages is as good as from the whole.
_DRAFT_FACTOR = 2


@dataclass(frozen=True)
class Preparation:
    """The side lengths in pixels, Pillow's filter, and ``value * scale``, then ``(value - mean) / deviation``."""

    width: int
    height: int
    resample: Image.Resampling
    scale: float
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def read(cls, path: Path) -> Preparation:
        """From a preprocessor_config.json. Raises ValueError for steps that are not known here."""
        config = json.loads(path.read_text())
        size = config["size"]
        if not isinstance(size, dict) or set(size) != {"height", "width"} or config.get("do_center_crop"):
            raise ValueError(f"{path.name}: the size must be height and width without a crop, not {size}")
        skipped = [step for step in ("do_resize", "do_rescale", "do_normalize") if not config.get(step, True)]
        if skipped:
            raise ValueError(f"{path.name} leaves out {', '.join(skipped)}")
        return cls(
            width=int(size["width"]),
            height=int(size["height"]),
            resample=Image.Resampling(config["resample"]),
            scale=float(config.get("rescale_factor", 1 / 255)),
            mean=np.array(config["image_mean"], np.float32),
            deviation=np.array(config["image_std"], np.float32),
        )

    def apply(self, data: bytes) -> NDArray[np.float32]:
        """float32 [3,height,width] of an encoded image, the aspect ratio given up. Raises BadImage."""
        picture = decode(data, side_px=_DRAFT_FACTOR * max(self.width, self.height))
        resized = picture.image.resize((self.width, self.height), self.resample)
        values = np.asarray(resized, np.float32) * np.float32(self.scale)
        return np.ascontiguousarray(((values - self.mean) / self.deviation).transpose(2, 0, 1))
