"""The conditions that a filter is made of, as plain values.

How they are read, evaluated and compiled lives in the modules beside this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: What a leaf compares with: text, a number or a truth value. Never null: that is what IS_NULL is for.
Scalar = str | int | float | bool

#: Keys that address a field of the document itself; every other key addresses its metadata.
DOCUMENT_FIELDS = frozenset({"collection_id", "asset_id", "feature_id", "modality"})
#: The field of a document that holds its metadata, a JSON object.
METADATA = "metadata"


class Operator(StrEnum):
    """How a leaf compares; the values are the names in JSON."""

    EQ = "eq"
    NE = "ne"
    GT = "gt"
    LT = "lt"
    GTE = "gte"
    LTE = "lte"
    IN = "in"
    NIN = "nin"
    IS_NULL = "is_null"
    EXISTS = "exists"
    TEXT = "text"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One comparison.

    `path` starts at the document: ("collection_id",) or ("metadata", "price", "amount"). `value` is a scalar, for IN
    and NIN a tuple of scalars, for IS_NULL and EXISTS a truth value. `case_sensitive` concerns text values only.
    """

    path: tuple[str, ...]
    operator: Operator
    value: Scalar | tuple[Scalar, ...]
    case_sensitive: bool = True


@dataclass(frozen=True, slots=True)
class AllOf:
    """Holds when every condition holds; without conditions always."""

    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Holds when at least one condition holds; without conditions never."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class NoneOf:
    """Holds when no condition holds."""

    conditions: tuple[Condition, ...]


Condition = Leaf | AllOf | AnyOf | NoneOf

#: The empty filter.
MATCH_ALL = AllOf()
