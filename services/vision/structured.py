"""Fills a response shape from what was measured on an image, by a fixed vocabulary of keys.

The answer has exactly the shape's keys and types; what nothing was measured for is null, or an empty list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Key in a shape -> fact. Keys are compared in lower case with "-" and " " as "_".
VOCABULARY: dict[str, str] = {
    **dict.fromkeys(("text", "texts", "ocr", "read_text", "lines"), "lines"),
    **dict.fromkeys(("description", "caption", "summary"), "description"),
    **dict.fromkeys(("objects", "object", "labels", "tags", "items"), "objects"),
    **dict.fromkeys(("classes", "class", "category", "categories"), "classes"),
    **dict.fromkeys(("faces", "face_count", "has_face", "has_faces"), "faces"),
    **dict.fromkeys(("people", "people_count", "person_count", "has_people"), "people"),
    **dict.fromkeys(("logos", "logo", "brands", "brand", "has_logo"), "logos"),
    **dict.fromkeys(("colors", "colours", "color", "colour"), "colors"),
    **dict.fromkeys(("dominant_colors", "dominant_colours", "dominant_color"), "colors"),
    **dict.fromkeys(("width", "width_px"), "width"),
    **dict.fromkeys(("height", "height_px"), "height"),
    "has_text": "lines",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured. Lists are empty when nothing was found; `known` names the facts that were measured."""

    known: frozenset[str]
    values: Mapping[str, list[str] | str | int] = field(default_factory=dict)


def fact_of(key: str) -> str | None:
    """The fact that a key of a shape asks for; None for keys outside the vocabulary."""
    return VOCABULARY.get(key.lower().replace("-", "_").replace(" ", "_"))


def wanted_facts(shape: Any) -> set[str]:
    """The facts that a shape asks for."""
    if isinstance(shape, list):
        return set().union(*map(wanted_facts, shape))
    if not isinstance(shape, Mapping):
        return set()
    named = {fact for key in shape if (fact := fact_of(key))}
    return named.union(*map(wanted_facts, shape.values()))


def fill(shape: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """The shape with values in place of types."""
    return {key: _value(key, kind, facts) for key, kind in shape.items()}


def _value(key: str, kind: Any, facts: Facts) -> Any:
    if isinstance(kind, Mapping):
        return fill(kind, facts)
    fact = fact_of(key)
    found = facts.values.get(fact) if fact in facts.known and fact else None
    if isinstance(kind, list):
        inner = kind[0]
        if isinstance(inner, Mapping) or not isinstance(found, list):
            return []
        return [_scalar(each, inner) for each in found]
    return None if found is None else _scalar(found, kind)


def _scalar(found: list[str] | str | int, kind: str) -> str | int | float | bool | None:
    if kind == "bool":
        return bool(found)
    if kind == "str":
        return ", ".join(found) if isinstance(found, list) else str(found)
    if isinstance(found, list):
        found = len(found)
    try:
        return int(found) if kind == "int" else float(found)
    except ValueError:
        return None
