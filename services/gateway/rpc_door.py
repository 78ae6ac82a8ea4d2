"""The gRPC door: every operation of the core under its method's name; authentication from the call's metadata."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from services.gateway.auth import Caller
from services.gateway.config import GatewaySettings
from services.gateway.core.calls import Calls, Operation
from services.gateway.core.core import PUBLIC_SERVICES, Core
from services.gateway.spool import Incoming, line_too_large, spool
from services.mesh.errors import InvalidArgument, LensmeshError
from services.mesh.rpc import RpcServer, from_rpc_error
from services.mesh.validation import validate


def add_operations(server: RpcServer, core: Core, settings: GatewaySettings) -> None:
    """Serve the core's operations."""
    for service in PUBLIC_SERVICES:
        handlers = {
            operation.name: _handler(operation, core.calls, settings)
            for operation in core.operations
            if operation.method.containing_service.full_name == service.full_name
        }
        server.add(service.full_name, grpc.method_handlers_generic_handler(service.full_name, handlers))


def _handler(operation: Operation, calls: Calls, settings: GatewaySettings) -> grpc.RpcMethodHandler[Any, Any]:
    kinds: dict[str, Any] = {
        "request_deserializer": GetMessageClass(operation.method.input_type).FromString,
        "response_serializer": GetMessageClass(operation.method.output_type).SerializeToString,
    }
    if operation.method.server_streaming and operation.method.client_streaming:
        exchange = _exchange(operation, calls, settings.import_line_bytes_max)
        return grpc.stream_stream_rpc_method_handler(exchange, **kinds)
    if operation.method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(_stream(operation, calls), **kinds)
    if operation.method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(_upload(operation, calls, settings.file_bytes_max), **kinds)
    return grpc.unary_unary_rpc_method_handler(_unary(operation, calls), **kinds)


def _unary(operation: Operation, calls: Calls) -> Any:
    async def handle(request: Message, context: Any) -> Any:
        caller, once = await _admit(operation, calls, context)
        try:
            return await calls.run(operation, caller, request, once)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "backing") from error

    return handle


def _upload(operation: Operation, calls: Calls, file_bytes_max: int) -> Any:
    """A method whose first message is the head, and whose others are chunks of a file."""

    async def handle(requests: AsyncIterator[Message], context: Any) -> Any:
        caller, once = await _admit(operation, calls, context)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "head":
            raise InvalidArgument.field("head", "is required: it is the first message", "required")
        head = first.head  # type: ignore[attr-defined]
        # By itself, so that its fields are called as REST calls them.
        validate(head)
        try:
            with calls.receiving(), await spool(_chunks(requests), file_bytes_max) as file:
                return await calls.run(operation, caller, Incoming(head, file), once)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "backing") from error

    return handle


async def _chunks(requests: AsyncIterator[Message]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise InvalidArgument.field("chunk", "is required in every message after the first", "required")
        yield request.chunk  # type: ignore[attr-defined]


def _stream(operation: Operation, calls: Calls) -> Any:
    async def handle(request: Message, context: Any) -> AsyncIterator[Message]:
        caller, _ = await _admit(operation, calls, context)
        try:
            async for response in await calls.run(operation, caller, request, None):  # type: ignore[union-attr]
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "backing") from error

    return handle


def _exchange(operation: Operation, calls: Calls, message_bytes_max: int) -> Any:
    """A method whose every message is taken or refused by itself."""

    async def handle(requests: AsyncIterator[Message], context: Any) -> AsyncIterator[Message]:
        caller, _ = await _admit(operation, calls, context)
        lines = _lines(requests, message_bytes_max)
        try:
            async for response in await calls.run(operation, caller, lines, None):  # type: ignore[union-attr]
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "backing") from error

    return handle


async def _lines(
    requests: AsyncIterator[Message], bytes_max: int
) -> AsyncIterator[Sequence[tuple[int, Message | LensmeshError]]]:
    number = 0
    async for request in requests:
        number += 1
        yield ((number, _line(request, bytes_max)),)


def _line(request: Message, bytes_max: int) -> Message | LensmeshError:
    """What a message holds in its one field, by itself, so that its fields are called as REST calls them."""
    name = request.DESCRIPTOR.fields[0].name
    if request.ByteSize() > bytes_max:
        return line_too_large(bytes_max)
    if not request.HasField(name):
        return InvalidArgument.field(name, "is required", "required")
    line: Message = getattr(request, name)
    try:
        validate(line)
    except InvalidArgument as error:
        return error
    return line


async def _admit(operation: Operation, calls: Calls, context: Any) -> tuple[Caller, str | None]:
    """Who calls, and the call's Idempotency-Key."""
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    caller = await calls.admit(operation, metadata.get("authorization"), metadata.get("x-namespace"))
    return caller, metadata.get("idempotency-key")
