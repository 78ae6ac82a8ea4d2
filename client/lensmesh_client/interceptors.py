"""What is done to every gRPC call: the key, a deadline, repeating what passes, and errors of this package."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any, Self

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from lensmesh.rpc import KEYED, ONCE

from lensmesh_client.errors import FieldViolation, LensmeshError, Unreachable, error_of
from lensmesh_client.retries import Retries


def blocking(channel: grpc.Channel, api_key: str, namespace: str, retries: Retries, timeout_s: float) -> grpc.Channel:
    """A channel whose calls are treated so. Arguments as `GrpcClient`'s."""
    return grpc.intercept_channel(channel, _Interceptor(_Ways(_metadata(api_key, namespace), retries, timeout_s)))


def asynchronous(api_key: str, namespace: str, retries: Retries, timeout_s: float) -> Any:
    """The interceptors of a channel of grpc.aio whose calls are treated so."""
    ways = _Ways(_metadata(api_key, namespace), retries, timeout_s)
    # grpc.aio takes an interceptor for the first kind of calls that it is one of, and for no other.
    return _AsyncUnary(ways), _AsyncStream(ways), _AsyncUpload(ways), _AsyncExchange(ways)


def error_from(error: grpc.RpcError) -> LensmeshError:
    """The error in a status; one that the mesh did not write means that it was not reached."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details if status else ():
        detail.Unpack(info) or detail.Unpack(bad) or detail.Unpack(retry)
    if info.domain != "lensmesh":
        code, text = error.code(), error.details()
        return Unreachable(f"the mesh does not answer: {text} ({code.name})")
    return error_of(
        info.reason.lower(),
        error.details() or "",
        violations=[FieldViolation(each.field, each.description, each.reason) for each in bad.field_violations],
        details=dict(info.metadata),
        retry_after_s=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
    )


def _metadata(api_key: str, namespace: str) -> tuple[tuple[str, str], ...]:
    scope = (("x-namespace", namespace),) if namespace else ()
    return (("authorization", f"Bearer {api_key}"), *scope)


class _Ways:
    """What is added to each call, and how often it is made."""

    def __init__(self, metadata: tuple[tuple[str, str], ...], retries: Retries, timeout_s: float) -> None:
        self._metadata = metadata
        self._timeout_s = timeout_s
        self.retries = retries

    def details(self, given: Any, kind: Callable[..., Any], *, stream: bool = False) -> Any:
        """The details of a call with the key and a deadline; what the caller gave stays."""
        path = given.method.decode() if isinstance(given.method, bytes) else given.method
        own = tuple(given.metadata or ())
        names = {name for name, _ in own}
        key = (("idempotency-key", str(uuid.uuid4())),) if path in KEYED else ()
        metadata = own + tuple(each for each in (*self._metadata, *key) if each[0] not in names)
        timeout = given.timeout if given.timeout is not None or stream else self._timeout_s
        values = {"method": given.method, "timeout": timeout, "credentials": given.credentials}
        return kind(**values, metadata=metadata, wait_for_ready=given.wait_for_ready)

    @staticmethod
    def once(details: Any) -> bool:
        """Whether a call may not be made again: the mesh would not know it for the same."""
        path = details.method.decode() if isinstance(details.method, bytes) else details.method
        return path in ONCE


class _Details(grpc.ClientCallDetails):
    """The details of a blocking call."""

    def __init__(self, **values: Any) -> None:
        self.compression = None
        for name, value in values.items():
            setattr(self, name, value)


class _Interceptor(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]
):
    """Of blocking calls."""

    def __init__(self, ways: _Ways) -> None:
        self._ways = ways

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        details, attempts = self._ways.details(client_call_details, _Details), self._ways.retries.begin()
        while True:
            call = continuation(details, request)
            failure = call.exception()
            if failure is None:
                return call
            known = error_from(failure)
            if self._ways.once(details):
                raise known
            time.sleep(attempts.pause(known))

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return _Translated(continuation(self._ways.details(client_call_details, _Details, stream=True), request))

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        details = self._ways.details(client_call_details, _Details, stream=True)
        return _Translated(continuation(details, request_iterator))

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        # What was taken out of the caller's iterator can't be sent again.
        call = continuation(self._ways.details(client_call_details, _Details), request_iterator)
        failure = call.exception()
        if failure is not None:
            raise error_from(failure)
        return call


class _Translated:
    """A stream whose end may be an error of this package."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise error_from(error) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class _Refused:
    """A call that ended with an error of this package, which its answer raises; the rest is the call's own.

    Raising in the interceptor itself would do the same, but grpc.aio asks such calls for their results when it drops
    them, and then complains on stderr.
    """

    def __init__(self, call: Any, error: LensmeshError) -> None:
        self._call = call
        self._error = error

    def __await__(self) -> Generator[Any]:
        raise self._error
        yield

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


_KINDS: Any = (grpc.aio.UnaryUnaryCall, grpc.aio.StreamUnaryCall)
for _kind in _KINDS:
    _kind.register(_Refused)


class _AsyncUnary(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """Of calls with one request and one answer."""

    def __init__(self, ways: _Ways) -> None:
        self._ways = ways

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        details, attempts = self._ways.details(client_call_details, _async_details), self._ways.retries.begin()
        while True:
            call = await continuation(details, request)
            try:
                await call
                return call
            except grpc.aio.AioRpcError as error:
                known = error_from(error)
            if self._ways.once(details):
                return _Refused(call, known)
            try:
                await asyncio.sleep(attempts.pause(known))
            except LensmeshError:
                return _Refused(call, known)


class _AsyncStream(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    """Of streams of answers."""

    def __init__(self, ways: _Ways) -> None:
        self._ways = ways

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        details = self._ways.details(client_call_details, _async_details, stream=True)
        return _translated(await continuation(details, request))


class _AsyncExchange(grpc.aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    """Of streams of requests and answers."""

    def __init__(self, ways: _Ways) -> None:
        self._ways = ways

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        details = self._ways.details(client_call_details, _async_details, stream=True)
        return _translated(await continuation(details, request_iterator))


async def _translated(call: Any) -> AsyncIterator[Any]:
    ending = _Ending(call)
    try:
        async for answer in call:
            yield answer
    except grpc.aio.AioRpcError as error:
        raise error_from(ending.error or error) from error


class _Ending:
    """How a call first ended: the status that the server sent.

    grpc.aio writes INTERNAL over it when there was more to send (https://github.com/grpc/grpc/issues/36066), so that a
    wrong key would look like a mesh that does not answer.
    """

    def __init__(self, call: Any) -> None:
        self.error: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._ended)

    def _ended(self, call: Any) -> None:
        if self.error is None:
            code, trailing, details = map(_at_hand, (call.code(), call.trailing_metadata(), call.details()))
            self.error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details, "")


def _at_hand(answer: Coroutine[Any, Any, Any]) -> Any:
    """What an ended call tells of itself, which takes no waiting."""
    try:
        answer.send(None)
    except StopIteration as returned:
        return returned.value
    answer.close()
    raise RuntimeError("the call has not ended")


class _AsyncUpload(grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[type-arg]
    """Of uploads, which are sent once: what was taken out of the caller's iterator can't be sent again."""

    def __init__(self, ways: _Ways) -> None:
        self._ways = ways

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        call = await continuation(self._ways.details(client_call_details, _async_details), request_iterator)
        ending = _Ending(call)
        try:
            await call
            return call
        except grpc.aio.AioRpcError as error:
            return _Refused(call, error_from(ending.error or error))


def _async_details(**values: Any) -> grpc.aio.ClientCallDetails:
    return grpc.aio.ClientCallDetails(**values | {"metadata": grpc.aio.Metadata(*values["metadata"])})
