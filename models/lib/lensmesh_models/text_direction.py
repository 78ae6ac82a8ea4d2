"""Which way up each line is read: decided on a few lines of a page, and line by line where the reader doubts.

No classifier: turned the wrong way, the reader itself is unsure, which tells more and costs nothing where it is sure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lensmesh_models.text_detection import Quad
from lensmesh_models.text_reading import Reading

# A quad this much higher than wide holds a line that runs up or down.
_TALL_RATIO = 1.5
# The longest lines of a page say which way up it lies; read this surely, the other way need not be tried.
_SAMPLE_LINES, _SURE = 3, 0.85
# A single line less certain is read the other way as well, the longest first, at most so many.
_DOUBT, _SECOND_TRIES_MAX = 0.75, 8

# Reads quads turned by so many quarter turns against the clock.
Read = Callable[[Sequence[tuple[Quad, int]]], list[Reading]]


def read_all(quads: Sequence[Quad], read: Read) -> list[tuple[Reading, int]]:
    """What each quad says and the quarter turns (0 to 3, against the clock) that made it upright."""
    answers: dict[int, tuple[Reading, int]] = {}
    by_length = sorted(range(len(quads)), key=lambda index: -max(quads[index].sides))
    for turns in (0, 1):
        members = [index for index in by_length if _is_tall(quads[index]) == bool(turns)]
        answers |= _read_group(members, turns, lambda wanted: read([(quads[index], way) for index, way in wanted]))
    return [answers[index] for index in range(len(quads))]


def along_writing(quad: Quad, turns: int) -> NDArray[np.float32]:
    """The corners [4,2] beginning at the top left of the writing."""
    return np.roll(quad.corners, -turns, axis=0)


def _is_tall(quad: Quad) -> bool:
    width, height = quad.sides
    return height >= _TALL_RATIO * width


def _read_group(
    members: Sequence[int], turns: int, read: Callable[[Sequence[tuple[int, int]]], list[Reading]]
) -> dict[int, tuple[Reading, int]]:
    """Reads lines of one axis, longest first: all the way that the first ones say, doubtful ones the other way too."""
    answers: dict[int, tuple[Reading, int]] = {}

    def look(some: Sequence[int], way: int) -> float:
        """Keeps the better readings; returns the mean confidence this way."""
        readings = read([(index, way) for index in some])
        for index, reading in zip(some, readings, strict=True):
            if index not in answers or reading.confidence > answers[index][0].confidence:
                answers[index] = (reading, way)
        return sum(reading.confidence for reading in readings) / max(len(readings), 1)

    sample, rest = members[:_SAMPLE_LINES], members[_SAMPLE_LINES:]
    way = turns
    sure = look(sample, way)
    if sure < _SURE and look(sample, way + 2) > sure:
        way = turns + 2
    look(rest, way)
    doubtful = [index for index in rest if answers[index][0].confidence < _DOUBT]
    look(doubtful[:_SECOND_TRIES_MAX], (way + 2) % 4)
    return answers
