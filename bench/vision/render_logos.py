"""Photos with marks of known name and place: brands of the gallery, brands that nobody knows, and no marks at all.

Runs in the bench environment. The photos, the transforms' seed and the marks of ``unseen`` had no part in training.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cv2  # type: ignore[import-not-found]
import numpy as np
from PIL import Image

from bench.images import PHOTOS
from bench.vision.samples import LogoSample
from models.train_logos import composites

_SIZES = ((640, 480), (800, 600), (600, 800), (1024, 768))
_LONGS_PX = (40.0, 320.0)  # longer sides of marks
# Pictures of each subset, beside a fifth of those with marks, which the renderer leaves empty.
_PLAN = {"known": 44, "unseen": 44, "strangers": 24, "none": 28}
_JPEG_QUALITY = 90
_SEED_STEP = 7919  # keeps the draws of this renderer apart from those of training at any seed


@cache
def _photos() -> list[Any]:
    import skimage  # type: ignore[import-not-found]

    data = Path(skimage.__file__).parent / "data"
    files = sorted(PHOTOS.glob("*.jpg"))
    files += [data / name for name in ("motorcycle_left.png", "brick.png", "grass.png", "gravel.png", "ihc.png")]
    return [np.asarray(Image.open(path).convert("RGB")) for path in files]


def render(folder: Path, seed: int, icons: Path) -> list[LogoSample]:
    """All subsets as files in ``folder``; the same seed gives the same samples."""
    every = composites.marks(icons)
    strangers = [mark for mark in every if composites.is_stranger(mark.name)]
    unseen = [mark for mark in every if composites.is_unseen(mark.name) and not composites.is_stranger(mark.name)]
    known = [mark for mark in every if not composites.is_unseen(mark.name)]
    of = {"known": known, "unseen": unseen, "strangers": strangers, "none": []}
    samples = []
    for number, (subset, count) in enumerate(_PLAN.items()):
        rng = np.random.default_rng(_SEED_STEP * (seed + 1) + number)
        samples += [_sample(folder / f"logos_{subset}_{index}.jpg", subset, of[subset], rng) for index in range(count)]
    return samples


def _sample(path: Path, subset: str, marks: list[composites.Mark], rng: Any) -> LogoSample:
    size = _SIZES[int(rng.integers(len(_SIZES)))]
    if marks:
        image, placed = composites.picture([mark.mask for mark in marks], _photos(), size, _LONGS_PX, rng)
    else:
        image, placed = composites.degrade(composites.background(_photos(), *size, rng), rng), []
    cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    quads = [[(float(x), float(y)) for x, y in quad] for _, quad in placed]
    return LogoSample(str(path), subset, [marks[index].name for index, _ in placed], quads, subset != "strangers")
