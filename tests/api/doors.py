"""Calls of both doors, and their refusals in one comparable form; the shapes of errors are checked on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from lensmesh.v1 import index_pb2

from services.gateway.core.core import PUBLIC_SERVICES
from tests.conftest import Api

METHODS = {method.name: method for service in PUBLIC_SERVICES for method in service.methods}


@dataclass(frozen=True)
class Refusal:
    """Why a door refused: the status or code, the error's type, its message, and messages by dotted field."""

    code: int | grpc.StatusCode
    type: str
    message: str
    fields: Mapping[str, str] = field(default_factory=dict)


def rest_refusal(response: httpx.Response) -> Refusal:
    """The refusal in a REST response, which has the API's error shape."""
    body = response.json()
    assert {"success", "status", "error", "detail"} == set(body)
    assert body["success"] is False
    assert response.status_code == body["status"]
    assert {"message", "type", "details"} == set(body["error"])
    assert "application/json" == response.headers["content-type"]
    assert body["detail"]
    fields = {}
    for each in body["detail"]:
        if response.status_code == 422:
            assert {"loc", "msg", "type"} == set(each)
            assert each["loc"][0] in ("body", "query", "path", "header")
            assert all(isinstance(part, str | int) for part in each["loc"])
            assert not any(isinstance(part, str) and part.isdigit() for part in each["loc"]), each["loc"]
            fields[".".join(map(str, each["loc"][1:]))] = each["msg"]
        else:
            assert {"msg"} == set(each)
    return Refusal(body["status"], body["error"]["type"], body["error"]["message"], fields)


def _path(name: str) -> str:
    return f"/{METHODS[name].containing_service.full_name}/{name}"


def _response_class(name: str) -> Any:
    return GetMessageClass(METHODS[name].output_type)


async def rpc(client: Api, name: str, request: Message, metadata: Any = None) -> Any:
    """Call a unary method of the gRPC door."""
    call = client.channel.unary_unary(
        _path(name),
        request_serializer=type(request).SerializeToString,
        response_deserializer=_response_class(name).FromString,
    )
    return await call(request, metadata=client.metadata if metadata is None else metadata, timeout=60)


async def rpc_upload(client: Api, messages: Iterable[Message], *more: tuple[str, str]) -> Any:
    """Call IndexUpload with these messages, and more metadata."""
    call = client.channel.stream_unary(
        _path("IndexUpload"),
        request_serializer=index_pb2.IndexUploadRequest.SerializeToString,
        response_deserializer=_response_class("IndexUpload").FromString,
    )
    return await call(iter(messages), metadata=(*client.metadata, *more), timeout=60)


def upload_messages(content: bytes, chunk_bytes: int = 1_000, **head: Any) -> Iterator[index_pb2.IndexUploadRequest]:
    """The messages of an upload: the head, and the file in chunks."""
    yield index_pb2.IndexUploadRequest(head=index_pb2.UploadHead(**head))
    for start in range(0, len(content), chunk_bytes):
        yield index_pb2.IndexUploadRequest(chunk=content[start : start + chunk_bytes])


def rpc_stream(client: Api, name: str, request: Message) -> AsyncIterator[Any]:
    """Call a server-streaming method of the gRPC door."""
    call = client.channel.unary_stream(
        _path(name),
        request_serializer=type(request).SerializeToString,
        response_deserializer=_response_class(name).FromString,
    )
    return call(request, metadata=client.metadata, timeout=60)  # type: ignore[return-value]


async def rpc_refused(client: Api, name: str, request: Message, metadata: Any = None) -> Refusal:
    """The refusal that a call of the gRPC door ends with."""
    try:
        if METHODS[name].server_streaming:
            async for answer in rpc_stream(client, name, request):
                raise AssertionError(f"not refused: {answer}")
            raise AssertionError("not refused: an empty stream")
        answer = await rpc(client, name, request, metadata)
    except grpc.aio.AioRpcError as error:
        return rpc_refusal(error)
    raise AssertionError(f"not refused: {answer}")


def rpc_refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """The refusal in a gRPC status, which has rich details."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None, f"no details: {error.code()} {error.details()}"
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(bad)
    assert "lensmesh" == info.domain
    assert info.reason == info.reason.upper()
    fields = {each.field: each.description for each in bad.field_violations}
    return Refusal(error.code(), info.reason.lower(), error.details() or "", fields)


async def events(client: Api, path: str, *, limit: int = 100) -> list[dict[str, str]]:
    """The Server-Sent Events of a path until the stream ends or `limit` of them came."""
    found: list[dict[str, str]] = []
    async with client.http.stream("GET", path) as response:
        assert 200 == response.status_code, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        async for line in response.aiter_lines():
            if not line and event:
                found.append(event)
                event = {}
                if len(found) == limit:
                    break
            elif line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                event[name] = value
    return found


async def assets_in(client: Api, collection: str) -> int:
    """How many assets a collection holds."""
    page: str | None = "1"
    while page:
        listed = (await client.http.get(f"/collections?page={page}&page_size=100")).json()
        for each in listed["results"]:
            if each["collection_name"] == collection:
                return int(each["count"])
        page = listed["pagination"]["next_page"]
    raise AssertionError(f"no collection {collection}")
