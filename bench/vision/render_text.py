"""Rendered text with known words: documents, small print, scenes, turned pages, large scans and long screenshots.

Runs in the bench environment.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2  # type: ignore[import-not-found]
import numpy as np
from PIL import Image, ImageDraw

from bench.vision import paper
from bench.vision.samples import TextSample

Made = tuple[Image.Image, list[str]]
_PAPERS = ("#ffffff", "#fdf8ec", "#eeeeee", "#fffbe0", "#1d2430")
_PLACES_TRIED = 40
# Images of each subset; the last three cost seconds each.
_COUNTS = {"documents": 12, "small": 6, "scene": 48, "turned": 6, "large": 1, "tall": 1}


def render(folder: Path, seed: int) -> list[TextSample]:
    """All subsets as files in ``folder``; the same seed gives the same samples."""
    makers: dict[str, Callable[[random.Random], Made]] = {
        "documents": document,
        "small": small_print,
        "scene": scene,
        "turned": turned,
        "large": large_scan,
        "tall": screenshot,
    }
    samples = []
    for subset, count in _COUNTS.items():
        for number in range(count):
            rng = random.Random(f"{seed} {subset} {number}")
            image, lines = makers[subset](rng)
            path = folder / f"{subset}-{number}.jpg"
            path.write_bytes(paper.jpeg(rng, image))
            samples.append(TextSample(str(path), subset, lines))
    return samples


def document(rng: random.Random) -> Made:
    """A page of running text with a heading, straight or a little crooked, as a scanner or a phone gives it."""
    width = rng.choice((800, 1000, 1240, 1500))
    size = max(15, round(width * rng.uniform(0.016, 0.026)))
    page, lines = _page(rng, width, round(width * 1.41), size, lines_max=rng.randint(12, 32))
    crooked = page.rotate(rng.uniform(-1.5, 1.5), Image.Resampling.BICUBIC, fillcolor=page.getpixel((0, 0)))
    return paper.worn(rng, crooked, blur_px=0.6, noise=6), lines


def small_print(rng: random.Random) -> Made:
    """Letters of 10 to 13 pixels on a wide page: a receipt's end, a spreadsheet, a web page."""
    page, lines = _page(rng, rng.choice((1100, 1400)), 900, rng.randint(10, 13), lines_max=14)
    return paper.worn(rng, page, blur_px=0.3, noise=3), lines


def turned(rng: random.Random) -> Made:
    """A document on its side or upside down."""
    page, lines = _page(rng, 800, 700, 24, lines_max=8)
    return page.rotate(rng.choice((90, 180, 270)), expand=True), lines


def large_scan(rng: random.Random) -> Made:
    """A scan of 5000 x 7000 pixels (600 dots an inch) whose letters vanish when it is shrunk to one detector input."""
    return _page(rng, 5000, 7000, 74, lines_max=20, spread=True)


def screenshot(rng: random.Random) -> Made:
    """A strip of 790 x 36,861 pixels, a shop's page in one picture."""
    return _page(rng, 790, 36_861, 26, lines_max=50, spread=True)


def _page(rng: random.Random, width: int, height: int, size: int, *, lines_max: int, spread: bool = False) -> Made:
    """Plain paper with one column of at most ``lines_max`` lines: close together, or ``spread`` over its height."""
    background = rng.choice(_PAPERS)
    ink = "#f2f2f2" if background == _PAPERS[-1] else rng.choice(("#000000", "#222222", "#1a2a5a"))
    image = Image.new("RGB", (width, height), background)
    pen = ImageDraw.Draw(image)
    margin = round(width * 0.07)
    heading, body = paper.font(rng, round(size * 1.8), sign=True), paper.font(rng, size)
    gap = max(2.6 * size, (height - 2 * margin) / lines_max) if spread else rng.uniform(1.5, 1.9) * size
    lines: list[str] = []
    y = float(margin)
    while y < height - margin - size and len(lines) < lines_max:
        face = body if lines else heading
        room = (width - 2 * margin) * (1.0 if rng.random() < 0.7 else rng.uniform(0.2, 0.9))
        line = _fill(rng, pen, face, room)
        pen.text((margin, y), line, ink, face)
        lines.append(line)
        y += gap if len(lines) > 1 else max(gap, 2.6 * size)
    return image, lines


def _fill(rng: random.Random, pen: ImageDraw.ImageDraw, face: Any, room_px: float) -> str:
    line = paper.word(rng)
    while pen.textlength(longer := f"{line} {paper.word(rng)}", font=face) < room_px:
        line = longer
    return line


def scene(rng: random.Random) -> Made:
    """Signs over a photo or texture: any colour, turned, in perspective, out of focus, noisy."""
    width, height = rng.choice(((640, 480), (800, 600), (1024, 768), (1280, 720), (1600, 1200), (600, 800)))
    picture = np.asarray(paper.background(rng, width, height)).astype(np.float32)
    taken = np.zeros((height, width), bool)
    lines: list[str] = []
    for _ in range(rng.randint(2, 6)):
        text = paper.sign(rng)
        size = round(rng.uniform(0.03, 0.13) * height)
        mask = _placed(rng, _lettering(rng, text, max(size, 18)), taken)
        if mask is None:
            continue
        taken |= cv2.dilate((mask > 0).astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
        color = _readable(rng, picture[mask > 0.5].mean(axis=0))
        picture += mask[..., None] * (color - picture)
        lines.append(text)
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    return paper.worn(rng, image, blur_px=1.2, noise=12), lines


def _lettering(rng: random.Random, text: str, size: int) -> Any:
    """Coverage 0..1 of the text, float32 [h,w], turned by up to 25 degrees and seen from a side."""
    face = paper.font(rng, size, sign=True)
    left, top, right, bottom = face.getbbox(text)
    sheet = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
    ImageDraw.Draw(sheet).text((4 - left, 4 - top), text, 255, face)
    wide, high = sheet.size
    corners = np.array([[0, 0], [wide, 0], [wide, high], [0, high]], np.float32)
    shift = np.array([[rng.uniform(0, 0.04) * wide, rng.uniform(-0.2, 0.2) * high] for _ in range(4)], np.float32)
    angle = np.deg2rad(rng.gauss(0, 9) if rng.random() < 0.7 else rng.uniform(-25, 25))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    target = (corners + shift) @ turn.T
    target -= target.min(axis=0)
    size_out = np.ceil(target.max(axis=0)).astype(int)
    transform = cv2.getPerspectiveTransform(corners, target.astype(np.float32))
    flat = cv2.warpPerspective(np.asarray(sheet), transform, tuple(size_out.tolist()), flags=cv2.INTER_AREA)
    return flat.astype(np.float32) / 255


def _placed(rng: random.Random, letters: Any, taken: Any) -> Any:
    """The lettering somewhere free on an empty sheet of the size of ``taken``, or None where there is no room."""
    high, wide = letters.shape
    height, width = taken.shape
    if high >= height - 8 or wide >= width - 8:
        return None
    for _ in range(_PLACES_TRIED):
        y, x = rng.randrange(4, height - high - 3), rng.randrange(4, width - wide - 3)
        if not taken[y : y + high, x : x + wide].any():
            sheet = np.zeros(taken.shape, np.float32)
            sheet[y : y + high, x : x + wide] = letters
            return sheet
    return None


def _readable(rng: random.Random, behind: Any) -> Any:
    """A colour that a person can tell from the one behind: at least 80 grey levels lighter or darker."""
    grey = np.array([0.299, 0.587, 0.114])
    while True:
        color = np.array([rng.randrange(256) for _ in range(3)], np.float32)
        if abs(float((color - behind) @ grey)) >= 80:
            return color
