"""Forms with a file (RFC 7578): the file goes to disk as it comes, the other parts become the message beside it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from services.gateway.rest.codec import decode, field_names
from services.gateway.spool import SpooledFile, spooled, too_large
from services.mesh.errors import BadRequest, FieldViolation, InvalidArgument

FILE_PART = "file"
# Parts that may hold all fields at once.
JSON_PARTS = ("json", "request")
# Bytes of one field, as an inline image in a field may have; and of all that is not the file.
_FIELD_BYTES_MAX = 48_000_000
_FIELDS_MAX = 64


def head_descriptor(method: MethodDescriptor) -> Descriptor:
    """The message that comes before the chunks of a client-streaming method."""
    head = next(field.message_type for field in method.input_type.fields if field.message_type)
    assert head is not None
    return head


@asynccontextmanager
async def read_form(request: Request, message: Message, file_bytes_max: int) -> AsyncIterator[SpooledFile]:
    """Read a form into a message and a file, which is removed afterwards.

    Raises:
        BadRequest: the body is no such form.
        PayloadTooLarge: the file has too many bytes; raised while it is read.
        InvalidArgument: there is not exactly one file, or a part is not what its field takes.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise BadRequest(
            f"send multipart/form-data with the image as the part {FILE_PART!r}, not {kind or 'nothing'!r}"
        )
    if int(request.headers.get("content-length") or 0) > file_bytes_max + _FIELD_BYTES_MAX:
        raise too_large(file_bytes_max)
    stream = _limited(request.stream(), file_bytes_max + _FIELD_BYTES_MAX)
    parser = MultiPartParser(
        request.headers, stream, max_files=1, max_fields=_FIELDS_MAX, max_part_size=_FIELD_BYTES_MAX
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise BadRequest(f"the form can't be read: {error.message}") from None
    try:
        upload = _file_of(form)
        if (upload.size or 0) > file_bytes_max:
            raise too_large(file_bytes_max)
        decode(_values(form, message.DESCRIPTOR), message)  # type: ignore[arg-type]
        yield await spooled(upload.file)
    finally:
        await form.close()


async def _limited(stream: AsyncIterator[bytes], bytes_max: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in stream:
        size += len(chunk)
        if size > bytes_max:
            raise too_large(bytes_max)
        yield chunk


def _file_of(form: FormData) -> UploadFile:
    files = [(name, part) for name, part in form.multi_items() if isinstance(part, UploadFile)]
    if not files:
        raise InvalidArgument.field(FILE_PART, "is required: the image, as a part with a filename", "required")
    name, file = files[0]
    if name != FILE_PART:
        raise InvalidArgument.field(name, f"is not the part of the file: that is {FILE_PART!r}", "unknown_field")
    return file


def _values(form: FormData, descriptor: Descriptor) -> dict[str, Any]:
    """The parts that are not the file as one JSON object."""
    names = field_names(descriptor)
    values: dict[str, Any] = {}
    violations: list[FieldViolation] = []
    for name, part in form.multi_items():
        if isinstance(part, UploadFile):
            continue
        given = _object(name, part, violations) if name in JSON_PARTS else {name: _value(names.get(name), part)}
        for key, value in given.items():
            if key in values and values[key] != value:
                violations.append(FieldViolation(("body", key), "is given twice, with different values", "conflict"))
            values[key] = value
    if violations:
        raise InvalidArgument(violations)
    return values


def _object(name: str, text: str, violations: list[FieldViolation]) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        violations.append(FieldViolation(("body", name), f"is not JSON: {error}", "type.json"))
        return {}
    if not isinstance(value, dict):
        violations.append(FieldViolation(("body", name), "must hold a JSON object", "type.object"))
        return {}
    return value


def _value(field: FieldDescriptor | None, text: str) -> Any:
    """A part's value: JSON where it is such and the field is not a text."""
    if field is None or (field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated):
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
