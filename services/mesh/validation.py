"""Checks messages against the rules in the protos, and names the field and the rule of every violation.

Which JSON name a field has, `services.mesh.json_names` knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import protovalidate
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from services.mesh.errors import FieldViolation, InvalidArgument
from services.mesh.json_names import json_name

# Each level takes three of protobuf's, which reads 100; records nest requests a few levels deeper.
JSON_DEPTH_MAX = 24

_validator = protovalidate.Validator()


def validate(message: Message) -> None:
    """Check a message.

    Raises:
        InvalidArgument: with every violation.
    """
    violations = [_violation(message, each) for each in _validator.collect_violations(message)]
    violations += _json_violations(message, ("body",))
    if violations:
        raise InvalidArgument(violations)


def _json_violations(message: Message, path: tuple[str | int, ...]) -> Iterator[FieldViolation]:
    """JSON of the caller's that can't be written as JSON, or not be read again as part of a record."""
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for position, each in enumerate(value if field.is_repeated else (value,)):
            place = (*path, json_name(field), position) if field.is_repeated else (*path, json_name(field))
            if not isinstance(each, (Struct, Value)):
                yield from _json_violations(each, place)
            elif problem := _json_problem(each, 0):
                yield FieldViolation(place, problem, "json")


def _json_problem(value: Struct | Value, depth: int) -> str | None:
    if depth > JSON_DEPTH_MAX:
        return f"must be nested at most {JSON_DEPTH_MAX} deep"
    if isinstance(value, Struct):
        inner = list(value.fields.values())
    elif value.HasField("struct_value"):
        return _json_problem(value.struct_value, depth)
    else:
        inner = list(value.list_value.values)
        if not math.isfinite(value.number_value):
            return "must be JSON with finite numbers"
        if depth and not value.WhichOneof("kind"):
            return "must be JSON without values of no kind"
    return next((problem for each in inner if (problem := _json_problem(each, depth + 1))), None)


def _violation(message: Message, violation: protovalidate.Violation) -> FieldViolation:
    proto = violation.proto
    path: list[str | int] = ["body"]
    descriptor: Descriptor | None = message.DESCRIPTOR  # type: ignore[assignment]
    for element in proto.field.elements if proto.field else ():
        field = descriptor.fields_by_name.get(element.field_name) if descriptor else None
        path.append(json_name(field) if field is not None else element.field_name)
        subscript = element.subscript
        if subscript is not None and isinstance(subscript.value, int):
            path.append(subscript.value)
        descriptor = field.message_type if field is not None else None
    text = proto.message or "is not valid"
    if proto.rule_id == "required":
        text = "is required"
    return FieldViolation(tuple(path), text, proto.rule_id or "invalid")
