"""Says whether a document fulfils a condition: the definition that every store's own filtering is held against.

Stores' filter languages are `milvus`'s; nothing here does input or output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from services.mesh.filters.condition import AllOf, AnyOf, Condition, Leaf, NoneOf, Operator, Scalar
from services.mesh.filters.regex import compiled


class _Missing:
    """The value of a key that a document lacks, unlike null, which is a value."""


_MISSING: Final = _Missing()
_WORD = re.compile(r"\w+")


def matches(condition: Condition, document: Mapping[str, object]) -> bool:
    """Whether the document fulfils the condition.

    `document` has the document fields at its top and its metadata, a JSON object, under "metadata".

    - Missing and null: no comparison holds; `ne` and `nin`, which are the contrary of `eq` and `in`, hold. `is_null`
      holds for both, `exists` for null but not for a missing key.
    - Types: a number never equals a text, a truth value is no number; comparisons between types do not hold.
    - Lists: `eq`, `in`, `text` and `regex` hold when any element fulfils them, the order comparisons never. A key does
      not reach into lists.
    - Case: where it does not count, texts are compared case-folded. `text` never minds case: it holds when all its
      words are among the value's words.
    - Texts are ordered by code point.
    """
    match condition:
        case Leaf():
            return _leaf(condition, document)
        case AllOf(conditions):
            return all(matches(inner, document) for inner in conditions)
        case AnyOf(conditions):
            return any(matches(inner, document) for inner in conditions)
        case NoneOf(conditions):
            return not any(matches(inner, document) for inner in conditions)


def words(text: str) -> frozenset[str]:
    """The case-folded words of a text: runs of letters, digits and underscores, in any script."""
    return frozenset(_WORD.findall(text.casefold()))


def _leaf(leaf: Leaf, document: Mapping[str, object]) -> bool:
    found = value_at(leaf.path, document)
    match leaf.operator:
        case Operator.IS_NULL:
            return (found is None or found is _MISSING) is leaf.value
        case Operator.EXISTS:
            return (found is not _MISSING) is leaf.value
        case Operator.NE | Operator.NIN:
            return not _any_equal(leaf, found)
        case Operator.EQ | Operator.IN:
            return _any_equal(leaf, found)
        case Operator.TEXT:
            return _any_text(found, _has_words(str(leaf.value)))
        case Operator.REGEX:
            pattern = compiled(str(leaf.value), leaf.case_sensitive)
            return _any_text(found, lambda text: pattern.search(text) is not None)
        case _:
            return _in_order(leaf, found)


def value_at(path: tuple[str, ...], document: Mapping[str, object]) -> object:
    """What a document has under a path; something that is no JSON value where it has nothing."""
    value: object = document
    for name in path:
        if not isinstance(value, Mapping):
            return _MISSING
        value = value.get(name, _MISSING)
    return value


def _any_equal(leaf: Leaf, found: object) -> bool:
    wanted = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
    return any(
        _equal(element, value, leaf.case_sensitive)
        for element in (found if isinstance(found, list | tuple) else (found,))
        for value in wanted
    )


def _equal(found: object, value: Scalar, case_sensitive: bool) -> bool:
    if isinstance(found, bool) or isinstance(value, bool):
        return found is value
    if isinstance(found, str) and isinstance(value, str):
        return found == value or (not case_sensitive and found.casefold() == value.casefold())
    return isinstance(found, int | float) and isinstance(value, int | float) and found == value


def _has_words(text: str) -> Callable[[str], bool]:
    wanted = words(text)
    return lambda found: wanted <= words(found)


def _any_text(found: object, fulfils: Callable[[str], bool]) -> bool:
    elements = found if isinstance(found, list | tuple) else (found,)
    return any(isinstance(element, str) and fulfils(element) for element in elements)


def _in_order(leaf: Leaf, found: object) -> bool:
    value = leaf.value
    if isinstance(found, bool):
        return False
    if isinstance(found, str) and isinstance(value, str):
        pair = (found, value) if leaf.case_sensitive else (found.casefold(), value.casefold())
        return _compare(leaf.operator, (pair[0] > pair[1]) - (pair[0] < pair[1]))
    if isinstance(found, int | float) and isinstance(value, int | float):
        # Not a number is in no order: neither above, below, nor equal.
        return found == found and _compare(leaf.operator, (found > value) - (found < value))
    return False


def _compare(operator: Operator, order: int) -> bool:
    match operator:
        case Operator.GT:
            return order > 0
        case Operator.LT:
            return order < 0
        case Operator.GTE:
            return order >= 0
        case _:
            return order <= 0
