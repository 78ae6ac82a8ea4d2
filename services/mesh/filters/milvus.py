"""Compiles a condition to Milvus's filter language, as far as Milvus means the same.

What it does not mean is weakened to a superset, never to something else: the caller tests what comes back with
`evaluate.matches` unless the compiled expression is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from services.mesh.filters.condition import (
    DOCUMENT_FIELDS,
    METADATA,
    AllOf,
    AnyOf,
    Condition,
    Leaf,
    NoneOf,
    Operator,
    Scalar,
)

_COMPARISONS = {Operator.GT: ">", Operator.LT: "<", Operator.GTE: ">=", Operator.LTE: "<="}
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
# Literals beyond a double's exact integers, or in exponent notation, are not read alike by all versions.
_NUMBER_MAX = 2**53
# JSON pointer's own characters, which Milvus turns a path of keys into.
_POINTER_CHARACTERS = frozenset("/~")


@dataclass(frozen=True, slots=True)
class Compiled:
    """A Milvus boolean expression ("" = every row), and whether the rows it selects are exactly the matching ones.

    When not `exact`, the expression selects these rows and maybe more.
    """

    expression: str
    exact: bool


_EVERY_ROW = Compiled("", exact=True)
_UNKNOWN = Compiled("", exact=False)


def compile(condition: Condition, *, columns: Collection[str] = DOCUMENT_FIELDS) -> Compiled:
    """Compile a condition for a collection with a JSON field "metadata" and the given VARCHAR columns.

    Pushed down: `eq`, `in` and the order comparisons, in groups of AND and OR. Weakened: negations (`ne`, `nin`, NOR),
    because in Milvus a missing key makes a comparison unknown, and its contrary too; `is_null` and `exists`, because
    Milvus does not tell null from missing; `text`, `regex`, and texts whose case does not count.

    Texts and keys are written as escaped string literals, never pasted.
    """
    match condition:
        case Leaf():
            return _leaf(condition, columns)
        case AllOf(conditions):
            return _all_of([compile(inner, columns=columns) for inner in conditions])
        case AnyOf(conditions):
            return _any_of([compile(inner, columns=columns) for inner in conditions])
        case NoneOf():
            return _UNKNOWN


def _all_of(parts: list[Compiled]) -> Compiled:
    expressions = [part.expression for part in parts if part.expression]
    return Compiled(_joined(expressions, " and "), all(part.exact for part in parts))


def _any_of(parts: list[Compiled]) -> Compiled:
    # One part that can't be said leaves nothing that could be excluded.
    if not parts or not all(part.expression for part in parts):
        return _EVERY_ROW if parts and any(part == _EVERY_ROW for part in parts) else _UNKNOWN
    return Compiled(_joined([part.expression for part in parts], " or "), all(part.exact for part in parts))


def _joined(expressions: list[str], word: str) -> str:
    return expressions[0] if len(expressions) == 1 else word.join(f"({expression})" for expression in expressions)


def _leaf(leaf: Leaf, columns: Collection[str]) -> Compiled:
    values = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
    literals = [_literal(value) for value in values]
    minds_case = leaf.case_sensitive or not any(isinstance(value, str) for value in values)
    if not minds_case or not values or None in literals:
        return _UNKNOWN
    written = [literal for literal in literals if literal is not None]
    if leaf.path[0] == METADATA:
        return _metadata_leaf(leaf, values, written)
    if leaf.path[0] not in columns or not all(isinstance(value, str) for value in values):
        return _UNKNOWN
    return _leaf_of(leaf, leaf.path[0], written, _column_equals, exact=True)


def _metadata_leaf(leaf: Leaf, values: tuple[Scalar, ...], literals: list[str]) -> Compiled:
    names = leaf.path[1:]
    keys = [_text(name) for name in names]
    if None in keys or any(_POINTER_CHARACTERS & set(name) for name in names):
        return _UNKNOWN
    place = METADATA + "".join(f"[{key}]" for key in keys)
    # Milvus Lite takes true for 1, and any Milvus may take the key "0" for the first element of a list. Membership is
    # never exact: Milvus Lite also looks into texts that read like a list.
    exact = (
        leaf.operator in _COMPARISONS
        and all(isinstance(value, str) for value in values)
        and not any(name.isdigit() for name in names)
    )
    return _leaf_of(leaf, place, literals, _metadata_equals, exact=exact)


def _leaf_of(
    leaf: Leaf, place: str, literals: list[str], equals: Callable[[str, list[str]], str], *, exact: bool
) -> Compiled:
    if leaf.operator in (Operator.EQ, Operator.IN):
        return Compiled(equals(place, literals), exact)
    if leaf.operator in _COMPARISONS:
        return Compiled(f"{place} {_COMPARISONS[leaf.operator]} {literals[0]}", exact)
    return _UNKNOWN


def _column_equals(column: str, literals: list[str]) -> str:
    return f"{column} in [{', '.join(literals)}]"


def _metadata_equals(place: str, literals: list[str]) -> str:
    # Milvus Lite has no `in` for JSON paths. The second half finds lists that contain a value.
    equal = " or ".join(f"{place} == {literal}" for literal in literals)
    return f"{equal} or json_contains_any({place}, [{', '.join(literals)}])"


def _literal(value: Scalar) -> str | None:
    """The value in Milvus's language, None when it can't be written safely."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    written = repr(value)
    return written if abs(value) <= _NUMBER_MAX and "e" not in written else None


def _text(text: str) -> str | None:
    written = text.translate(_ESCAPES)
    return f'"{written}"' if not any(ord(character) < 0x20 for character in written) else None
