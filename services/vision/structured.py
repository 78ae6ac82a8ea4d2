"""Fills a response shape: from what was measured, by a fixed vocabulary of keys, or from a model's answer.

The answer has exactly the shape's keys and types; what is not known is null, or an empty list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Key in a shape -> fact. Keys are compared in lower case with "-" and " " as "_".
VOCABULARY: dict[str, str] = {
    **dict.fromkeys(("text", "texts", "ocr", "read_text", "lines"), "lines"),
    **dict.fromkeys(("words", "word_count", "words_count"), "words"),
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

_JSON_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured. Lists are empty when nothing was found; `known` names the facts that were measured."""

    known: frozenset[str]
    values: Mapping[str, list[str] | str | int] = field(default_factory=dict)
    # Between the parts of a list where the shape asks for one string.
    separator: str = ", "


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


def json_schema(shape: Any) -> dict[str, Any]:
    """The JSON schema (2020-12) of answers in a shape: all keys there, no others, every scalar nullable."""
    if isinstance(shape, Mapping):
        return {
            "type": "object",
            "properties": {key: json_schema(kind) for key, kind in shape.items()},
            "required": list(shape),
            "additionalProperties": False,
        }
    if isinstance(shape, list):
        return {"type": "array", "items": json_schema(shape[0])}
    return {"type": [_JSON_TYPES[shape], "null"]}


def conform(shape: Mapping[str, Any], answer: Any) -> dict[str, Any]:
    """A model's answer with exactly the shape's keys and types.

    What is missing or of another kind becomes null or an empty list; a number in words of digits becomes that number.
    """
    given = answer if isinstance(answer, Mapping) else {}
    return {key: _conforming(kind, given.get(key)) for key, kind in shape.items()}


def _conforming(kind: Any, given: Any) -> Any:
    if isinstance(kind, Mapping):
        return conform(kind, given)
    if isinstance(kind, list):
        elements = [_conforming(kind[0], each) for each in given] if isinstance(given, list) else []
        return [each for each in elements if each is not None]
    if kind == "bool":
        return given if isinstance(given, bool) else None
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        return None
    if kind == "str":
        return str(given)
    try:
        number = float(given)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    if kind == "float":
        return number
    return int(number) if number.is_integer() else None


def _value(key: str, kind: Any, facts: Facts) -> Any:
    if isinstance(kind, Mapping):
        return fill(kind, facts)
    fact = fact_of(key)
    found = facts.values.get(fact) if fact in facts.known and fact else None
    if isinstance(kind, list):
        inner = kind[0]
        if isinstance(inner, Mapping) or not isinstance(found, list):
            return []
        return [_scalar(each, inner, facts.separator) for each in found]
    return None if found is None else _scalar(found, kind, facts.separator)


def _scalar(found: list[str] | str | int, kind: str, separator: str) -> str | int | float | bool | None:
    if kind == "bool":
        return bool(found)
    if kind == "str":
        return separator.join(found) if isinstance(found, list) else str(found)
    if isinstance(found, list):
        found = len(found)
    try:
        return int(found) if kind == "int" else float(found)
    except ValueError:
        return None
