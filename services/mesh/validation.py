"""Checks messages against the rules in the protos, and names the field and the rule of every violation.

Which JSON name a field has, `services.mesh.json_names` knows.
"""

from __future__ import annotations

import protovalidate
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from services.mesh.errors import FieldViolation, InvalidArgument
from services.mesh.json_names import json_name

_validator = protovalidate.Validator()


def validate(message: Message) -> None:
    """Check a message.

    Raises:
        InvalidArgument: with every violation.
    """
    found = _validator.collect_violations(message)
    if found:
        raise InvalidArgument([_violation(message, each) for each in found])


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
