"""The order in which a person reads lines: columns from the left, in a column rows from the top.

A recursive X-Y cut (Nagy & Seth 1984) over lines, after the page is turned so that they run from left to right. Rows
are told from columns by what they hold: prose stands in columns, the short cells of a table stand in rows. Lines across
a gutter, such as headings, cut the page into what is above and below. Scripts from right to left come reversed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Columns are apart by at least one line height; each holds at least so many lines of at least so many heights.
_GUTTER_HEIGHTS = 1.0
_COLUMN_LINES_MIN, _COLUMN_HEIGHTS_MIN = 3, 5.0
# Where more of the lines cross a gutter, it is none.
_ACROSS_MAX = 0.3
# A row is what lies within half a line of its first member.
_ROW_HEIGHTS = 0.5

Boxes = NDArray[np.float64]  # [N,4] as left, top, right, bottom
Members = NDArray[np.intp]


def reading_order(quads: Sequence[NDArray[Any]]) -> list[int]:
    """Indices of ``quads`` (each [4,2], its first edge along the writing) in reading order."""
    if not quads:
        return []
    corners = np.asarray(quads, np.float64)
    # Long lines say best how the page lies.
    along = (corners[:, 1] - corners[:, 0]).sum(axis=0)
    length = float(np.linalg.norm(along))
    right = along / length if length > 0 else np.array([1.0, 0.0])
    turned = corners @ np.stack([right, [-right[1], right[0]]], axis=1)
    boxes = np.concatenate([turned.min(axis=1), turned.max(axis=1)], axis=1)
    return [int(index) for index in _cut(boxes, np.arange(len(boxes)))]


def _cut(boxes: Boxes, members: Members) -> Iterator[Any]:
    """The members in order: column by column where there is a gutter, else row by row."""
    gutter = _gutter(boxes[members])
    if gutter is None:
        yield from _rows(boxes, members)
        return
    start, end = gutter
    across = (boxes[members, 0] < end) & (boxes[members, 2] > start)
    if not across.any():
        on_left = boxes[members, 2] <= start
        yield from _cut(boxes, members[on_left])
        yield from _cut(boxes, members[~on_left])
        return
    middle = (boxes[:, 1] + boxes[:, 3]) / 2
    above = -np.inf
    lines = sorted(members[across], key=lambda index: middle[index])
    for line in (*lines, None):
        below = np.inf if line is None else middle[line]
        yield from _cut(boxes, members[~across & (middle[members] > above) & (middle[members] <= below)])
        if line is not None:
            yield line
        above = below


def _gutter(found: Boxes) -> tuple[float, float] | None:
    """The left and right edge of the strip between columns that the fewest lines cross, if there are columns."""
    if len(found) < 2 * _COLUMN_LINES_MIN:
        return None
    height = float(np.median(found[:, 3] - found[:, 1]))
    starts = np.unique(found[:, 2])
    ends = starts + _GUTTER_HEIGHTS * height
    left, right = found[:, 2] <= starts[:, None], found[:, 0] >= ends[:, None]
    across = len(found) - left.sum(axis=1) - right.sum(axis=1)
    # The fewest lines across, and of those strips the one that parts the lines most evenly.
    balance = np.minimum(left.sum(axis=1), right.sum(axis=1))
    for best in np.lexsort((-balance, across)):
        if across[best] > _ACROSS_MAX * len(found):
            return None
        if _is_prose(found[left[best]], height) and _is_prose(found[right[best]], height):
            return float(starts[best]), float(ends[best])
    return None


def _is_prose(found: Boxes, height: float) -> bool:
    enough = len(found) >= _COLUMN_LINES_MIN
    return enough and float(np.median(found[:, 2] - found[:, 0])) >= _COLUMN_HEIGHTS_MIN * height


def _rows(boxes: Boxes, members: Members) -> Iterator[Any]:
    """Row by row from the top, each from the left."""
    middle = (boxes[:, 1] + boxes[:, 3]) / 2
    row: list[Any] = []
    for index in sorted(members, key=lambda index: middle[index]):
        if row and middle[index] - middle[row[0]] >= _ROW_HEIGHTS * (boxes[row[0], 3] - boxes[row[0], 1]):
            yield from sorted(row, key=lambda index: boxes[index, 0])
            row = []
        row.append(index)
    yield from sorted(row, key=lambda index: boxes[index, 0])
