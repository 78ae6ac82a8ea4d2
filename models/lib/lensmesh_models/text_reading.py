"""From quads to the text reader's input, and from its best characters to strings (CTC, Graves et al. 2006)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lensmesh_models.images import Pixels

HEIGHT_PX = 48
_WIDTH_MIN_PX, _WIDTH_STEP_PX = 160, 32
# A longer line is cut at gaps between words: the reader was taught lines, and squeezing loses letters.
_WIDTH_MAX_PX = 2400
_PIECES_MAX = 64
_CUT_WITHIN = 0.25  # the share of a piece, at its end, in which the cut may lie
_GAP_HEIGHTS = 0.2  # a gap between words, in heights of the line
_BATCH_MAX = 6
# Padding costs as much as text: only lines within this factor of each other's width share a batch.
_WIDTH_RATIO_MAX = 1.15
# OpenCV warps no more than 32,767 pixels a side; half leaves room for a slanted line's bounds.
_WARPED_MAX_PX = 16_000
_GREY = 127  # what the network sees as zero, its padding in training
_BLANK = 0
# The reader drops spaces in tight or decorative lettering; this much belief in one between two letters brings it back.
# Where it sees several by itself, in running text, a faint one is rather an uneven gap inside a word.
_SPACE_MIN, _SPACE_MIN_RUNNING = 0.15, 0.5
_RUNNING_SPACES = 3


@dataclass(frozen=True)
class Reading:
    """What one line says, and the mean confidence 0..1 of its characters."""

    text: str
    confidence: float


NOTHING = Reading("", 0.0)


def crop(pixels: Pixels, corners: NDArray[np.float32], turns: int) -> Pixels:
    """The quad as an image, uint8 [h,w,3], turned by ``turns`` x 90 degrees against the clock."""
    edges = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    width, height = (max(1, round(float(max(edges[side], edges[side + 2])))) for side in (0, 1))
    # Cut first: warping from a 64-megapixel picture would exceed what OpenCV remaps.
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 2, 0)
    right, bottom = np.ceil(corners.max(axis=0)).astype(int) + 3
    part = pixels[top:bottom, left:right]
    # Large letters are shrunk on the way: the reader wants 48 pixels, twice as many lose nothing.
    shrink = min(1.0, 2 * HEIGHT_PX / min(width, height), _WARPED_MAX_PX / max(width, height))
    if shrink < 1:
        part = cv2.resize(part, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    transform = cv2.getPerspectiveTransform(((corners - [left, top]) * shrink).astype(np.float32), target)
    flat = cv2.warpPerspective(part, transform, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.rot90(flat, turns)


def line_pieces(image: Pixels) -> list[Pixels]:
    """A crop as uint8 [48,w,3] with w at most 2400; a longer line comes in pieces, cut where least is written."""
    height, width = image.shape[:2]
    wanted = min(_WIDTH_MAX_PX * _PIECES_MAX, max(1, int(np.ceil(HEIGHT_PX * width / height))))
    if wanted <= _WIDTH_MAX_PX:
        return [np.asarray(cv2.resize(image, (wanted, HEIGHT_PX)), np.uint8)]
    columns = _WIDTH_MAX_PX * width // wanted
    pieces, start = [], 0
    while width - start > columns:
        end = start + _quiet_column(image[:, start : start + columns])
        pieces.append(_resized(image[:, start:end], wanted / width))
        start = end
    pieces.append(_resized(image[:, start:], wanted / width))
    return pieces


def _resized(part: Pixels, factor: float) -> Pixels:
    width = max(1, round(part.shape[1] * factor))
    return np.asarray(cv2.resize(part, (min(width, _WIDTH_MAX_PX), HEIGHT_PX)), np.uint8)


def _quiet_column(part: Pixels) -> int:
    """The column near the end of ``part`` around which grey levels vary least: between two words."""
    height, width = part.shape[:2]
    first = round(width * (1 - _CUT_WITHIN))
    contrast = part[:, first:].astype(np.float32).mean(axis=2).std(axis=0)
    gap = max(1, round(_GAP_HEIGHTS * height))
    smooth = np.convolve(contrast, np.ones(gap) / gap, mode="valid")
    return int(first + smooth.argmin() + gap // 2) or 1


def batches(widths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of lines of like width, narrow ones first, at most six together."""
    batch: list[int] = []
    for index in sorted(range(len(widths)), key=lambda index: widths[index]):
        padded = max(widths[index], _WIDTH_MIN_PX)
        if batch and (len(batch) == _BATCH_MAX or padded > _WIDTH_RATIO_MAX * max(widths[batch[0]], _WIDTH_MIN_PX)):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def reader_input(lines: Sequence[Pixels]) -> Pixels:
    """One uint8 [N,48,W,3] of lines of height 48, padded on the right with what the network sees as zero."""
    widest = max(_WIDTH_MIN_PX, *(line.shape[1] for line in lines))
    width = -(-widest // _WIDTH_STEP_PX) * _WIDTH_STEP_PX
    batch = np.full((len(lines), HEIGHT_PX, width, 3), _GREY, np.uint8)
    for row, line in enumerate(lines):
        batch[row, :, : line.shape[1]] = line
    return batch


def collapse(index: NDArray[Any], probability: NDArray[Any], space: NDArray[Any], alphabet: Sequence[str]) -> Reading:
    """One line from the best character [T], its probability [T] and that of a space [T] at each step."""
    fresh = np.concatenate([[True], index[1:] != index[:-1]]) & (index != _BLANK)
    steps = np.flatnonzero(fresh)
    if not steps.size:
        return NOTHING
    spaces = sum(alphabet[step] == " " for step in index[steps])
    enough = _SPACE_MIN_RUNNING if spaces >= _RUNNING_SPACES else _SPACE_MIN
    text = alphabet[index[steps[0]]]
    for before, step in itertools.pairwise(steps):
        letters = text[-1] != " " and alphabet[index[step]] != " "
        if letters and space[before : step + 1].max() >= enough:
            text += " "
        text += alphabet[index[step]]
    return Reading(text, float(probability[steps].mean()))


def joined(readings: Sequence[Reading]) -> Reading:
    """The pieces of one line as one: texts with a space between, confidence by length."""
    lengths = [len(reading.text) for reading in readings]
    if not any(lengths):
        return NOTHING
    confidence = sum(reading.confidence * length for reading, length in zip(readings, lengths, strict=True))
    return Reading(" ".join(reading.text for reading in readings if reading.text), confidence / sum(lengths))
