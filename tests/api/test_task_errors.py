"""What goes wrong with an image after its request was accepted stands in the task, the same at both doors."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import nats
import pytest
from aiohttp import web
from lensmesh.v1 import pipeline_pb2 as pipeline
from lensmesh.v1 import task_pb2

from runner.mesh import Mesh
from services.mesh.bus import topology
from services.mesh.errors import error_classes
from tests.api.doors import rest_refusal, rpc
from tests.conftest import Api, PhotoHost, picture


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be huge and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 1000)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def redirecting(photos: PhotoHost) -> str:
    """A URL of the photo host that redirects to a private address."""

    async def redirect(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://10.1.2.3/x.jpg")

    photos.handlers["redirect"] = redirect
    return photos.url("redirect")


# What is asked for, the error's type, and words of its message.
CASES: dict[str, tuple[Callable[[PhotoHost], str], str, str]] = {
    "private address": (lambda photos: "http://10.0.0.1/x.jpg", "fetch_refused", "LENSMESH_FETCH_ALLOW"),
    "loopback": (lambda photos: "http://127.0.0.1:9/x.jpg", "fetch_refused", "LENSMESH_FETCH_ALLOW"),
    "loopback in disguise": (lambda photos: "http://[::ffff:127.0.0.1]:9/x", "fetch_refused", "LENSMESH_FETCH_ALLOW"),
    "cloud metadata": (lambda photos: "http://169.254.169.254/latest", "fetch_refused", "cloud metadata"),
    "password in the URL": (lambda photos: "http://a:hunter2@10.0.0.1/x", "fetch_refused", "user name or password"),
    "redirect to a private address": (redirecting, "fetch_refused", "10.1.2.3"),
    "404": (lambda photos: photos.url("no/such.jpg"), "fetch_failed", "404 Not Found"),
    "410": (lambda photos: photos.put("gone", b"", status=410), "fetch_failed", "410 Gone"),
    "HTML as PNG": (
        lambda photos: photos.put("page.png", b"<html><body>hello</body></html>", "image/png"),
        "unsupported_media_type", "",
    ),
    "SVG": (
        lambda photos: photos.put("x.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image/svg+xml"),
        "unsupported_media_type", "",
    ),
    "empty file": (lambda photos: photos.put("empty.jpg", b""), "unsupported_media_type", ""),
    "truncated JPEG": (
        lambda photos: photos.put("cut.jpg", picture(4_000_001, (400, 300))[:900]), "broken_image", "",
    ),
    "decompression bomb": (
        lambda photos: photos.put("bomb.png", png_header(30_000, 30_000), "image/png"), "file_too_large", "",
    ),
    "40 MB": (lambda photos: photos.put("big.jpg", b"\xff\xd8\xff" + b"0" * 40_000_000), "file_too_large", "33554432"),
    "unknown host": (lambda photos: "http://nothing.invalid/x.jpg", "fetch_failed", "no such host"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
async def test_a_bad_image_fails_its_task(
    space: Api, collection: str, photos: PhotoHost, case: tuple[Callable[[PhotoHost], str], str, str]
) -> None:
    """The task ends FAILED at its fetch with the error's type and a message that helps, and leaves no asset."""
    make_url, kind, says = case
    task = await space.run({"url": make_url(photos), "collection_id": collection, "percolate": {}})
    assert "FAILED" == task["status"]
    assert {"message", "type", "stage", "retryable"} == set(task["error"])
    assert (kind, "fetch", False) == (task["error"]["type"], task["error"]["stage"], task["error"]["retryable"])
    assert says in task["error"]["message"]
    assert "hunter2" not in task["error"]["message"]
    assert ("FAILED", task["error"]) == (task["steps"]["fetch"]["state"], task["steps"]["fetch"]["error"])
    assert {"PENDING"} == {step["state"] for name, step in task["steps"].items() if name != "fetch"}
    assert ([], [], None) == (task["outputs"], task["matches"], task["asset_id"])
    shown = (await rpc(space, "GetTask", task_pb2.GetTaskRequest(task_id=task["task_id"]))).task
    assert task_pb2.TASK_STATUS_FAILED == shown.status
    assert task["error"] == {name: getattr(shown.error, name) for name in task["error"]}


async def test_the_query_of_a_url_is_not_repeated(space: Api, collection: str, photos: PhotoHost) -> None:
    """The message about a URL names host and path, never the query, which may hold a secret."""
    task = await space.run({"url": photos.url("none.jpg?token=s3cret"), "collection_id": collection})
    assert ("FAILED", True) == (task["status"], "none.jpg" in task["error"]["message"])
    assert "s3cret" not in task["error"]["message"]


async def test_an_image_that_comes_late_is_fetched_again(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """A host that answers 503 at first is asked again, and the attempts are counted."""
    asked = 0

    async def late(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked < 3:
            return web.Response(status=503)
        return web.Response(body=picture(number), content_type="image/jpeg")

    photos.handlers[f"late/{number}"] = late
    task = await space.run({"url": photos.url(f"late/{number}"), "collection_id": collection})
    assert ("DONE", 3, 3) == (task["status"], asked, task["steps"]["fetch"]["attempts"])


async def test_a_failed_input_leaves_the_rest(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """An embedding whose own image can't be fetched fails the task at that step; what was extracted is kept."""
    embed = [
        {"type": "url", "vector_index": "multimodal"},
        {"type": "url", "vector_index": "image", "value": photos.url("no/such.jpg"), "field_name": "other"},
    ]
    body = {"url": photos.picture_url(number), "collection_id": collection}
    task = await space.run(body | {"feature_extractors": {"embed": embed, "read": {}}})
    assert ("FAILED", "fetch_failed", "embed") == (task["status"], task["error"]["type"], task["error"]["stage"])
    states = {name: step["state"] for name, step in task["steps"].items()}
    assert {"fetch": "DONE", "read": "DONE", "embed": "FAILED", "store": "DONE"} == states
    found = (await space.http.get(f"/assets/{task['asset_id']}/features")).json()
    assert ("FAILED", True) == (found["asset"]["status"], bool(found["asset"]["error"]))
    assert ["multimodal"] == [each["field_name"] for each in found["features"]["image"][0]["vector_info"]]
    assert 1 == len(task["outputs"])


async def test_a_failed_task_is_a_dead_letter(mesh: Mesh, space: Api, collection: str, photos: PhotoHost) -> None:
    """A task that failed for good leaves a letter with its error, for those who look after the mesh."""
    task = await space.run({"url": photos.url("no/letter.jpg"), "collection_id": collection})
    client = await nats.connect(mesh.endpoints["nats_url"])
    namespaces = (await space.http.get("/namespaces")).json()
    subject = f"{topology.DEAD_LETTER_SUBJECT}.{namespaces[0]['namespace_id']}.{task['task_id']}"
    message = await client.jetstream().get_last_msg(topology.DEAD_LETTERS, subject)
    letter = pipeline.DeadLetter.FromString(message.data or b"")
    assert (task["task_id"], task["error"]["message"]) == (letter.task_id, letter.error.message)
    await client.close()


async def test_an_asset_that_is_not_there_is_said_at_once(space: Api, collection: str, photos: PhotoHost) -> None:
    """asset_update of an unknown asset is a 404 to the request itself, not a failed task."""
    for asset_id in ("00000000-0000-0000-0000-000000000000", "a b", "x' or 1 == 1", '"'):
        update = {"asset_id": asset_id, "mode": "append"}
        body = {"url": photos.picture_url(1), "collection_id": collection, "asset_update": update}
        refusal = rest_refusal(await space.http.post("/index/images/url", json=body))
        assert (404, "not_found") == (refusal.code, refusal.type)


async def test_error_types_in_tasks_are_those_of_the_table() -> None:
    """Every type that these tests expect is one of the error table."""
    assert {kind for _, kind, _ in CASES.values()} <= set(error_classes())
