"""What our client sends again, how long it waits before, and what errors it knows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from aiohttp import web
from lensmesh.rpc import ONCE
from lensmesh.v1 import index_pb2

from lensmesh_client import NEVER, AsyncGrpcClient, AsyncRestClient, GrpcClient, RestClient, Retries, errors
from lensmesh_client.retries import Attempts
from services.gateway.core import calls
from services.mesh.errors import Unavailable, error_classes
from services.mesh.rpc import RpcServer, RpcSettings

# Pauses too short to be noticed.
SOON = Retries(attempts_max=4, seconds_max=30, first_s=0.001, longest_s=0.002)


@dataclass
class Answers:
    """A server that answers what it was told to, one after the other, and keeps what it was asked."""

    url: str = ""
    planned: list[tuple[int, dict[str, str], Any]] = field(default_factory=list)
    asked: list[web.Request] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; status 0 breaks the connection."""
        self.asked.append(request)
        status, headers, body = self.planned.pop(0)
        if not status:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(body, str):
            return web.Response(status=status, headers=headers, text=body)
        return web.json_response(body, status=status, headers=headers)

    def keys(self) -> list[str | None]:
        """The Idempotency-Key of each request."""
        return [request.headers.get("Idempotency-Key") for request in self.asked]


def refusal(status: int, type: str, **headers: str) -> tuple[int, dict[str, str], Any]:
    """A refusal as the mesh writes it."""
    error = {"message": "no", "type": type, "details": None}
    body = {"success": False, "status": status, "error": error, "detail": [{"msg": "no"}]}
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, body


DONE: tuple[int, dict[str, str], Any] = (200, {}, {"task_id": "t"})
UNAVAILABLE = refusal(503, "unavailable")
BROKEN: tuple[int, dict[str, str], Any] = (0, {}, None)


@pytest.fixture
async def server() -> AsyncIterator[Answers]:
    """The server, on a free port."""
    answers = Answers()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answers.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    answers.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield answers
    await runner.cleanup()


@pytest.fixture
async def client(server: Answers) -> AsyncIterator[AsyncRestClient]:
    """The client of that server."""
    async with AsyncRestClient(server.url, "key", namespace="space", retries=SOON) as made:
        yield made


async def test_what_passes_is_sent_again_with_the_same_key(server: Answers, client: AsyncRestClient) -> None:
    """A write is repeated after refusals that pass and broken connections, each time under one Idempotency-Key."""
    server.planned = [UNAVAILABLE, BROKEN, refusal(409, "still_running"), DONE]
    assert {"task_id": "t"} == await client.index.index_image(url="http://a/b", collection_id="c")
    keys = server.keys()
    assert 4 == len(keys)
    assert keys[0]
    assert {keys[0]} == set(keys)
    assert {("Bearer key", "space")} == {(r.headers["Authorization"], r.headers["X-Namespace"]) for r in server.asked}


async def test_blocking_calls_are_sent_again_too(server: Answers) -> None:
    """The blocking client repeats as the other does."""
    server.planned = [BROKEN, UNAVAILABLE, DONE]
    with RestClient(server.url, "key", retries=SOON) as client:
        answer = await asyncio.to_thread(client.index.index_image, url="http://a/b", collection_id="c")
    assert {"task_id": "t"} == answer
    assert 1 == len(set(server.keys()))


async def test_two_calls_have_two_keys(server: Answers, client: AsyncRestClient) -> None:
    """The same call made twice is two requests for the mesh."""
    server.planned = [DONE, DONE]
    for _ in range(2):
        await client.index.index_image(url="http://a/b", collection_id="c")
    assert 2 == len(set(server.keys()))


@pytest.mark.parametrize(
    ("planned", "raised"),
    [
        (refusal(404, "not_found"), errors.NotFound),
        (refusal(403, "quota_exceeded"), errors.QuotaExceeded),
        (refusal(500, "internal_error"), errors.InternalError),
        (refusal(418, "teapot"), errors.LensmeshError),
        ((404, {}, "<html>"), errors.LensmeshError),
    ],
)
async def test_what_does_not_pass_is_sent_once(
    server: Answers, client: AsyncRestClient, planned: Any, raised: type[errors.LensmeshError]
) -> None:
    """A refusal that trying again would not change raises at once."""
    server.planned = [planned]
    with pytest.raises(raised):
        await client.tasks.get_task(task_id="t")
    assert 1 == len(server.asked)


async def test_attempts_end(server: Answers, client: AsyncRestClient) -> None:
    """After the allowed attempts the last error is raised."""
    server.planned = [UNAVAILABLE] * 5
    with pytest.raises(errors.Unavailable):
        await client.tasks.get_task(task_id="t")
    assert SOON.attempts_max == len(server.asked)


async def test_a_proxys_answer_passes_too(server: Answers, client: AsyncRestClient) -> None:
    """A gateway before the mesh that says 502 in HTML is tried again."""
    server.planned = [(502, {}, "<html>bad gateway</html>"), DONE]
    assert {"task_id": "t"} == await client.tasks.get_task(task_id="t")


async def test_a_key_is_made_once(server: Answers, client: AsyncRestClient) -> None:
    """Making an API key is not repeated, and carries no Idempotency-Key: the mesh keeps no secret to replay."""
    server.planned = [UNAVAILABLE, DONE]
    with pytest.raises(errors.Unavailable):
        await client.keys.create_key(email="a@example.org")
    assert [None] == server.keys()


def test_what_is_sent_once_is_what_the_mesh_does_not_replay() -> None:
    """The calls without an Idempotency-Key are those whose answers the gateway never keeps."""
    assert calls._NEVER_REPLAYED == {path.rpartition("/")[2] for path in ONCE}


def test_the_mesh_is_given_the_time_it_asks_for() -> None:
    """A pause is never shorter than Retry-After, and one that would be too long is not made."""
    attempts = Retries(attempts_max=9, seconds_max=10, first_s=0.1).begin()
    assert 7.0 == attempts.pause(errors.ResourceExhausted("full", retry_after_s=7))
    too_long = errors.ResourceExhausted("full", retry_after_s=60)
    with pytest.raises(errors.ResourceExhausted):
        attempts.pause(too_long)


def test_pauses_grow_up_to_a_bound() -> None:
    """The bound of a pause doubles, and then stays."""
    limits = Retries(attempts_max=50, seconds_max=1e9, first_s=1, longest_s=4)

    def longest(attempt: int) -> float:
        pauses = []
        for _ in range(200):
            attempts = Attempts(limits)
            pauses.append([attempts.pause(errors.Unavailable("no")) for _ in range(attempt)][-1])
        return max(pauses)

    assert longest(1) <= 1 < longest(2) <= 2 < longest(3) <= 4
    assert longest(9) <= 4


def test_its_table_is_the_meshs() -> None:
    """Every type of the mesh's error table has a class here, and both agree on whether trying again may help."""
    ours = {name: each.RETRYABLE for name, each in errors.TABLE.items() if each not in errors.OWN}
    assert {name: each.retryable for name, each in error_classes().items()} == ours


async def test_a_retry_after_is_read(server: Answers, client: AsyncRestClient) -> None:
    """The header Retry-After is in the exception, also of a type that this client does not know."""
    server.planned = [refusal(429, "resource_exhausted", Retry_After="40"), refusal(503, "new", Retry_After="41")]
    for expected in (40.0, 41.0):
        with pytest.raises(errors.LensmeshError) as refused:
            await client.tasks.get_task(task_id="t")
        assert (expected, True) == (refused.value.retry_after_s, refused.value.retryable)


def events(*values: object, name: str = "task") -> tuple[int, dict[str, str], Any]:
    """A stream of events that ends after these."""
    text = "".join(f"event: {name}\ndata: {json.dumps(value)}\n\n" for value in values)
    return 200, {"Content-Type": "text/event-stream"}, f": still here\n\n{text}"


def task(status: str) -> dict[str, str]:
    """As much of a task as waiting looks at."""
    return {"status": status}


ENDING = [
    events(task("QUEUED")),
    BROKEN,
    UNAVAILABLE,
    events({"type": "unavailable", "message": "no"}, name="error"),
    events(task("PROCESSING"), task("DONE")),
]


async def test_waiting_goes_on_where_a_stream_broke(server: Answers, client: AsyncRestClient) -> None:
    """Who waits for a task sees its end, whatever became of the streams in between."""
    server.planned = list(ENDING)
    assert task("DONE") == await client.wait("t", timeout_s=60)
    assert [] == server.planned


async def test_blocking_waiting_goes_on_too(server: Answers) -> None:
    """The blocking client waits as the other does."""
    server.planned = list(ENDING)
    with RestClient(server.url, "key") as client:
        assert task("DONE") == await asyncio.to_thread(client.wait, "t", timeout_s=60)


async def test_waiting_ends_in_time(server: Answers) -> None:
    """A task that does not end is waited for as long as was said, by both clients."""
    server.planned = [events(task("QUEUED"))] * 50
    async with AsyncRestClient(server.url, "key") as client:
        with pytest.raises(errors.TimedOut):
            await client.wait("t", timeout_s=0.05)
    with RestClient(server.url, "key") as blocking, pytest.raises(errors.TimedOut):
        await asyncio.to_thread(blocking.wait, "t", timeout_s=0.05)


async def test_following_goes_on_from_the_last_cursor(server: Answers, client: AsyncRestClient) -> None:
    """After a break, matches are asked for from where the last one stood; none comes twice."""
    server.planned = [events({"match": {}, "cursor": 7}, name="match"), BROKEN, events({"match": {}, "cursor": 9})]
    cursors = []
    async for match in client.follow_matches(cursor=5):
        cursors.append(match["cursor"])
        if len(cursors) == 2:
            break
    assert [7, 9] == cursors
    assert ["5", "7", "7"] == [request.query["cursor"] for request in server.asked]


@dataclass
class Calls:
    """A gRPC service whose first answers are refusals that pass."""

    refusals: int
    keys: list[str] = field(default_factory=list)

    async def index_image(self, request: Any, context: Any) -> index_pb2.IndexImageResponse:
        """Answer one call."""
        self.keys.append(dict(context.invocation_metadata()).get("idempotency-key", ""))
        if len(self.keys) <= self.refusals:
            raise Unavailable("not now", retry_after_s=1)
        return index_pb2.IndexImageResponse(task_id="t")


@pytest.fixture
async def rpc() -> AsyncIterator[tuple[Calls, str]]:
    """That service on a free port, and its address."""
    calls = Calls(refusals=1)
    handler = grpc.unary_unary_rpc_method_handler(
        calls.index_image,
        request_deserializer=index_pb2.IndexImageRequest.FromString,
        response_serializer=index_pb2.IndexImageResponse.SerializeToString,
    )
    name = "lensmesh.v1.IndexService"
    rpc_server = RpcServer(RpcSettings())
    rpc_server.add(name, grpc.method_handlers_generic_handler(name, {"IndexImage": handler}))
    yield calls, f"127.0.0.1:{await rpc_server.start('127.0.0.1:0')}"
    await rpc_server.stop()


async def test_grpc_calls_are_sent_again_with_the_same_key(rpc: tuple[Calls, str]) -> None:
    """Both gRPC clients repeat what passes, after the time that RetryInfo asks for, under one key a call."""
    calls, address = rpc
    request = index_pb2.IndexImageRequest(url="http://a/b", collection_id="c")
    async with AsyncGrpcClient(address, "key", retries=SOON) as client:
        assert "t" == (await client.index.IndexImage(request)).task_id
    assert 2 == len(calls.keys)
    assert 1 == len(set(calls.keys))
    calls.keys.clear()
    with GrpcClient(address, "key", retries=SOON) as blocking:
        assert "t" == (await asyncio.to_thread(blocking.index.IndexImage, request)).task_id
    assert 2 == len(calls.keys)
    assert 1 == len(set(calls.keys))
    calls.keys.clear()
    async with AsyncGrpcClient(address, "key", retries=NEVER) as client:
        with pytest.raises(errors.Unavailable) as refused:
            await client.index.IndexImage(request)
    assert (1.0, True) == (refused.value.retry_after_s, refused.value.retryable)
