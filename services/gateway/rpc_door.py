"""The gRPC door: every operation of the core under its method's name; authentication from the call's metadata."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from services.gateway.auth import Directory
from services.gateway.core.core import PUBLIC_SERVICES, Core, Operation
from services.mesh.rpc import RpcServer, from_rpc_error


def add_operations(server: RpcServer, core: Core) -> None:
    """Serve the core's operations."""
    for service in PUBLIC_SERVICES:
        handlers = {
            operation.method.name: _handler(operation, core.directory)
            for operation in core.operations
            if operation.method.containing_service.full_name == service.full_name
        }
        server.add(service.full_name, grpc.method_handlers_generic_handler(service.full_name, handlers))


def _handler(operation: Operation, directory: Directory) -> grpc.RpcMethodHandler[Any, Any]:
    request_class = GetMessageClass(operation.method.input_type)
    response_class = GetMessageClass(operation.method.output_type)
    if operation.method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(
            _stream(operation, directory),
            request_deserializer=request_class.FromString,
            response_serializer=response_class.SerializeToString,
        )
    return grpc.unary_unary_rpc_method_handler(
        _unary(operation, directory),
        request_deserializer=request_class.FromString,
        response_serializer=response_class.SerializeToString,
    )


def _unary(operation: Operation, directory: Directory) -> Any:
    async def handle(request: Message, context: Any) -> Any:
        caller = _caller(operation, directory, context)
        try:
            return await operation.run(caller, request)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "backing") from error

    return handle


def _stream(operation: Operation, directory: Directory) -> Any:
    async def handle(request: Message, context: Any) -> AsyncIterator[Message]:
        caller = _caller(operation, directory, context)
        try:
            async for response in await operation.run(caller, request):  # type: ignore[union-attr]
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "backing") from error

    return handle


def _caller(operation: Operation, directory: Directory, context: Any) -> Any:
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    return directory.authenticate(metadata.get("authorization"), metadata.get("x-namespace"), operation.needs)
