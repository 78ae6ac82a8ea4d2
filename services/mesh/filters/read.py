"""Reads a filter of the contracts into a condition, and names everything that is wrong with it at once.

The only module of the package that knows protobuf.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf import struct_pb2
from lensmesh.v1 import common_pb2

from services.mesh.errors import FieldViolation, InvalidArgument
from services.mesh.filters.condition import (
    DOCUMENT_FIELDS,
    MATCH_ALL,
    METADATA,
    AllOf,
    AnyOf,
    Condition,
    Leaf,
    NoneOf,
    Operator,
    Scalar,
)
from services.mesh.filters.evaluate import words
from services.mesh.filters.regex import compiled

_Path = tuple[str | int, ...]
_Groups = ((AllOf, "AND", "and"), (AnyOf, "OR", "or"), (NoneOf, "NOR", "nor"))
_ORDERED = frozenset({Operator.GT, Operator.LT, Operator.GTE, Operator.LTE})
# Integers up to here are the same number as a double, which is what JSON numbers arrive as.
_EXACT_INTEGER_MAX = 2**53


@dataclass(frozen=True, slots=True)
class FilterLimits:
    """What a filter may ask for; each bounds the work that one request can cause.

    `group_conditions_max` is the public API's own number. `depth_max` groups inside each other and `conditions_max`
    leaves and groups in all keep reading and evaluating short. `list_values_max` is the length of an in or nin list,
    `key_parts_max` the names in a dotted key, `pattern_characters_max` and `text_characters_max` the length of a regex
    and of any other text.
    """

    group_conditions_max: int = 20
    depth_max: int = 8
    conditions_max: int = 200
    list_values_max: int = 500
    key_parts_max: int = 16
    pattern_characters_max: int = 512
    text_characters_max: int = 4096


DEFAULT_LIMITS = FilterLimits()


def from_proto(
    message: common_pb2.Filter, *, path: _Path = ("body", "filters"), limits: FilterLimits = DEFAULT_LIMITS
) -> Condition:
    """The condition that a filter means; the empty filter is MATCH_ALL.

    `path` is where the filter stands in the request. A key is a dotted path into the metadata, with or without a
    leading "metadata."; the names in DOCUMENT_FIELDS address the document. Raises InvalidArgument with one violation
    for each mistake, such as `filters.AND.0.operator`.
    """
    reader = _Reader(limits)
    condition = reader.condition(message, path, case_sensitive=True, depth=0)
    if reader.violations:
        raise InvalidArgument(reader.violations)
    return condition


@dataclass(slots=True)
class _Reader:
    limits: FilterLimits
    violations: list[FieldViolation] = field(default_factory=list)
    conditions: int = 0

    def refuse(self, path: _Path, message: str, rule: str) -> None:
        self.violations.append(FieldViolation(path, message, f"filter.{rule}"))

    def condition(self, message: common_pb2.Filter, path: _Path, *, case_sensitive: bool, depth: int) -> Condition:
        self.conditions += 1
        if self.conditions > self.limits.conditions_max:
            if self.conditions == self.limits.conditions_max + 1:
                self.refuse(path, f"a filter has at most {self.limits.conditions_max} conditions in all", "conditions")
            return MATCH_ALL
        if depth > self.limits.depth_max:
            self.refuse(path, f"groups are nested more than {self.limits.depth_max} deep", "depth")
            return MATCH_ALL
        if message.HasField("case_sensitive"):
            case_sensitive = message.case_sensitive
        groups: list[Condition] = []
        for kind, name, attribute in _Groups:
            members: Sequence[common_pb2.Filter] = getattr(message, attribute)
            if members:
                groups.append(kind(self.members(members, (*path, name), case_sensitive, depth)))
        if not message.key:
            if message.HasField("value") or message.operator:
                self.refuse((*path, "key"), "a condition needs a key", "key")
            return groups[0] if len(groups) == 1 else AllOf(tuple(groups))
        if groups:
            self.refuse(path, "a filter is either a leaf (key, operator, value) or a group, not both", "leaf_or_group")
        return self.leaf(message, path, case_sensitive)

    def members(
        self, members: Sequence[common_pb2.Filter], path: _Path, case_sensitive: bool, depth: int
    ) -> tuple[Condition, ...]:
        most = self.limits.group_conditions_max
        if len(members) > most:
            self.refuse(path, f"a group has at most {most} conditions", "group")
            return ()
        return tuple(
            self.condition(member, (*path, index), case_sensitive=case_sensitive, depth=depth + 1)
            for index, member in enumerate(members)
        )

    def leaf(self, message: common_pb2.Filter, path: _Path, case_sensitive: bool) -> Condition:
        parts = self.key(message.key, (*path, "key"))
        operator = _OPERATORS.get(message.operator)
        if operator is None:
            self.refuse((*path, "operator"), "this operator is not known", "operator")
            return MATCH_ALL
        value = self.value(message, operator, (*path, "value"), case_sensitive)
        return MATCH_ALL if value is None else Leaf(parts, operator, value, case_sensitive)

    def key(self, key: str, path: _Path) -> tuple[str, ...]:
        if key in DOCUMENT_FIELDS:
            return (key,)
        parts = tuple(key.removeprefix(f"{METADATA}.").split("."))
        if not all(parts):
            self.refuse(path, "a key is names with single dots between them", "key")
        if len(parts) > self.limits.key_parts_max:
            self.refuse(path, f"a key has at most {self.limits.key_parts_max} names", "key")
        return (METADATA, *parts)

    def value(
        self, message: common_pb2.Filter, operator: Operator, path: _Path, case_sensitive: bool
    ) -> Scalar | tuple[Scalar, ...] | None:
        given = message.value
        if operator in (Operator.IS_NULL, Operator.EXISTS):
            return self.truth(given, operator, path)
        if operator in (Operator.IN, Operator.NIN):
            return self.scalars(given, operator, path)
        value = self.scalar(given, operator, path)
        if value is None:
            return None
        if operator in _ORDERED and isinstance(value, bool):
            self.refuse(path, f"{operator} compares numbers and texts, not truth values", "value")
        if operator in (Operator.TEXT, Operator.REGEX):
            self.text(value, operator, path, case_sensitive)
        return value

    def truth(self, given: struct_pb2.Value, operator: Operator, path: _Path) -> bool:
        kind = given.WhichOneof("kind")
        if kind not in (None, "null_value", "bool_value"):
            self.refuse(path, f"{operator} takes true, false or nothing", "value")
        return given.bool_value if kind == "bool_value" else True

    def scalars(self, given: struct_pb2.Value, operator: Operator, path: _Path) -> tuple[Scalar, ...] | None:
        if given.WhichOneof("kind") != "list_value":
            self.refuse(path, f"{operator} takes a list", "value")
            return None
        values = given.list_value.values
        if len(values) > self.limits.list_values_max:
            self.refuse(path, f"{operator} takes at most {self.limits.list_values_max} values", "value")
            return None
        read = (self.scalar(value, operator, (*path, index)) for index, value in enumerate(values))
        return tuple(value for value in read if value is not None)

    def scalar(self, given: struct_pb2.Value, operator: Operator, path: _Path) -> Scalar | None:
        match given.WhichOneof("kind"):
            case "string_value" if len(given.string_value) <= self.limits.text_characters_max:
                return given.string_value
            case "string_value":
                self.refuse(path, f"a text has at most {self.limits.text_characters_max} characters", "value")
            case "number_value" if math.isfinite(given.number_value):
                number = given.number_value
                return int(number) if number.is_integer() and abs(number) <= _EXACT_INTEGER_MAX else number
            case "bool_value":
                return given.bool_value
            case None | "null_value":
                self.refuse(path, f"{operator} needs a value; to find nulls, use is_null", "value")
            case _:
                self.refuse(path, f"{operator} compares with a text, a number or a truth value", "value")
        return None

    def text(self, value: Scalar, operator: Operator, path: _Path, case_sensitive: bool) -> None:
        if not isinstance(value, str):
            self.refuse(path, f"{operator} takes a text", "value")
        elif operator is Operator.TEXT:
            if not words(value):
                self.refuse(path, "text needs at least one word", "value")
        elif len(value) > self.limits.pattern_characters_max:
            self.refuse(path, f"a regex has at most {self.limits.pattern_characters_max} characters", "value")
        else:
            try:
                compiled(value, case_sensitive)
            except ValueError as error:
                self.refuse(path, f"not a valid RE2 expression: {error}", "regex")


# The enum's values carry the operators' names; not given means eq.
_OPERATORS: dict[int, Operator] = {0: Operator.EQ} | {
    number: Operator(name.removeprefix("FILTER_OPERATOR_").lower())
    for name, number in common_pb2.FilterOperator.items()
    if number
}
