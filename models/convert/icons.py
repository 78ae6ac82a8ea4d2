"""Reads the marks of an icon collection and fills their outlines: SVG path data to masks, with numpy and OpenCV.

Covers what simpleicons' files hold: one path in a view box of 24 x 24, filled by the nonzero rule (SVG 1.1, 8.3, F.6).
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# Hundredth parts of the brands: those below STRANGERS are left out of the gallery, to measure what is done with marks
# that nobody knows; those below UNSEEN were kept from the networks while they were trained.
STRANGERS, UNSEEN = 5, 20
_ICON = re.compile(r'^    title="((?:[^"\\]|\\.)*)",.*?<path d="([^"]+)"', re.MULTILINE | re.DOTALL)
_TOKEN = re.compile(r"([MmLlHhVvCcSsQqTtAaZz])|([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
_FLAG = re.compile(r"[\s,]*([01])")
_ARGUMENTS = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2, "A": 7, "Z": 0}
_VIEW = 24.0  # units of the view box
_CURVE_POINTS = 16  # a curve of the whole icon's width stays within a quarter of a pixel at 256
_OVERSAMPLING = 4

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Icon:
    """A mark: its brand's name and SVG path data in units of a 24 x 24 view box."""

    name: str
    path: str


def collected(source: str) -> list[Icon]:
    """The icons in the text of simpleicons' ``icons.py``, which is read as text and never run."""
    return [Icon(re.sub(r"\\(.)", r"\1", title), path) for title, path in _ICON.findall(source)]


def bucket(name: str) -> int:
    """0..99, the same for ever: see STRANGERS and UNSEEN."""
    return zlib.crc32(name.encode()) % 100


def tight(drawing: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A mask without its empty edges."""
    rows, columns = np.flatnonzero(drawing.any(axis=1)), np.flatnonzero(drawing.any(axis=0))
    return np.ascontiguousarray(drawing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def mask(path: str, side: int) -> NDArray[np.uint8]:
    """uint8 [side,side], 255 inside the outline, antialiased. Raises ValueError for data that is no path."""
    large = side * _OVERSAMPLING
    winding = np.zeros((large, large), np.int8)
    for points in outlines(path):
        x, y = points.T
        turns = np.sign(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
        corners = points * (large / _VIEW)
        low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, large)
        high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, large)
        part = np.zeros(tuple((high - low)[::-1]), np.uint8)
        if part.size:
            cv2.fillPoly(part, [np.round((corners - low) * 16).astype(np.int32)], 1, shift=4)
            winding[low[1] : high[1], low[0] : high[0]] += part.astype(np.int8) * np.int8(turns)
    filled = np.where(winding != 0, 255, 0).astype(np.uint8)
    return np.asarray(cv2.resize(filled, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def outlines(path: str) -> list[Points]:
    """The closed polygons float64 [N,2] (x, y) of a path, in its own units. Raises ValueError."""
    pen = _Pen()
    for command, values in _commands(path):
        pen.draw(command, values)
    return pen.finished()


def _commands(path: str) -> Iterator[tuple[str, list[float]]]:
    position, command = 0, ""
    values: list[float] = []
    while position < len(path):
        # The flags of an arc may stand without a separator: "a1 1 0 01.5.5".
        flag = _FLAG.match(path, position) if command in "Aa" and command and len(values) in (3, 4) else None
        found = flag or _TOKEN.search(path, position)
        if found is None:
            break
        position = found.end()
        if flag is None and found.group(1):
            command, values = found.group(1), []
        elif not command:
            raise ValueError("a path begins with a command")
        else:
            values.append(float(found.group(1) if flag else found.group(2)))
        if len(values) == _ARGUMENTS[command.upper()]:
            yield command, values
            values = []
            # Further pairs after a move are lines; nothing may follow the closing of a path.
            command = {"M": "L", "m": "l"}.get(command, command)


class _Pen:
    """Follows the commands of a path; curves become polygons."""

    def __init__(self) -> None:
        self._done: list[Points] = []
        self._points: list[complex] = []
        self._at, self._control, self._last = 0j, 0j, ""

    def finished(self) -> list[Points]:
        self._close()
        return self._done

    def draw(self, command: str, values: list[float]) -> None:
        kind, base = command.upper(), self._at if command.islower() else 0j
        if kind == "Z":
            self._at = self._points[0] if self._points else self._at
            self._close()
        elif kind == "M":
            self._close()
            self._at = base + complex(*values)
            self._points = [self._at]
        elif kind in "HV":
            fixed = complex(values[0], self._at.imag) if kind == "H" else complex(self._at.real, values[0])
            moved = complex(base.real, 0) if kind == "H" else complex(0, base.imag)
            self._to([fixed + moved])
        elif kind == "A":
            self._to(_arc(self._at, values, base + complex(values[5], values[6])))
        else:
            self._curve(kind, [base + complex(*values[at : at + 2]) for at in range(0, len(values), 2)])
        self._last = kind

    def _curve(self, kind: str, points: list[complex]) -> None:
        family = {"S": "CS", "T": "QT"}.get(kind)
        if family is not None:  # the first control point mirrors the last one of the curve before
            mirrored = 2 * self._at - self._control if self._last and self._last in family else self._at
            points = [mirrored, *points]
        start = self._at
        self._to(_bezier([start, *points]))
        self._control = points[-2] if len(points) > 1 else start

    def _to(self, points: list[complex]) -> None:
        if not self._points:
            self._points = [self._at]
        self._points += points
        self._at = points[-1]

    def _close(self) -> None:
        if len(self._points) > 2:
            self._done.append(np.array([(point.real, point.imag) for point in self._points]))
        self._points = []


def _bezier(points: list[complex]) -> list[complex]:
    """Points on the curve of degree 1 to 3 (de Casteljau), without the first."""
    if len(points) == 2:
        return points[1:]
    level = [np.full(_CURVE_POINTS, point) for point in points]
    at = np.arange(1, _CURVE_POINTS + 1) / _CURVE_POINTS
    while len(level) > 1:
        level = [(1 - at) * first + at * second for first, second in itertools.pairwise(level)]
    return [complex(point) for point in level[0]]


def _arc(start: complex, values: list[float], end: complex) -> list[complex]:
    """Points on an elliptical arc without the first: SVG 1.1, F.6.5 (from end points to centre)."""
    radius_x, radius_y, degrees, large, sweep = abs(values[0]), abs(values[1]), values[2], values[3], values[4]
    if start == end or not radius_x or not radius_y:
        return [end]
    turn = complex(np.exp(1j * np.radians(degrees)))
    half = (start - end) / 2 / turn
    x, y = half.real / radius_x, half.imag / radius_y
    stretch = max(1.0, np.hypot(x, y))  # radii that are too small are enlarged
    radius_x, radius_y = radius_x * stretch, radius_y * stretch
    x, y = x / stretch, y / stretch
    reach = np.sqrt(max(0.0, 1 / max(x * x + y * y, 1e-12) - 1)) * (1 if large != sweep else -1)
    centre_x, centre_y = reach * y, -reach * x
    first, last = np.arctan2(y - centre_y, x - centre_x), np.arctan2(-y - centre_y, -x - centre_x)
    swept = last - first
    if sweep and swept < 0:
        swept += 2 * np.pi
    elif not sweep and swept > 0:
        swept -= 2 * np.pi
    angles = first + swept * np.arange(1, _CURVE_POINTS + 1) / _CURVE_POINTS
    unit = (
        complex(centre_x * radius_x, centre_y * radius_y) + radius_x * np.cos(angles) + 1j * radius_y * np.sin(angles)
    )
    points = (start + end) / 2 + turn * unit
    return [*(complex(point) for point in points[:-1]), end]
