"""Messages as the API's JSON: its field names, enum names, times and nulls, which are not ProtoJSON's.

Reading JSON is the REST door's part.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.mesh.json_names import enum_names, json_name

_F = FieldDescriptor
_STRUCT = "google.protobuf.Struct"
_EPOCH = datetime(1970, 1, 1)
_VECTOR = "lensmesh.v1.Vector"


def encode(message: Message) -> Any:
    """A message as JSON values: every field present, null where nothing is set."""
    return _encoder(message.DESCRIPTOR)(message)


def encode_given(message: Message) -> Any:
    """A message as JSON values, without what is not set; dense vectors as arrays, which orjson writes by itself."""
    own = _GIVEN_ENCODERS.get(message.DESCRIPTOR.full_name)
    if own:
        return own(message)
    given: dict[str, Any] = {}
    for field, value in message.ListFields():
        one = encode_given if field.message_type else _one_encoder(field) or (lambda each: each)
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
    unset: dict[str, Any] = {}
    plan: dict[FieldDescriptor, tuple[str, _Encoder | None]] = {}

    def encoder(message: Message) -> Any:
        if not plan:
            unset.update((json_name(field), _unset(field)) for field in descriptor.fields)
            plan.update((field, (json_name(field), _value_encoder(field))) for field in descriptor.fields)
        shown = unset.copy()
        # Of a document's fields most are not set; asking for each of them would cost more than all else.
        for field, value in message.ListFields():
            name, encode_value = plan[field]
            shown[name] = encode_value(value) if encode_value else value
        return shown

    return encoder


def _unset(field: FieldDescriptor) -> Any:
    """What stands for a field that is not set, in all messages: nobody changes an answer below its top."""
    if field.message_type and field.message_type.GetOptions().map_entry:
        return {}
    if field.is_repeated:
        return []
    if field.has_presence:
        # An object of the caller's that was never given is an empty one.
        bare_struct = field.message_type and field.message_type.full_name == _STRUCT and not field.containing_oneof
        return {} if bare_struct else None
    one = _one_encoder(field)
    return one(field.default_value) if one else field.default_value


def _value_encoder(field: FieldDescriptor) -> _Encoder | None:
    """What encodes the value of a field: a map, a list, or one value; None: it is JSON already."""
    if field.message_type and field.message_type.GetOptions().map_entry:
        inner = _one_encoder(field.message_type.fields_by_name["value"])
        return (lambda value: {key: inner(value[key]) for key in value}) if inner else dict
    one = _one_encoder(field)
    if not field.is_repeated:
        return one
    return (lambda value: [one(each) for each in value]) if one else list


def _one_encoder(field: FieldDescriptor) -> _Encoder | None:
    if field.message_type is not None:
        return _encoder(field.message_type)
    if field.type == _F.TYPE_ENUM:
        return enum_names(field.enum_type).get
    if field.type == _F.TYPE_BYTES:
        return lambda value: base64.b64encode(value).decode()
    return None


def _timestamp(stamp: Any) -> str:
    """RFC 3339 in UTC with as many digits as are needed, as protobuf's own `ToJsonString`, in a seventh of its time."""
    if stamp.nanos % 1_000:
        return str(stamp.ToJsonString())
    moment = _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1_000)
    if stamp.nanos and not stamp.nanos % 1_000_000:
        return moment.isoformat(timespec="milliseconds") + "Z"
    return moment.isoformat() + "Z"


def _struct(struct: Any) -> dict[str, Any]:
    fields = struct.fields
    return {key: _json_value(fields[key]) for key in fields}


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
    "google.protobuf.Value": _json_value,
    "google.protobuf.Timestamp": _timestamp,
    _VECTOR: _vector,
    "lensmesh.v1.Embedding": _embedding,
}
_GIVEN_ENCODERS: dict[str, _Encoder] = _ENCODERS | {
    _VECTOR: lambda vector: np.frombuffer(vector.dense, "<f4") if vector.dense else _vector(vector),
}
