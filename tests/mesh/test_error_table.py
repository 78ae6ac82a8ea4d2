"""Every error of the table over both real sockets: one class, one meaning, whatever the protocol."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import httpx
import pytest
import uvicorn
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from lensmesh.v1 import task_pb2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.gateway.rest.routes import guarded
from services.mesh.errors import InvalidArgument, LensmeshError, error_classes
from services.mesh.rpc import RpcServer, RpcSettings, from_rpc_error

CLASSES = error_classes()
METHOD = "/lensmesh.v1.TestService/Raise"
RETRY_AFTER_S = 6.5


def error_of(kind: str) -> Exception:
    """An error of the table by its type, or one that no code expected."""
    if kind == "unexpected":
        return ZeroDivisionError("a secret of ours")
    if kind == "broken connection":
        return ConnectionResetError("10.0.0.1 a secret of ours")
    if CLASSES[kind] is InvalidArgument:
        return InvalidArgument.field("queries.0.value", "is wrong", "test.rule")
    return CLASSES[kind](f"about {kind}", retry_after_s=RETRY_AFTER_S, details={"asset_id": "a"})


@dataclass
class Doors:
    """A server of each protocol that raises what it is asked for."""

    http: httpx.AsyncClient
    channel: grpc.aio.Channel

    async def rest(self, kind: str) -> httpx.Response:
        """The REST answer."""
        return await self.http.get(f"/raise/{kind}")

    async def rpc(self, kind: str, *, stream: bool = False) -> grpc.aio.AioRpcError:
        """The gRPC status."""
        method = METHOD + ("Stream" if stream else "")
        make = self.channel.unary_stream if stream else self.channel.unary_unary
        call = make(
            method,
            request_serializer=task_pb2.GetTaskRequest.SerializeToString,
            response_deserializer=task_pb2.GetTaskResponse.FromString,
        )(task_pb2.GetTaskRequest(task_id=kind))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (anext(aiter(call)) if stream else call)
        return caught.value


async def raise_unary(request: task_pb2.GetTaskRequest, context: object) -> task_pb2.GetTaskResponse:
    """A method that fails."""
    raise error_of(request.task_id)


async def raise_stream(request: task_pb2.GetTaskRequest, context: object) -> AsyncIterator[task_pb2.GetTaskResponse]:
    """A stream that fails."""
    raise error_of(request.task_id)
    yield


async def raise_rest(request: Request) -> Response:
    """An endpoint that fails."""
    raise error_of(request.path_params["kind"])


@pytest.fixture(scope="module")
async def doors() -> AsyncIterator[Doors]:
    """Both servers on free ports."""
    coders = {
        "request_deserializer": task_pb2.GetTaskRequest.FromString,
        "response_serializer": task_pb2.GetTaskResponse.SerializeToString,
    }
    handlers = {
        "Raise": grpc.unary_unary_rpc_method_handler(raise_unary, **coders),
        "RaiseStream": grpc.unary_stream_rpc_method_handler(raise_stream, **coders),
    }
    server = RpcServer(RpcSettings())
    server.add("lensmesh.v1.TestService", grpc.method_handlers_generic_handler("lensmesh.v1.TestService", handlers))
    port = await server.start("127.0.0.1:0")
    app = Starlette(routes=[Route("/raise/{kind}", guarded("raise", raise_rest))])
    listening = socket.create_server(("127.0.0.1", 0))
    rest = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    serving = asyncio.create_task(rest._serve([listening]))
    url = "http://{}:{}".format(*listening.getsockname())
    async with httpx.AsyncClient(base_url=url) as http, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Doors(http, channel)
    rest.should_exit = True
    await serving
    await server.stop()


@pytest.mark.parametrize("kind", CLASSES)
async def test_rest_tells_the_class(doors: Doors, kind: str) -> None:
    """Status, type and message are the class's, and those that may be tried again say when."""
    response = await doors.rest(kind)
    body, known = response.json(), CLASSES[kind]
    assert (known.http_status, known.http_status) == (response.status_code, body["status"])
    assert kind == body["error"]["type"]
    assert kind in body["error"]["message"] or kind == "validation_error"
    if response.status_code in (429, 503):
        assert "7" == response.headers["retry-after"]
    else:
        assert "retry-after" not in response.headers
    if response.status_code == 422:
        assert all({"loc", "msg", "type"} == set(each) for each in body["detail"])
    else:
        assert [{"msg": body["error"]["message"]}] == body["detail"]


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("kind", CLASSES)
async def test_grpc_tells_the_class(doors: Doors, kind: str, stream: bool) -> None:
    """Code, reason and message are the class's, and RetryInfo comes with those that may be tried again."""
    error, known = await doors.rpc(kind, stream=stream), CLASSES[kind]
    assert known.grpc_code == error.code()
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    assert (error.code().value[0], error.details()) == (status.code, status.message)
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    unpacked = {type(each) for detail in status.details for each in (info, retry, bad) if detail.Unpack(each)}
    assert (kind.upper(), "lensmesh") == (info.reason, info.domain)
    assert known.retryable == (error_details_pb2.RetryInfo in unpacked)
    if known.retryable:
        assert RETRY_AFTER_S <= retry.retry_delay.ToTimedelta().total_seconds() < RETRY_AFTER_S + 1
    assert (known is InvalidArgument) == (error_details_pb2.BadRequest in unpacked)


@pytest.mark.parametrize("kind", CLASSES)
async def test_an_error_comes_back_as_it_was(doors: Doors, kind: str) -> None:
    """What another service of the mesh raised is raised here again: class, message, details, fields."""
    sent, back = error_of(kind), from_rpc_error(await doors.rpc(kind), "test")
    assert isinstance(sent, LensmeshError)
    assert type(sent) is type(back)
    assert str(sent) == str(back) == back.message
    assert sent.details == back.details
    if isinstance(sent, InvalidArgument) and isinstance(back, InvalidArgument):
        assert sent.violations == back.violations
    if sent.retryable:
        assert back.retry_after_s is not None


@pytest.mark.parametrize(("kind", "status"), [("unexpected", 500), ("broken connection", 503)])
async def test_what_nobody_expected_tells_nothing(doors: Doors, kind: str, status: int) -> None:
    """Faults of ours and of servers behind are told as such, without their own words."""
    response, error = await doors.rest(kind), await doors.rpc(kind)
    assert (status, "retry-after" in response.headers) == (response.status_code, status == 503)
    code = grpc.StatusCode.INTERNAL if status == 500 else grpc.StatusCode.UNAVAILABLE
    assert code == error.code()
    assert "secret" not in response.text + (error.details() or "")


async def test_a_service_that_is_not_there_is_unavailable() -> None:
    """A refused connection is Unavailable, which a caller may try again."""
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(METHOD)(b"", timeout=5)
    known = from_rpc_error(caught.value, "vision")
    assert ("unavailable", True, True) == (known.type, known.retryable, "vision" in known.message)


def test_types_are_distinct_and_public() -> None:
    """Each class has a type of its own in snake_case, and a status that fits whether a retry may help."""
    for kind, known in CLASSES.items():
        assert kind.replace("_", "").isalpha()
        assert kind == known.type
        assert known.http_status in range(400, 600)
        assert known.grpc_code is not grpc.StatusCode.OK
