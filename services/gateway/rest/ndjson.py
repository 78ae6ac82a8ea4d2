"""NDJSON, one JSON object a line: requests that are read as they come, and answers that are sent as they are made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TypeAlias

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect

from services.gateway.rest.codec import decode, new_message
from services.gateway.spool import line_too_large
from services.mesh.errors import BadRequest, LensmeshError
from services.mesh.json_encoding import encode_given
from services.mesh.validation import validate

MEDIA_TYPE = "application/x-ndjson"
# Lines that are read in one go: some 10 ms, for which others wait.
_LINES_A_TURN = 50
# Bytes of lines that are sent together.
_SEND_BYTES = 32_000

_Line: TypeAlias = tuple[int, Message | LensmeshError]


async def messages(
    chunks: AsyncIterator[bytes], descriptor: Descriptor, line_bytes_max: int
) -> AsyncIterator[Sequence[_Line]]:
    """The messages of a body, several at a time, each with its number, or why it is none; blank lines are left out.

    Raises:
        BadRequest: the caller has hung up.
    """
    try:
        async for lines in _split(chunks, line_bytes_max):
            for start in range(0, len(lines), _LINES_A_TURN):
                yield [
                    (number, line_too_large(line_bytes_max) if line is None else _message(line, descriptor))
                    for number, line in lines[start : start + _LINES_A_TURN]
                ]
    except ClientDisconnect:
        raise BadRequest("the request ended before it was whole") from None


async def _split(chunks: AsyncIterator[bytes], line_bytes_max: int) -> AsyncIterator[list[tuple[int, bytes | None]]]:
    """The lines that each chunk ends, numbered from 1; None for one that is too long, which is not kept."""
    number, rest, too_long = 0, b"", False
    async for chunk in chunks:
        *ended, rest = (rest + chunk).split(b"\n")
        lines: list[tuple[int, bytes | None]] = []
        for line in ended:
            number += 1
            if too_long or len(line) > line_bytes_max:
                lines.append((number, None))
            elif line.strip():
                lines.append((number, line))
            too_long = False
        if too_long or len(rest) > line_bytes_max:
            rest, too_long = b"", True
        yield lines
    if too_long or rest.strip():
        yield [(number + 1, None if too_long else rest)]


def _message(line: bytes, descriptor: Descriptor) -> Message | LensmeshError:
    message = new_message(descriptor)
    try:
        decode(orjson.loads(line), message)
        validate(message)
    except orjson.JSONDecodeError as error:
        return BadRequest(f"the line is not JSON: {error}")
    except LensmeshError as error:
        return error
    return message


async def lines(stream: AsyncIterator[Message], field: FieldDescriptor) -> AsyncIterator[bytes]:
    """A field of each message as a line, what is not set left out; returns when the first lines are there.

    What goes wrong before is raised here. A stream that breaks later ends without its proper end.
    """
    made = _lines(stream, field)
    first = await anext(made)

    async def all_of_them() -> AsyncIterator[bytes]:
        yield first
        async for each in made:
            yield each

    return all_of_them()


async def _lines(stream: AsyncIterator[Message], field: FieldDescriptor) -> AsyncIterator[bytes]:
    sending: list[bytes] = []
    size = 0
    async for message in stream:
        line = orjson.dumps(
            encode_given(getattr(message, field.name)), option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        )
        sending.append(line)
        size += len(line)
        if size >= _SEND_BYTES:
            yield b"".join(sending)
            sending, size = [], 0
    yield b"".join(sending)
