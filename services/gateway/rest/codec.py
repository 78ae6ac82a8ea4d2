"""Messages from and to the API's JSON: its field names, aliases, enum names and nulls, which are not ProtoJSON's.

Rules on values are `services.mesh.validation`'s; here only names and types are checked, all mistakes at once.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
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
        if field.type in _FLOATS and all(type(each) is float for each in value) and all(map(math.isfinite, value)):
            # A vector: one by one, its numbers would cost more than all the rest of a search.
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
    elif all(map(_is_number, value)):
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


def encode(message: Message) -> Any:
    """A message as JSON values: every field present, null where nothing is set."""
    return _encoder(message.DESCRIPTOR)(message)


def encode_field(message: Message, field: FieldDescriptor) -> Any:
    """One field of a message as a JSON value."""
    return _field_encoder(field)(message)


def encode_given(message: Message) -> Any:
    """A message as JSON values, without what is not set; dense vectors as arrays, which orjson writes by itself."""
    own = _GIVEN_ENCODERS.get(message.DESCRIPTOR.full_name)
    if own:
        return own(message)
    given: dict[str, Any] = {}
    for field, value in message.ListFields():
        one = encode_given if field.message_type else _value_encoder(field)
        given[json_name(field)] = [one(each) for each in value] if field.is_repeated else one(value)
    return given


def _vector(vector: Any) -> Any:
    """A vector: a list of numbers when dense, {"indices", "values"} when sparse."""
    if vector.dense:
        # float32 in its shortest form: 0.1 instead of 0.10000000149011612.
        return [float(str(each)) for each in np.frombuffer(vector.dense, dtype="<f4")]
    return {"indices": list(vector.indices), "values": [float(str(np.float32(each))) for each in vector.values]}


def _embedding(embedding: Any) -> Any:
    shown = _vector(embedding.vector)
    return {"vector": shown} if isinstance(shown, list) else shown


_Encoder = Callable[[Any], Any]


@cache
def _encoder(descriptor: Descriptor) -> _Encoder:
    """What encodes messages of a type: what is known of the type is asked once, not for each message."""
    own = _ENCODERS.get(descriptor.full_name)
    if own:
        return own
    # Filled after it is made, as a message may hold others of its own type.
    plan: list[tuple[str, _Encoder]] = []

    def encoder(message: Message) -> Any:
        if not plan:
            plan.extend((json_name(field), _field_encoder(field)) for field in descriptor.fields)
        return {name: of_field(message) for name, of_field in plan}

    return encoder


@cache
def _field_encoder(field: FieldDescriptor) -> _Encoder:
    """What encodes one field of a message."""
    name = field.name
    if field.message_type and field.message_type.GetOptions().map_entry:
        inner = _value_encoder(field.message_type.fields_by_name["value"])
        return lambda message: {key: inner(each) for key, each in getattr(message, name).items()}
    one = _value_encoder(field)
    if field.is_repeated:
        return lambda message: [one(each) for each in getattr(message, name)]
    if not field.has_presence:
        return lambda message: one(getattr(message, name))
    # An object of the caller's that was never given is an empty one.
    bare_struct = field.message_type and field.message_type.full_name == _STRUCT and not field.containing_oneof

    def present(message: Message) -> Any:
        if message.HasField(name):
            return one(getattr(message, name))
        return {} if bare_struct else None

    return present


def _value_encoder(field: FieldDescriptor) -> _Encoder:
    if field.message_type is not None:
        return _encoder(field.message_type)
    if field.type == _F.TYPE_ENUM:
        return enum_names(field.enum_type).get
    if field.type == _F.TYPE_BYTES:
        return lambda value: base64.b64encode(value).decode()
    return lambda value: value


def _timestamp(stamp: Any) -> str:
    """RFC 3339 in UTC with as many digits as are needed, as protobuf's own `ToJsonString`, in a seventh of its time."""
    if stamp.nanos % 1_000:
        return str(stamp.ToJsonString())
    precision = "seconds" if not stamp.nanos else "microseconds" if stamp.nanos % 1_000_000 else "milliseconds"
    moment = datetime.fromtimestamp(stamp.seconds, UTC).replace(microsecond=stamp.nanos // 1_000, tzinfo=None)
    return moment.isoformat(timespec=precision) + "Z"


def _struct(struct: Any) -> dict[str, Any]:
    return {key: _json_value(each) for key, each in struct.fields.items()}


def _json_value(value: Any) -> Any:
    """A JSON value, with integers where a Struct, which knows doubles only, holds whole numbers."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _struct(value.struct_value)
    if kind == "list_value":
        return [_json_value(each) for each in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return None if kind in (None, "null_value") else getattr(value, kind)


_ENCODERS: dict[str, _Encoder] = {
    _STRUCT: _struct,
    _VALUE: _json_value,
    _TIMESTAMP: _timestamp,
    _VECTOR: _vector,
    "lensmesh.v1.Embedding": _embedding,
}


_GIVEN_ENCODERS: dict[str, _Encoder] = _ENCODERS | {
    _VECTOR: lambda vector: np.frombuffer(vector.dense, "<f4") if vector.dense else _vector(vector),
}


def new_message(descriptor: Descriptor) -> Message:
    """An empty message of a descriptor."""
    return GetMessageClass(descriptor)()
