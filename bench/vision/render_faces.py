"""Composites with faces of known size and place: single ones, tiny ones, crowds, and pictures without any.

Runs in the bench environment. The faces are those of two public domain photos and of scikit-image's small grey ones.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2  # type: ignore[import-not-found]
import numpy as np
from PIL import Image

from bench.images import PHOTOS
from bench.vision import paper
from bench.vision.samples import Box, FaceSample

# Photo, and its face as left, top, width, height in pixels, from brow to chin and cheek to cheek.
_FACES = (("astronaut.jpg", (177.0, 74.0, 98.0, 116.0)), ("grace_hopper.jpg", (170.0, 122.0, 188.0, 212.0)))
_HEAD = 1.9  # what is pasted around a face, in sizes of the face
_GREY_FACES = 100  # the first hundred of skimage's lfw_subset are faces, cut tight at 25 x 25 pixels
_GREY_MAX_PX = 26
_GREY_BOX: Box = (2.0, 0.0, 21.0, 25.0)
_PLACES_TRIED = 60


@cache
def _heads() -> list[tuple[Any, Box]]:
    heads = []
    for name, (left, top, width, height) in _FACES:
        photo = np.asarray(Image.open(PHOTOS / name).convert("RGB"))
        side = _HEAD * max(width, height)
        x, y = (round(max(0.0, middle - side / 2)) for middle in (left + width / 2, top + height / 2))
        part = photo[y : y + round(side), x : x + round(side)]
        heads.append((part, (left - x, top - y, width, height)))
    return heads


@cache
def _grey_heads() -> list[tuple[Any, Box]]:
    import skimage  # type: ignore[import-not-found]

    found = np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")[:_GREY_FACES]
    return [(np.repeat((face * 255).astype(np.uint8)[..., None], 3, axis=2), _GREY_BOX) for face in found]


def render(folder: Path, seed: int) -> list[FaceSample]:
    """All subsets as files in ``folder``; the same seed gives the same samples."""
    plans: dict[str, tuple[int, tuple[tuple[int, int], ...], tuple[int, int], tuple[float, float]]] = {
        # images, sizes, faces in one, heights of a face in pixels
        "single": (14, ((640, 480), (1024, 768), (1280, 960)), (1, 2), (60, 330)),
        "tiny": (14, ((1280, 960), (1920, 1280), (3000, 2000)), (3, 8), (10, 26)),
        "crowd": (8, ((1280, 853), (1920, 1280)), (40, 90), (14, 70)),
        "none": (14, ((640, 480), (1280, 960)), (0, 0), (0, 0)),
    }
    samples = []
    for subset, (count, sizes, faces, heights) in plans.items():
        for number in range(count):
            rng = random.Random(f"{seed} faces {subset} {number}")
            image, boxes = _composite(rng, rng.choice(sizes), rng.randint(*faces), heights)
            path = folder / f"faces-{subset}-{number}.jpg"
            path.write_bytes(paper.jpeg(rng, image, quality_min=70))
            samples.append(FaceSample(str(path), subset, boxes))
    return samples


def _composite(
    rng: random.Random, size: tuple[int, int], count: int, heights: tuple[float, float]
) -> tuple[Image.Image, list[Box]]:
    picture = np.asarray(paper.background(rng, *size)).astype(np.float32)
    boxes: list[Box] = []
    for _ in range(count):
        # As many of each magnitude: small ones are what is hard.
        height = float(np.exp(rng.uniform(*np.log(heights))))
        head, mask, box = _head(rng, height)
        placed = _free_place(rng, picture.shape, mask.shape, box, boxes)
        if placed is None:
            continue
        x, y = placed
        under = picture[y : y + mask.shape[0], x : x + mask.shape[1]]
        under += mask[..., None] * (head - under)
        boxes.append((x + box[0], y + box[1], box[2], box[3]))
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    return paper.worn(rng, image, blur_px=0.7, noise=5), boxes


def _head(rng: random.Random, height: float) -> tuple[Any, Any, Box]:
    """A head whose face is ``height`` pixels high: float32 [h,w,3], soft mask [h,w], the face in it."""
    grey = height <= _GREY_MAX_PX and rng.random() < 0.5
    head, (left, top, wide, high) = rng.choice(_grey_heads() if grey else _heads())
    scale = height / high
    size = max(4, round(head.shape[1] * scale)), max(4, round(head.shape[0] * scale))
    small = cv2.resize(head, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    box = (left * scale, top * scale, wide * scale, high * scale)
    if rng.random() < 0.5:
        small, box = small[:, ::-1], (size[0] - box[0] - box[2], *box[1:])
    # Turned about its middle, so that the upright box stays true enough.
    middle = box[0] + box[2] / 2, box[1] + box[3] / 2
    turn = cv2.getRotationMatrix2D(middle, rng.uniform(-12, 12), 1)
    turned = cv2.warpAffine(small, turn, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    lit = (turned - 128) * rng.uniform(0.7, 1.1) + 128 + rng.uniform(-30, 30)
    y, x = np.mgrid[: size[1], : size[0]]
    distance = np.hypot((x - (size[0] - 1) / 2) / (size[0] / 2), (y - (size[1] - 1) / 2) / (size[1] / 2))
    return lit, np.clip((1.05 - distance) / 0.15, 0, 1).astype(np.float32), box


def _free_place(
    rng: random.Random, picture: Sequence[int], head: Sequence[int], box: Box, boxes: Sequence[Box]
) -> tuple[int, int] | None:
    """Where a head fits whole without its face touching another head's, or None."""
    if head[0] >= picture[0] or head[1] >= picture[1]:
        return None
    for _ in range(_PLACES_TRIED):
        x, y = rng.randrange(picture[1] - head[1]), rng.randrange(picture[0] - head[0])
        if all(
            x + head[1] < left - wide / 2
            or left + 1.5 * wide < x
            or y + head[0] < top - high / 2
            or top + 1.5 * high < y
            for left, top, wide, high in boxes
        ):
            return x, y
    return None
