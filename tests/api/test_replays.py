"""Idempotency-Key: what is sent twice is done once, and answered the same."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import httpx
import pytest
from aiohttp import web
from lensmesh.v1 import index_pb2, namespace_pb2

from runner.mesh import Mesh
from tests.api.doors import METHODS, rest_refusal, rpc, rpc_refusal, rpc_refused, rpc_upload, upload_messages
from tests.api.test_isolation import client_of
from tests.conftest import Api, PhotoHost, picture

HEADER = "Idempotency-Key"


@pytest.fixture
def once() -> dict[str, str]:
    """A key that was never used."""
    return {HEADER: f"once-{time.time_ns()}"}


def metadata(client: Api, once: dict[str, str]) -> Any:
    """The same key for the gRPC door."""
    return (*client.metadata, (HEADER.lower(), once[HEADER]))


async def test_the_same_request_gets_the_same_answer(
    space: Api, collection: str, photos: PhotoHost, number: int, once: dict[str, str]
) -> None:
    """Sent again, at either door, a request is answered as before, and no second task is made."""
    body = {"url": photos.picture_url(number), "collection_id": collection}
    first = await space.http.post("/index/images/url", json=body, headers=once)
    again = await space.http.post("/ingest/images/url", json=body, headers=once)
    assert (200, first.json()) == (again.status_code, again.json())
    request = index_pb2.IndexImageRequest(**body)
    answer = await rpc(space, "IndexImage", request, metadata(space, once))
    assert first.json()["task_id"] == answer.task_id
    assert 1 == (await space.http.get(f"/tasks?collection_id={collection}")).json()["pagination"]["total"]
    other = await space.http.post("/index/images/url", json=body, headers={HEADER: once[HEADER] + "x"})
    assert first.json()["task_id"] != other.json()["task_id"]


async def test_another_request_is_refused(space: Api, collection: str, once: dict[str, str]) -> None:
    """The same key with another request is 422 and INVALID_ARGUMENT, and names the header."""
    body = {"url": "http://127.0.0.1:1/x.jpg", "collection_id": collection}
    assert 200 == (await space.http.post("/index/images/url", json=body, headers=once)).status_code
    changed = body | {"metadata": {"a": 1}}
    refusal = rest_refusal(await space.http.post("/index/images/url", json=changed, headers=once))
    assert (422, "validation_error", {HEADER}) == (refusal.code, refusal.type, set(refusal.fields))
    request = index_pb2.IndexImageRequest(**body, percolate=index_pb2.Percolate())
    found = await rpc_refused(space, "IndexImage", request, metadata(space, once))
    assert (grpc.StatusCode.INVALID_ARGUMENT, {HEADER}) == (found.code, set(found.fields))


async def test_a_failure_frees_the_key(space: Api, collection: str, once: dict[str, str]) -> None:
    """A refused request is not kept: the corrected one may use the same key."""
    bad = {"name": "x", "image": "no base64"}
    for _ in range(2):
        assert 422 == (await space.http.post("/logos", json=bad, headers=once)).status_code
    update = {"asset_id": "nope", "mode": "replace"}
    body = {"url": "http://127.0.0.1:1/x.jpg", "collection_id": collection}
    for changed, status in ((body | {"asset_update": update}, 404), (body, 200)):
        response = await space.http.post("/index/images/url", json=changed, headers=once)
        assert status == response.status_code, response.text


async def test_the_first_is_waited_for(tenant: Api, photos: PhotoHost, number: int, once: dict[str, str]) -> None:
    """While the first is being carried out, the same request is 409 and ABORTED, to be tried again; then it replays."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(request: web.Request) -> web.StreamResponse:
        asked.set()
        await go_on.wait()
        return web.Response(body=picture(number), content_type="image/jpeg")

    path = f"waited/{number}"
    photos.handlers[path] = slowly
    body = {"name": "Acme", "url": photos.url(path)}
    first = asyncio.create_task(tenant.http.post("/logos", json=body, headers=once))
    await asyncio.wait_for(asked.wait(), timeout=20)
    refusal = rest_refusal(await tenant.http.post("/logos", json=body, headers=once))
    assert (409, "still_running") == (refusal.code, refusal.type)
    go_on.set()
    answer = await first
    assert 200 == answer.status_code, answer.text
    assert answer.json() == (await tenant.http.post("/logos", json=body, headers=once)).json()
    assert 1 == (await tenant.http.get("/logos")).json()["pagination"]["total"]


async def test_an_upload_is_replayed(space: Api, collection: str, number: int, once: dict[str, str]) -> None:
    """The same form or stream is answered as before; another file under the same key is refused."""
    fields = {"collection_id": collection}

    async def upload(content: bytes) -> httpx.Response:
        files = {"file": ("x.jpg", content, "image/jpeg")}
        return await space.http.post("/index/images/upload", data=fields, files=files, headers=once)

    first = await upload(picture(number))
    assert first.json() == (await upload(picture(number))).json()
    more = (HEADER.lower(), once[HEADER])
    answer = await rpc_upload(space, upload_messages(picture(number), **fields), more)
    assert first.json()["task_id"] == answer.task_id
    assert {HEADER} == set(rest_refusal(await upload(picture(number + 1))).fields)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc_upload(space, upload_messages(picture(number + 1), **fields), more)
    assert {HEADER} == set(rpc_refusal(caught.value).fields)


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_what_is_no_key_is_refused(space: Api, collection: str, key: str) -> None:
    """A key has 1 to 255 characters; where nothing is written, nobody looks at it."""
    body = {"collection_name": f"{collection}-more"}
    refusal = rest_refusal(await space.http.post("/collections", json=body, headers={HEADER: key}))
    assert (422, {HEADER}) == (refusal.code, set(refusal.fields))
    request = namespace_pb2.CreateCollectionRequest(**body)
    found = await rpc_refused(space, "CreateCollection", request, metadata(space, {HEADER: key}))
    assert (grpc.StatusCode.INVALID_ARGUMENT, refusal.fields) == (found.code, found.fields)
    assert 200 == (await space.http.get("/collections", headers={HEADER: key})).status_code


async def test_secrets_are_not_kept(api: Api, once: dict[str, str]) -> None:
    """Making and rotating API keys take no such key: their answers would have to be stored."""
    path = f"/organizations/users/s{time.time_ns()}@example.org/api-keys"
    for each in (path, f"{path}/default/rotate"):
        refusal = rest_refusal(await api.http.post(each, json={}, headers=once))
        assert (422, {HEADER}) == (refusal.code, set(refusal.fields))
    assert 404 == (await api.http.get(path)).status_code


async def test_keys_of_others_are_not_seen(
    mesh: Mesh, api: Api, space: Api, collection: str, once: dict[str, str]
) -> None:
    """The same Idempotency-Key of another API key, namespace or operation is another one."""
    other = await client_of(mesh, api, f"replay-{time.time_ns()}")
    body = {"collection_name": f"of-{collection}"}
    answers = [
        (await client.http.post("/collections", json=body, headers=once | more)).json()
        for client, more in ((space, {}), (other, {}), (api, {}), (api, {"X-Namespace": "api-suite"}))
    ]
    assert "error" in answers.pop(), "the last is the first's collection once more, by another key: a conflict"
    assert 3 == len({answer["collection_id"] for answer in answers})
    logo = {"name": "x", "image": "AA=="}
    assert 422 == (await space.http.post("/logos", json=logo, headers=once)).status_code
    await other.http.aclose()
    await other.channel.close()


async def test_every_operation_that_writes_describes_the_header(api: Api) -> None:
    """The description names the header where something is written and one answer comes, and nowhere else."""
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    described = {
        operation["operationId"]
        for item in paths.values()
        for operation in item.values()
        if HEADER in {each["name"] for each in operation["parameters"]}
    }
    assert {"IndexImage", "IndexUpload", "DeleteLogo", "CreateNamespace", "UploadFile"} <= described
    reads = {name for name in METHODS if name.startswith(("Get", "List", "Watch", "Search", "Find"))}
    assert not described & {*reads, "Reembed", "CreateKey", "RotateKey"}
