"""Draws marks into photos: any colours, plates, perspective, light, occlusion, blur, noise and JPEG.

Used to train the networks and, with other seeds, photos and marks, to measure them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.convert.icons import STRANGERS, UNSEEN, bucket, collected, mask, tight

Pixels = NDArray[np.uint8]
Quad = NDArray[np.float32]  # [4,2], x and y of the corners from the top left clockwise
MASK_SIDE = 192  # pixels of a drawn mark before it is warped
_CONTRAST_MIN = 55.0  # grey levels or colour distance between a mark and its ground
_PLATE = 0.4  # share of marks that stand on a plate of one colour
_OCCLUDED = 0.15
_WORDS = ("SALE", "open", "Exit 24", "the quick", "No. 7", "2026", "coffee", "www", "STOP", "to let", "A", "kg")
_MARKS_MAX = 5
_ENLARGED = 0.6  # pixels of a photo a pixel of the picture, at least
_TURN_DEGREES = 9.0  # standard deviation
_TURN_DEGREES_MAX = 30.0
_SHIFT = 0.09  # perspective: corners move by at most this share of the mark's sides


@dataclass(frozen=True)
class Mark:
    """A brand's mark: tight mask uint8 [h,w], longer side at most MASK_SIDE."""

    name: str
    mask: Pixels


def is_stranger(name: str) -> bool:
    """Whether the brand is left out of the gallery, to measure what is done with marks that nobody knows."""
    return bucket(name) < STRANGERS


def is_unseen(name: str) -> bool:
    """Whether the networks never saw the brand."""
    return bucket(name) < UNSEEN


def marks(icons: Path) -> list[Mark]:
    """All marks of simpleicons' ``icons.py``."""
    return [Mark(icon.name, tight(mask(icon.path, MASK_SIDE))) for icon in collected(icons.read_text("utf-8"))]


def box_of(quad: Quad) -> NDArray[np.float32]:
    """Left, top, right, bottom around a quad."""
    return np.concatenate([quad.min(axis=0), quad.max(axis=0)])


def background(photos: list[Pixels], width: int, height: int, rng: np.random.Generator) -> Pixels:
    """A window [height,width,3] of a photo at a random scale, mirrored half of the time."""
    photo = photos[rng.integers(len(photos))]
    most = min(photo.shape[0] / height, photo.shape[1] / width)
    scale = float(np.exp(rng.uniform(np.log(min(_ENLARGED, most)), np.log(most))))
    cut_w, cut_h = min(int(width * scale), photo.shape[1]), min(int(height * scale), photo.shape[0])
    cut_w, cut_h = max(cut_w, 8), max(cut_h, 8)
    left, top = rng.integers(photo.shape[1] - cut_w + 1), rng.integers(photo.shape[0] - cut_h + 1)
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    window = cv2.resize(photo[top : top + cut_h, left : left + cut_w], (width, height), interpolation=method)
    return np.ascontiguousarray(window[:, ::-1] if rng.random() < 0.5 else window)


def corners(aspect: float, centre: tuple[float, float], long_px: float, rng: np.random.Generator) -> Quad:
    """Corners of a mark of ``aspect`` = width / height, turned and seen at an angle."""
    width, height = (long_px, long_px / aspect) if aspect >= 1 else (long_px * aspect, long_px)
    stretch = np.exp(rng.normal(0, 0.08))
    half = np.array([width * stretch, height / stretch]) / 2
    quad = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    quad += rng.uniform(-_SHIFT, _SHIFT, (4, 2)) * 2 * half
    angle = np.radians(np.clip(rng.normal(0, _TURN_DEGREES), -_TURN_DEGREES_MAX, _TURN_DEGREES_MAX))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(quad @ turn + centre, np.float32)


def draw(image: Pixels, mask: Pixels, quad: Quad, rng: np.random.Generator) -> None:
    """Draws a mark over ``quad`` into the picture, in place."""
    plate = rng.random() < _PLATE
    margin = rng.uniform(0.08, 0.5) if plate else 0.0
    source = _padded(mask, margin)
    quad = _grown(quad, source.shape[1] / mask.shape[1], source.shape[0] / mask.shape[0])
    left, top = np.floor(quad.min(axis=0)).astype(int) - 2
    right, bottom = np.ceil(quad.max(axis=0)).astype(int) + 3
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, image.shape[1]), min(bottom, image.shape[0])
    if right - left < 3 or bottom - top < 3:
        return
    ground = image[top:bottom, left:right].astype(np.float32)
    to = _homography(source, quad - (left, top))
    size = (right - left, bottom - top)
    ink = _warped(source, to, size)
    around = ground.reshape(-1, 3).mean(axis=0)
    if plate:
        shape = _warped(_plate(source.shape, rng), to, size)
        colour = _colour(rng)
        ground += (colour - ground) * shape * rng.uniform(0.85, 1.0)
        around = colour
    paint = _paint(mask, source, to, size, around, rng)
    painted = ground + (paint - ground) * ink * rng.uniform(0.8, 1.0)
    painted *= _light(size, rng)
    whole = np.maximum(ink, shape) if plate else ink
    image[top:bottom, left:right] = np.clip(ground + (painted - ground) * np.sign(whole), 0, 255).astype(np.uint8)
    if rng.random() < _OCCLUDED:
        _occlude(image, quad, rng)


def _padded(mask: Pixels, margin: float) -> Pixels:
    edge = int(margin * max(mask.shape))
    return np.pad(mask, edge) if edge else mask


def _grown(quad: Quad, factor_x: float, factor_y: float) -> Quad:
    """The quad's plane, over a rectangle wider and higher by the factors."""
    unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    plane = cv2.getPerspectiveTransform(unit, np.ascontiguousarray(quad, np.float32))
    larger = (unit - 0.5) * (factor_x, factor_y) + 0.5
    return np.asarray(cv2.perspectiveTransform(larger[None].astype(np.float32), plane)[0], np.float32)


def _homography(source: Pixels, quad: NDArray[Any]) -> NDArray[np.float64]:
    height, width = source.shape[:2]
    whole = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    return np.asarray(cv2.getPerspectiveTransform(whole, np.ascontiguousarray(quad, np.float32)))


def _warped(source: Pixels, to: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
    """The source seen through ``to``, 0..1 [h,w,1]; shrunk before, so that thin strokes do not alias."""
    corner = np.array([[[0, 0]], [[source.shape[1], 0]]], np.float32)
    start, end = cv2.perspectiveTransform(corner, to)[:, 0]
    factor = float(np.hypot(*(end - start))) / source.shape[1]
    if factor < 0.7:
        smaller = cv2.resize(source, None, fx=factor * 1.2, fy=factor * 1.2, interpolation=cv2.INTER_AREA)
        to = to @ np.diag([source.shape[1] / smaller.shape[1], source.shape[0] / smaller.shape[0], 1.0])
        source = smaller
    return cv2.warpPerspective(source, to, size, flags=cv2.INTER_LINEAR)[..., None].astype(np.float32) / 255


def _plate(shape: tuple[int, ...], rng: np.random.Generator) -> Pixels:
    plate = np.zeros(shape[:2], np.uint8)
    height, width = plate.shape
    if rng.random() < 0.25:
        cv2.ellipse(plate, (width // 2, height // 2), (width // 2, height // 2), 0, 0, 360, 255, -1)
        return plate
    radius = int(rng.choice([0.0, rng.uniform(0.05, 0.3)]) * min(width, height))
    plate[radius : height - radius, :] = 255
    plate[:, radius : width - radius] = 255
    for x in (radius, width - radius - 1):
        for y in (radius, height - radius - 1):
            cv2.circle(plate, (x, y), radius, 255, -1)
    return plate


def _colour(rng: np.random.Generator) -> NDArray[np.float32]:
    """White, black or any colour."""
    kind = rng.random()
    if kind < 0.2:
        return np.full(3, rng.uniform(225, 255), np.float32)
    if kind < 0.35:
        return np.full(3, rng.uniform(0, 40), np.float32)
    return rng.uniform(0, 255, 3).astype(np.float32)


def _paint(
    mask: Pixels,
    source: Pixels,
    to: NDArray[np.float64],
    size: tuple[int, int],
    around: NDArray[np.float32],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """One colour that stands out from what is around, shaded at times, or two over the mark's halves."""
    first = _standing_out(around, rng)
    if rng.random() < 0.8:
        return first
    second = _standing_out(around, rng)
    height, width = source.shape[:2]
    ramp = np.linspace(0, 255, width if rng.random() < 0.5 else height)
    if rng.random() < 0.5:
        ramp = np.where(ramp < rng.uniform(80, 175), 0, 255)
    flat = np.tile(ramp, (height, 1)) if len(ramp) == width else np.tile(ramp[:, None], (1, width))
    share = _warped(flat.astype(np.uint8), to, size)
    return first * (1 - share) + second * share


def _standing_out(around: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    for _ in range(8):
        colour = _colour(rng)
        if np.linalg.norm(colour - around) > _CONTRAST_MIN * np.sqrt(3):
            return colour
    return np.full(3, 255.0 if around.mean() < 128 else 0.0, np.float32)


def _light(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Brightness that changes evenly over the picture, about 1."""
    x, y = np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1])
    slope = rng.normal(0, 0.12, 2)
    return (rng.uniform(0.8, 1.1) + slope[0] * x[None] + slope[1] * y[:, None])[..., None].astype(np.float32)


def _occlude(image: Pixels, quad: Quad, rng: np.random.Generator) -> None:
    """Something of one colour or of the picture itself stands before a fifth of the mark at most."""
    low, high = quad.min(axis=0), quad.max(axis=0)
    size = np.maximum((high - low) * rng.uniform(0.15, 0.42, 2), 2).astype(int)
    at = (low + rng.uniform(-0.1, 0.9, 2) * (high - low)).astype(int)
    left, top = np.clip(at, 0, None)
    right, bottom = np.minimum(at + size, (image.shape[1], image.shape[0]))
    if right - left < 2 or bottom - top < 2:
        return
    if rng.random() < 0.5:
        image[top:bottom, left:right] = _colour(rng).astype(np.uint8)
        return
    from_y = rng.integers(image.shape[0] - (bottom - top) + 1)
    from_x = rng.integers(image.shape[1] - (right - left) + 1)
    image[top:bottom, left:right] = image[from_y : from_y + bottom - top, from_x : from_x + right - left].copy()


def degrade(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Blur, noise and JPEG, as a camera and the net leave them."""
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.3))
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(2, 9), image.shape).astype(np.float32)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 96))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def picture(
    masks: list[Pixels],
    pictures: list[Pixels],
    size: tuple[int, int],
    longs: tuple[float, float],
    rng: Any,
    *,
    words: bool = True,
) -> tuple[Pixels, list[tuple[int, Quad]]]:
    """A photo of (width, height) with up to _MARKS_MAX marks, ``longs`` pixels long and apart; a fifth has none.

    Plates without a mark and, where wanted, words stand among them: what looks like a sign is not always a mark.
    """
    width, height = size
    image = background(pictures, width, height, rng)
    placed: list[tuple[int, Quad]] = []
    taken: list[NDArray[Any]] = []
    for _ in range(int(rng.integers(0, 3))):
        _distract(image, rng, words=words)
    for _ in range(0 if rng.random() < 0.2 else int(rng.integers(1, _MARKS_MAX + 1))):
        index = int(rng.integers(len(masks)))
        long_px = float(np.exp(rng.uniform(*np.log(longs))))
        room = long_px * 0.55
        if room * 2 >= min(size):
            continue
        centre = (rng.uniform(room, width - room), rng.uniform(room, height - room))
        quad = corners(masks[index].shape[1] / masks[index].shape[0], centre, long_px, rng)
        box = box_of(quad)
        wide = box + np.array([-1, -1, 1, 1]) * long_px * 0.5
        if any((np.minimum(wide[2:], other[2:]) > np.maximum(wide[:2], other[:2])).all() for other in taken):
            continue
        taken.append(box)
        draw(image, masks[index], quad, rng)
        placed.append((index, quad))
    return degrade(image, rng), placed


def _distract(image: Pixels, rng: Any, *, words: bool) -> None:
    height, width = image.shape[:2]
    at = (int(rng.uniform(0, width * 0.8)), int(rng.uniform(height * 0.1, height)))
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    if rng.random() < 0.5 or not words:
        end = (at[0] + int(rng.uniform(10, width / 3)), at[1] + int(rng.uniform(10, height / 3)))
        cv2.rectangle(image, at, end, colour, -1 if rng.random() < 0.7 else 2)
        return
    text = " ".join(rng.choice(_WORDS, 2))
    cv2.putText(
        image, text, at, int(rng.integers(0, 6)), rng.uniform(0.4, 1.6), colour, int(rng.integers(1, 4)), cv2.LINE_AA
    )
