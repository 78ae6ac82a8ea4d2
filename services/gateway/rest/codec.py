"""Messages from the API's JSON: its field names, aliases, enum names and nulls, which are not ProtoJSON's.

Writing is `services.mesh.json_encoding`'s, rules on values `services.mesh.validation`'s; here only names and types are
checked, all mistakes at once.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from services.mesh.errors import FieldViolation, InvalidArgument
from services.mesh.json_names import enum_names, enum_numbers, json_aliases, json_name

Path = tuple[str | int, ...]
_F = FieldDescriptor
_STRUCT, _VALUE, _TIMESTAMP = "google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.Timestamp"
_VECTOR = "lensmesh.v1.Vector"
# Names and places in lists down to a field; a filter's own limit needs about 20. protobuf reads 100 levels.
_PATH_MAX = 64
_FLOATS = (_F.TYPE_FLOAT, _F.TYPE_DOUBLE)
_INT_BOUNDS = {
    _F.TYPE_INT32: (-(2**31), 2**31 - 1),
    _F.TYPE_UINT32: (0, 2**32 - 1),
    _F.TYPE_INT64: (-(2**63), 2**63 - 1),
    _F.TYPE_UINT64: (0, 2**64 - 1),
}


@cache
def field_names(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """Every accepted name of a message's fields."""
    names = {json_name(field): field for field in descriptor.fields}
    for field in descriptor.fields:
        names |= dict.fromkeys(json_aliases(field), field)
    return names


def decode(value: object, message: Message, path: Path = ("body",)) -> None:
    """Fill a message from JSON.

    Raises:
        InvalidArgument: with every unknown name and wrong type.
    """
    violations: list[FieldViolation] = []
    _fill(message, value, path, violations)
    if violations:
        raise InvalidArgument(violations)


def set_text(message: Message, name: str, text: str, path: Path) -> bool:
    """Set a scalar field from a path or query parameter; False when there is no field of that name.

    Raises:
        InvalidArgument: the text is not of the field's type.
    """
    field = field_names(message.DESCRIPTOR).get(name)
    if field is None or field.is_repeated or field.type == _F.TYPE_MESSAGE:
        return False
    value: object = text
    try:
        if field.type in _INT_BOUNDS:
            value = int(text)
        elif field.type == _F.TYPE_DOUBLE:
            value = float(text)
        elif field.type == _F.TYPE_BOOL:
            value = {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    except ValueError:
        pass
    violations: list[FieldViolation] = []
    result = _scalar(field, value, (*path, name), violations)
    if violations:
        raise InvalidArgument(violations)
    setattr(message, field.name, result)
    return True


def _fill(message: Message, value: object, path: Path, violations: list[FieldViolation]) -> None:
    if not isinstance(value, Mapping):
        violations.append(FieldViolation(path, f"must be an object, not {_kind(value)}", "type.object"))
        return
    names = field_names(message.DESCRIPTOR)
    given: dict[str, tuple[str, object]] = {}
    for name, each in value.items():
        field = names.get(name)
        if field is None:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            violations.append(FieldViolation((*path, name), f"is not a field here{hint}", "unknown_field"))
            continue
        if field.name in given and given[field.name][1] != each:
            other = given[field.name][0]
            violations.append(
                FieldViolation((*path, name), f"is another name of {other!r} and has another value", "alias_conflict")
            )
            continue
        given[field.name] = (name, each)
        _set(message, field, each, (*path, name), violations)


def _set(message: Message, field: FieldDescriptor, value: object, path: Path, violations: list[FieldViolation]) -> None:
    if value is None and not (field.message_type and field.message_type.full_name == _VALUE):
        return
    if field.is_repeated:
        if not isinstance(value, list):
            violations.append(FieldViolation(path, f"must be a list, not {_kind(value)}", "type.list"))
            return
        target = getattr(message, field.name)
        if field.type in _FLOATS and set(map(type, value)) == {float} and math.isfinite(sum(value)):
            # A vector: one by one, its numbers would cost more than all the rest of a search. If their sum is finite,
            # so is each of them.
            target.extend(value)
            return
        for position, each in enumerate(value):
            if field.type == _F.TYPE_MESSAGE:
                _message(target.add(), each, (*path, position), violations)
            else:
                before = len(violations)
                scalar = _scalar(field, each, (*path, position), violations)
                if len(violations) == before:
                    target.append(scalar)
    elif field.type == _F.TYPE_MESSAGE:
        child = getattr(message, field.name)
        child.SetInParent()
        _message(child, value, path, violations)
    else:
        before = len(violations)
        scalar = _scalar(field, value, path, violations)
        if len(violations) == before:
            setattr(message, field.name, scalar)


def _message(message: Message, value: object, path: Path, violations: list[FieldViolation]) -> None:
    name = message.DESCRIPTOR.full_name
    if len(path) > _PATH_MAX:
        violations.append(FieldViolation(path, "is nested too deep", "depth"))
    elif name == _VECTOR:
        _fill_vector(message, value, path, violations)
    elif name == _STRUCT and not isinstance(value, Mapping):
        violations.append(FieldViolation(path, f"must be an object, not {_kind(value)}", "type.object"))
    elif name in (_STRUCT, _VALUE, _TIMESTAMP):
        try:
            ParseDict(value, message)  # type: ignore[arg-type]
        except (ParseError, ValueError, TypeError, RecursionError):
            rule = "an RFC 3339 time" if name == _TIMESTAMP else "JSON with finite numbers, not nested too deep"
            violations.append(FieldViolation(path, f"must be {rule}", "type.json"))
    else:
        _fill(message, value, path, violations)


def _fill_vector(message: Any, value: object, path: Path, violations: list[FieldViolation]) -> None:
    """Fill a vector, which in JSON is a list of numbers, or {"indices", "values"}."""
    if not isinstance(value, list):
        _fill_sparse(message, value, path, violations)
    elif set(map(type, value)) <= {float, int}:
        # As one array: one by one, its numbers would cost more than all the rest. JSON that was read has no others.
        with np.errstate(over="ignore"):
            message.dense = np.array(value, dtype="<f4").tobytes()
    else:
        violations.append(FieldViolation(path, "must be a list of numbers", "type.numbers"))


def _fill_sparse(message: Any, value: object, path: Path, violations: list[FieldViolation]) -> None:
    if not isinstance(value, Mapping) or set(value) != {"indices", "values"}:
        violations.append(FieldViolation(path, "must be a list of numbers, or {indices, values}", "type.vector"))
        return
    _fill(message, value, path, violations)


def _scalar(field: FieldDescriptor, value: object, path: Path, violations: list[FieldViolation]) -> Any:
    if field.type == _F.TYPE_ENUM:
        numbers = enum_numbers(field.enum_type)
        if isinstance(value, str) and value in numbers:
            return numbers[value]
        allowed = ", ".join(repr(name) for name in enum_names(field.enum_type).values())
        violations.append(FieldViolation(path, f"must be one of {allowed}", "enum"))
        return None
    if field.type in _INT_BOUNDS:
        low, high = _INT_BOUNDS[field.type]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        violations.append(FieldViolation(path, f"must be an integer, not {_kind(value)}", "type.integer"))
        return None
    check, convert, name = _SCALARS[field.type]
    if check(value):
        try:
            return convert(value)
        except (ValueError, binascii.Error):
            pass
    violations.append(FieldViolation(path, f"must be {name}, not {_kind(value)}", f"type.{name.split()[-1]}"))
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: object) -> bool:
    # Lone surrogates, which JSON can spell, are not text that UTF-8 or protobuf can hold.
    return isinstance(value, str) and (value.isascii() or not any(0xD800 <= ord(each) <= 0xDFFF for each in value))


_SCALARS: dict[int, tuple[Callable[[object], bool], Callable[[Any], Any], str]] = {
    _F.TYPE_STRING: (_is_text, str, "a string"),
    _F.TYPE_BOOL: (lambda value: isinstance(value, bool), bool, "a boolean"),
    _F.TYPE_DOUBLE: (_is_number, float, "a number"),
    _F.TYPE_FLOAT: (_is_number, float, "a number"),
    _F.TYPE_BYTES: (lambda value: isinstance(value, str), lambda text: base64.b64decode(text, validate=True), "base64"),
}


def _kind(value: object) -> str:
    kinds = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return kinds.get(type(value), "an object" if isinstance(value, Mapping) else "a list")


def new_message(descriptor: Descriptor) -> Message:
    """An empty message of a descriptor."""
    return GetMessageClass(descriptor)()
