"""Finds wordmarks: lines of read text that are a brand's name, judged against a lexicon.

Precision first: a name must make up most of a short line, and a name that is also an ordinary word must stand alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

FLOOR = 0.5
_WORDS_MAX = 4  # of a line that can be a wordmark; longer ones are prose that mentions a brand
_COVERAGE_MIN = 0.5
_LINES_MAX_FOR_WORDS = 12  # an ordinary word that is a brand counts on a poster, not on a page of text
_AMBIGUOUS_FACTOR = 0.7
_READ_MIN = 0.6
_NOT_WORD = re.compile(r"[^0-9a-z]+")


@dataclass(frozen=True)
class Entry:
    """One spelling of a brand; ``ambiguous`` when the spelling is also an ordinary word or very short."""

    name: str
    ambiguous: bool


def words(text: str) -> tuple[str, ...]:
    """Lower-case words without accents, signs or apostrophes: ``L'Oréal Paris`` -> ``("loreal", "paris")``."""
    plain = unicodedata.normalize("NFKD", text.replace("'", "").replace("’", "").replace("&", " and "))
    ascii_only = plain.encode("ascii", "ignore").decode().lower()
    return tuple(word for word in _NOT_WORD.split(ascii_only) if word)


def lexicon(brands: Iterable[dict[str, Any]]) -> dict[tuple[str, ...], Entry]:
    """Spelling -> entry of records ``{"name", "aliases", "ambiguous"}``; the first to claim a spelling has it."""
    found: dict[tuple[str, ...], Entry] = {}
    for brand in brands:
        for spelling in (brand["name"], *brand.get("aliases", ())):
            key = words(spelling)
            if key:
                found.setdefault(key, Entry(brand["name"], bool(brand["ambiguous"])))
    return found


def find(lines: Sequence[dict[str, Any]], known: dict[tuple[str, ...], Entry]) -> list[dict[str, Any]]:
    """Logos ``{"name", "confidence", "quad"}``, best first, at most one a line ``{"text", "confidence", "quad"}``."""
    found = []
    for line in lines:
        match = _match(words(line["text"]), known, few_lines=len(lines) <= _LINES_MAX_FOR_WORDS)
        if match is None or line["confidence"] < _READ_MIN:
            continue
        entry, coverage = match
        confidence = line["confidence"] * coverage * (_AMBIGUOUS_FACTOR if entry.ambiguous else 1.0)
        if confidence >= FLOOR:
            found.append({"name": entry.name, "confidence": round(confidence, 4), "quad": line["quad"]})
    return sorted(found, key=lambda logo: -logo["confidence"])


def _match(
    line: tuple[str, ...], known: dict[tuple[str, ...], Entry], *, few_lines: bool
) -> tuple[Entry, float] | None:
    """The longest known spelling in the line and its share of the line's characters."""
    if not 0 < len(line) <= _WORDS_MAX:
        return None
    total = sum(map(len, line))
    for count in range(len(line), 0, -1):
        for start in range(len(line) - count + 1):
            part = line[start : start + count]
            # "Coca Cola" and "CocaCola" are one spelling apart; readers lose and gain spaces.
            entry = known.get(part) or (known.get(("".join(part),)) if count > 1 else None)
            if entry is None:
                continue
            coverage = sum(map(len, part)) / total
            alone = count == len(line)
            if (alone and few_lines) if entry.ambiguous else coverage >= _COVERAGE_MIN:
                return entry, coverage
    return None
