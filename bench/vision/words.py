"""Word recall and precision of read text: multisets of case-folded alphanumeric words, as end-to-end scores use."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.vision.samples import Point, TextSample

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Tally:
    """Counts of words; sums over images."""

    matched: int = 0
    expected: int = 0
    found: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.matched + other.matched, self.expected + other.expected, self.found + other.found)

    @property
    def recall(self) -> float:
        """Share of the expected words that were found, 0..1; 0 where none was expected."""
        return self.matched / self.expected if self.expected else 0.0

    @property
    def precision(self) -> float:
        """Share of the found words that were expected, 0..1; 1 where none was found."""
        return self.matched / self.found if self.found else 1.0


def words(text: str) -> list[str]:
    """The case-folded runs of letters and digits of ``text``."""
    return _WORD.findall(text.casefold())


def score(sample: TextSample, lines: Sequence[dict[str, Any]]) -> Tally:
    """Compares lines ``{"text", "quad"}`` with the sample; an unexpected word over an ignored quad is no mistake."""
    wanted = Counter(word for line in sample.lines for word in words(line))
    expected = wanted.total()
    matched = found = 0
    for line in lines:
        excused = any(_covers(quad, line["quad"]) for quad in sample.ignored)
        for word in words(line["text"]):
            hit = wanted[word] > 0
            wanted[word] -= hit
            matched += hit
            found += hit or not excused
    return Tally(matched, expected, found)


def _covers(quad: Iterable[Point], other: Iterable[Point]) -> bool:
    """Whether the upright bounds of two quads overlap: coarse, but the same for everything that is compared."""
    (left, top, right, bottom), (left_b, top_b, right_b, bottom_b) = _bounds(quad), _bounds(other)
    return left < right_b and left_b < right and top < bottom_b and top_b < bottom


def _bounds(quad: Iterable[Point]) -> tuple[float, float, float, float]:
    xs, ys = zip(*quad, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
