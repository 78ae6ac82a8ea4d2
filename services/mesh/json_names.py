"""How fields and enum values are called in JSON, as the options in the protos say.

Reading and writing whole messages is the REST door's part.
"""

from __future__ import annotations

from functools import cache

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor, MethodDescriptor
from lensmesh.v1 import options_pb2


@cache
def json_name(field: FieldDescriptor) -> str:
    """The field's name in JSON."""
    return field.GetOptions().Extensions[options_pb2.json].name or str(field.name)


@cache
def json_aliases(field: FieldDescriptor) -> tuple[str, ...]:
    """Other names that are accepted for the field."""
    return tuple(field.GetOptions().Extensions[options_pb2.json].aliases)


@cache
def enum_names(enum: EnumDescriptor) -> dict[int, str]:
    """The name in JSON of every value but 0 (not given)."""
    prefix = _prefix(enum)
    names = {}
    for value in enum.values:
        if value.number:
            given = value.GetOptions().Extensions[options_pb2.json_value].name
            names[value.number] = given or value.name.removeprefix(prefix).lower()
    return names


@cache
def enum_numbers(enum: EnumDescriptor) -> dict[str, int]:
    """The value of every name and alias in JSON."""
    numbers = {name: number for number, name in enum_names(enum).items()}
    for value in enum.values:
        for alias in value.GetOptions().Extensions[options_pb2.json_value].aliases:
            numbers[alias] = value.number
    return numbers


def takes_lines(method: MethodDescriptor) -> bool:
    """Whether its requests are one JSON object a line."""
    return bool(method.GetOptions().Extensions[options_pb2.rest].request_lines)


def answers_lines(method: MethodDescriptor) -> bool:
    """Whether its answers are one JSON object a line."""
    return bool(method.GetOptions().Extensions[options_pb2.rest].answer_lines)


def _prefix(enum: EnumDescriptor) -> str:
    unspecified = enum.values_by_number[0].name
    return str(unspecified).removesuffix("UNSPECIFIED")
