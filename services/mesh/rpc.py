"""gRPC, the same in every service: a server with health, reflection, validation and rich errors; and clients of it.

What the methods do is not known here.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import structlog
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.mesh import telemetry
from services.mesh.errors import (
    FieldViolation,
    InternalError,
    InvalidArgument,
    LensmeshError,
    Unavailable,
    error_classes,
)
from services.mesh.validation import validate

log = structlog.get_logger()

_DOMAIN = "lensmesh"
# A status travels as metadata, of which gRPC takes 16 KB: more violations and characters than these are left out.
_VIOLATIONS_MAX = 16
_MESSAGE_CHARACTERS_MAX = 2_000
_CODE_NUMBERS = {code: code.value[0] for code in grpc.StatusCode}


class RpcSettings(BaseSettings):
    """Limits of gRPC servers and clients."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_RPC_", extra="ignore")

    message_bytes_max: int = Field(96_000_000, ge=1, description="Bytes of one message: a 64 MB image in base64.")
    concurrent_calls_max: int = Field(1024, ge=1, description="Calls at a time; beyond: RESOURCE_EXHAUSTED.")
    deadline_s: float = Field(60, gt=0, description="Deadline of calls from one service to another.")
    drain_s_max: float = Field(10, gt=0, description="How long running calls may go on at shutdown.")


def to_status(error: LensmeshError) -> status_pb2.Status:
    """An error as google.rpc.Status with ErrorInfo, and BadRequest and RetryInfo where they apply."""
    message = error.message
    if len(message) > _MESSAGE_CHARACTERS_MAX:
        message = f"{message[:_MESSAGE_CHARACTERS_MAX]}..."
    status = status_pb2.Status(code=_CODE_NUMBERS[error.grpc_code], message=message)
    info = error_details_pb2.ErrorInfo(reason=error.type.upper(), domain=_DOMAIN, metadata=error.details or {})
    status.details.add().Pack(info)
    if isinstance(error, InvalidArgument):
        bad = error_details_pb2.BadRequest()
        for violation in error.violations[:_VIOLATIONS_MAX]:
            bad.field_violations.add(field=violation.dotted, description=violation.message, reason=violation.rule)
        status.details.add().Pack(bad)
    if error.retryable:
        retry = error_details_pb2.RetryInfo()
        # Whole seconds, as HTTP's Retry-After has.
        retry.retry_delay.CopyFrom(duration_pb2.Duration(seconds=math.ceil(error.retry_after_s or 1)))
        status.details.add().Pack(retry)
    return status


def from_rpc_error(error: grpc.aio.AioRpcError, service: str) -> LensmeshError:
    """The error of the table that another service answered with; anything else means that it is not available."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    details: dict[type[Message], Message] = {}
    for detail in status.details if status else ():
        _unpack(detail, details)
    info = details.get(error_details_pb2.ErrorInfo)
    if not isinstance(info, error_details_pb2.ErrorInfo) or info.domain != _DOMAIN:
        log.warning("service not answering", service=service, code=error.code().name, details=error.details())
        return Unavailable(f"the {service} service does not answer; try again", retry_after_s=2)
    error_class = error_classes().get(info.reason.lower(), InternalError)
    if error_class is InvalidArgument:
        bad = details.get(error_details_pb2.BadRequest)
        found = bad.field_violations if isinstance(bad, error_details_pb2.BadRequest) else ()
        return InvalidArgument([FieldViolation.of(each.field, each.description, each.reason) for each in found])
    retry = details.get(error_details_pb2.RetryInfo)
    retry_after_s = retry.retry_delay.seconds if isinstance(retry, error_details_pb2.RetryInfo) else None
    return error_class(error.details() or "", retry_after_s=retry_after_s, details=dict(info.metadata) or None)


def _unpack(detail: any_pb2.Any, into: dict[type[Message], Message]) -> None:
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
        message = kind()
        if detail.Unpack(message):
            into[kind] = message


class _Guarded(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Validates every request by the proto's rules and turns errors of the table into statuses."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        handler = await continuation(details)
        if handler is None or not details.method.startswith("/lensmesh."):
            return handler
        operation = details.method.removeprefix("/")
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                _guard_exchange(handler.stream_stream, operation),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(
                _guard_upload(handler.stream_unary, operation),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _guard_stream(handler.unary_stream, operation),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            _guard_unary(handler.unary_unary, operation),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _guard_unary(method: Any, operation: str) -> Any:
    async def validated(request: Message, context: Any) -> Any:
        validate(request)
        return await method(request, context)

    return _guard_upload(validated, operation)


def _guard_upload(method: Any, operation: str) -> Any:
    """A method with one answer; what it takes may be a stream, whose messages it validates itself."""

    async def guarded(request: Any, context: Any) -> Any:
        result = "ok"
        try:
            return await method(request, context)
        except Exception as error:
            known = as_lensmesh_error(error, operation)
            result = known.type
            await context.abort_with_status(rpc_status.to_status(to_status(known)))
        finally:
            telemetry.REQUESTS.labels("grpc", operation, result).inc()

    return guarded


def _guard_stream(method: Any, operation: str) -> Any:
    async def validated(request: Message, context: Any) -> AsyncIterator[Any]:
        validate(request)
        async for response in method(request, context):
            yield response

    return _guard_exchange(validated, operation)


def _guard_exchange(method: Any, operation: str) -> Any:
    """A method with many answers; what it takes may be a stream, whose messages it validates itself."""

    async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
        result = "ok"
        try:
            async for response in method(request, context):
                yield response
        except Exception as error:
            known = as_lensmesh_error(error, operation)
            result = known.type
            await context.abort_with_status(rpc_status.to_status(to_status(known)))
        finally:
            telemetry.REQUESTS.labels("grpc", operation, result).inc()

    return guarded


def as_lensmesh_error(error: Exception, operation: str) -> LensmeshError:
    """The error itself when it is of the table; an internal error, logged with its cause, otherwise."""
    if isinstance(error, LensmeshError):
        return error
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, (OSError, TimeoutError)) or type(error).__module__.startswith("nats."):
        log.warning("dependency not answering", operation=operation, error=str(error) or type(error).__name__)
        return Unavailable("a server that this needs does not answer; try again", retry_after_s=2)
    log.exception("internal error", operation=operation)
    return InternalError("an internal error; the service's log has the cause")


class RpcServer:
    """A gRPC server of one service."""

    def __init__(self, settings: RpcSettings) -> None:
        self._settings = settings
        self._server = grpc.aio.server(
            interceptors=[_Guarded()],
            maximum_concurrent_rpcs=settings.concurrent_calls_max,
            options=[
                ("grpc.max_receive_message_length", settings.message_bytes_max),
                ("grpc.max_send_message_length", settings.message_bytes_max),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._names: list[str] = []

    def add(self, full_name: str, handlers: Any) -> None:
        """Add a service under its full name."""
        self._server.add_generic_rpc_handlers((handlers,))
        self._names.append(full_name)

    def add_servicer(self, add: Callable[[Any, Any], None], servicer: object, full_name: str) -> None:
        """Add a generated servicer."""
        add(servicer, self._server)
        self._names.append(full_name)

    async def start(self, address: str) -> int:
        """Listen on host:port (port 0: any free one), not yet healthy. Returns the port."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        port = self._server.add_insecure_port(address)
        await self.set_ready(False)
        await self._server.start()
        return int(port)

    async def set_ready(self, ready: bool) -> None:
        """Say by the health service whether requests are welcome."""
        serving = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, serving)

    async def stop(self) -> None:
        """Refuse new calls, let the running ones finish for a while."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._settings.drain_s_max)


def channel(address: str, settings: RpcSettings) -> grpc.aio.Channel:
    """A channel to a service of the mesh that reconnects quickly after the service restarts."""
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.max_receive_message_length", settings.message_bytes_max),
            ("grpc.max_send_message_length", settings.message_bytes_max),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ],
    )


async def health_ping(target: grpc.aio.Channel) -> None:
    """Raise unless the service at the other end says within 2 seconds that it is serving."""
    stub = health_pb2_grpc.HealthStub(target)
    started = time.monotonic()
    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise Unavailable(f"not serving (asked for {time.monotonic() - started:.2f} s)")
