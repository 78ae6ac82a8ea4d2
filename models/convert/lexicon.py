"""Builds the brand lexicon of the logo model: our own list first, then names of an icon collection that are safe.

A collected name is taken only when it cannot be an ordinary word or a short abbreviation.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lensmesh_models.logos import words

_TITLE = re.compile(r'^    title="((?:[^"\\]|\\.)*)"', re.MULTILINE)
_LETTERS_MIN, _LETTERS_CLEAR = 4, 6


def collected_titles(source: str) -> list[str]:
    """Icon titles from the text of simpleicons' ``icons.py``, which is read as text and never run."""
    return [re.sub(r"\\(.)", r"\1", title) for title in _TITLE.findall(source)]


def build(own: Path, ordinary: Path, icons: Path, target: Path) -> None:
    """Writes a JSON list of ``{"name", "aliases", "ambiguous"}``; ``ordinary`` holds one word a line."""
    brands: list[dict[str, Any]] = json.loads(own.read_text(encoding="utf-8"))
    common = set(ordinary.read_text(encoding="utf-8").split())
    for title in collected_titles(icons.read_text(encoding="utf-8")):
        parts = words(title)
        if sum(map(len, parts)) < _LETTERS_MIN or (len(parts) == 1 and parts[0] in common):
            continue
        # "Open Access", "Expo": words that others use too, so the line must be the name and nothing else.
        ambiguous = all(part in common or len(part) < _LETTERS_CLEAR for part in parts)
        brands.append({"name": title, "aliases": [], "ambiguous": ambiguous})
    target.write_text(json.dumps(brands, ensure_ascii=False), encoding="utf-8")
