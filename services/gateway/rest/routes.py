"""One route for each HTTP annotation of the contracts, with the same steps each: authenticate, decode, validate, run.

How JSON becomes a message, `codec` knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import orjson
from google.api import annotations_pb2
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from services.gateway.auth import Caller
from services.gateway.config import GatewaySettings
from services.gateway.core.calls import Answer, Calls, Operation
from services.gateway.rest import ndjson
from services.gateway.rest.codec import decode, new_message, set_text
from services.gateway.rest.errors import error_response
from services.gateway.rest.multipart import head_descriptor, read_form
from services.gateway.rest.views import shaped
from services.gateway.spool import Incoming, spool
from services.mesh import telemetry
from services.mesh.errors import BadRequest, FieldViolation, InvalidArgument, LensmeshError, PayloadTooLarge
from services.mesh.json_encoding import encode
from services.mesh.json_names import answers_lines, json_name, takes_lines
from services.mesh.rpc import as_lensmesh_error, from_rpc_error
from services.mesh.validation import validate

_UNSTORED = {"Cache-Control": "no-store"}


class _Exchange(StreamingResponse):
    """A response that is sent while the request is still being read: nothing but its reader may wait for what comes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.stream_response(send)


@dataclass(frozen=True, slots=True)
class Binding:
    """One HTTP method and path of an operation."""

    operation: Operation
    method: str
    path: str
    # "*": the whole request is the body; a field's name: that field is, raw; empty: there is no body.
    body: str
    # The field of the response that is sent; empty: all of it.
    response_body: str


def bindings(operation: Operation) -> Iterator[Binding]:
    """The HTTP annotations of an operation."""
    rule = operation.method.GetOptions().Extensions[annotations_pb2.http]
    for one in (rule, *rule.additional_bindings):
        pattern = one.WhichOneof("pattern")
        if pattern:
            response_body = one.response_body or rule.response_body
            yield Binding(operation, pattern.upper(), getattr(one, pattern), one.body, response_body)


def routes(operations: tuple[Operation, ...], calls: Calls, settings: GatewaySettings) -> list[Route]:
    """Every route, each also under /v1."""
    made = []
    for operation in operations:
        for binding in bindings(operation):
            endpoint = _endpoint(binding, calls, settings)
            for prefix in ("", "/v1"):
                made.append(Route(prefix + binding.path, endpoint, methods=[binding.method]))
    # A fixed path goes before one with a parameter, such as /percolators/matches/events.
    return sorted(made, key=lambda route: route.path.count("{"))


def guarded(name: str, handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint whose errors become the API's error shapes."""

    async def endpoint(request: Request) -> Response:
        result = "ok"
        try:
            return await handle(request)
        except ClientDisconnect:
            # Nobody hears this.
            result = "disconnected"
            return error_response(BadRequest("the request ended before it was whole"))
        except grpc.aio.AioRpcError as error:
            known = from_rpc_error(error, "backing")
            result = known.type
            return error_response(known)
        except Exception as error:
            known = as_lensmesh_error(error, name)
            result = known.type
            return error_response(known)
        finally:
            telemetry.REQUESTS.labels("rest", name, result).inc()

    return endpoint


def _endpoint(binding: Binding, calls: Calls, settings: GatewaySettings) -> Callable[[Request], Awaitable[Response]]:
    operation = binding.operation

    async def handle(request: Request) -> Response:
        headers = request.headers
        caller = await calls.admit(operation, headers.get("authorization"), headers.get("x-namespace"))
        message, result = await _answer(request, binding, calls, caller, settings)
        if isinstance(result, Message):
            return Response(orjson.dumps(shaped(message, _shown(result, binding))), media_type="application/json")
        if answers_lines(operation.method):
            field = operation.method.output_type.fields_by_name[binding.response_body]
            lines = await ndjson.lines(result, field)
            return StreamingResponse(lines, media_type=ndjson.MEDIA_TYPE, headers=_UNSTORED)
        events = _events(result, binding, settings.event_keepalive_s)
        kind = _Exchange if takes_lines(operation.method) else StreamingResponse
        return kind(events, media_type="text/event-stream", headers=_UNSTORED)

    return guarded(operation.method.full_name, handle)


async def _answer(
    request: Request, binding: Binding, calls: Calls, caller: Caller, settings: GatewaySettings
) -> tuple[Message, Answer]:
    """The request as a message, and what it is answered."""
    operation, once = binding.operation, request.headers.get("idempotency-key")
    if takes_lines(operation.method):
        kind = head_descriptor(operation.method)
        lines = ndjson.messages(request.stream(), kind, settings.import_line_bytes_max)
        return new_message(kind), await calls.run(operation, caller, lines, None)
    if operation.method.client_streaming:
        message = new_message(head_descriptor(operation.method))
        with calls.receiving():
            async with read_form(request, message, settings.file_bytes_max) as file:
                _set_parameters(request, message)
                validate(message)
                return message, await calls.run(operation, caller, Incoming(message, file), once)
    message = new_message(operation.method.input_type)
    if binding.body in ("", "*"):
        if binding.body:
            decode(_json(await _body(request, settings.body_bytes_max)), message)
        _set_parameters(request, message)
        validate(message)
        return message, await calls.run(operation, caller, message, once)
    # The field that the body is has its bytes in the file, so the message is not held against its rules.
    _set_parameters(request, message)
    with calls.receiving(), await spool(request.stream(), settings.file_bytes_max) as file:
        return message, await calls.run(operation, caller, Incoming(message, file), once)


def _set_parameters(request: Request, message: Message) -> None:
    """Fill the fields that stand in the query and in the path."""
    for name, text in request.query_params.multi_items():
        if not set_text(message, name, text, ("query",)):
            raise InvalidArgument([FieldViolation(("query", name), "is not a parameter here", "unknown_parameter")])
    for name, text in request.path_params.items():
        set_text(message, name, text, ("path",))


async def _body(request: Request, bytes_max: int) -> bytes:
    too_large = PayloadTooLarge(f"the body is larger than {bytes_max} bytes")
    if int(request.headers.get("content-length") or 0) > bytes_max:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > bytes_max:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


def _json(body: bytes) -> Any:
    if not body.strip():
        return {}
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None


def _shown(message: Message, binding: Binding) -> Any:
    shown = encode(message)
    if not binding.response_body:
        return shown
    return shown[json_name(message.DESCRIPTOR.fields_by_name[binding.response_body])]


async def _events(stream: AsyncIterator[Message], binding: Binding, keepalive_s: float) -> AsyncIterator[bytes]:
    """Server-Sent Events: one a message, comments in silence, and an event `error` when the stream breaks."""
    fields = binding.operation.method.output_type.fields_by_name
    name = binding.response_body or ("match" if "match" in fields else "progress")
    waiting: asyncio.Task[Message] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(stream))
            await asyncio.wait({waiting}, timeout=keepalive_s)
            if not waiting.done():
                yield b": still here\n\n"
                continue
            try:
                message, waiting = waiting.result(), None
            except StopAsyncIteration:
                return
            cursor = getattr(message, "cursor", None)
            head = f"id: {cursor}\n" if cursor else ""
            yield f"{head}event: {name}\ndata: ".encode() + orjson.dumps(_shown(message, binding)) + b"\n\n"
    except Exception as error:
        known = _known(error, binding)
        yield b"event: error\ndata: " + orjson.dumps({"message": known.message, "type": known.type}) + b"\n\n"
    finally:
        if waiting:
            waiting.cancel()


def _known(error: Exception, binding: Binding) -> LensmeshError:
    if isinstance(error, grpc.aio.AioRpcError):
        return from_rpc_error(error, "backing")
    return as_lensmesh_error(error, binding.operation.method.full_name)
