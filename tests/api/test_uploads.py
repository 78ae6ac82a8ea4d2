"""Images that come as files: by form and by stream, with the outcome that the same image behind a URL has."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import grpc
import httpx
import pytest

from runner.mesh import Mesh
from tests.api.doors import assets_in, rest_refusal, rpc_refusal, rpc_upload, upload_messages
from tests.conftest import Api, PhotoHost, picture

UPLOAD = "/index/images/upload"
EMBED = {"embed": [{"type": "url", "vector_index": "image"}], "describe": {}}


async def upload(
    client: Api, content: bytes, fields: dict[str, str], path: str = UPLOAD, **headers: str
) -> httpx.Response:
    """Send a form."""
    files = {"file": ("picture.jpg", content, "image/jpeg")}
    return await client.http.post(path, data=fields, files=files, headers=headers)


async def uploaded(client: Api, content: bytes, body: dict[str, Any]) -> dict[str, Any]:
    """The ended task of a form with one JSON part."""
    response = await upload(client, content, {"json": json.dumps(body)})
    assert 200 == response.status_code, response.text
    return await client.finished(response.json()["task_id"])


def told(task: dict[str, Any]) -> dict[str, Any]:
    """What does not differ between two tasks of one image."""
    return {"status": task["status"], "steps": {name: step["state"] for name, step in task["steps"].items()}}


async def test_an_upload_is_indexed_as_its_url_is(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """Both doors make the asset that the URL makes; inputs say "file" and its hash; all of it is one file."""
    content = picture(number)
    body = {"collection_id": collection, "metadata": {"a": 1}, "feature_extractors": EMBED}
    by_url = await space.run({**body, "url": photos.picture_url(number)})
    by_form = await uploaded(space, content, body)
    head = {
        "collection_id": collection,
        "metadata": {"a": 1},
        "feature_extractors": {"embed": [{"type": 1, "vector_index": 1}], "describe": {}},
    }
    answer = await rpc_upload(space, upload_messages(content, **head))
    by_stream = await space.finished(answer.task_id)
    assert told(by_url) == told(by_form) == told(by_stream)
    sha256 = hashlib.sha256(content).hexdigest()
    assert [{"type": "file", "value": sha256}] == by_form["inputs"] == by_stream["inputs"]
    assets = [(await space.http.get(f"/assets/{task['asset_id']}")).json() for task in (by_url, by_form, by_stream)]
    assert 3 == len({asset["asset_id"] for asset in assets})
    for asset in assets:
        assert (sha256, {"a": 1}, "image", "DONE") == (
            asset["file_hash"], asset["metadata"], asset["modality"], asset["status"],
        )  # fmt: skip
    assert 1 == len({asset["perceptual_hash"] for asset in assets})


async def test_a_part_for_each_field_is_taken(space: Api, collection: str, number: int) -> None:
    """Fields may come as parts: JSON where a field is none, as it is where it is a text; names have their aliases."""
    fields = {
        "collection": collection,
        "metadata": '{"n": 7}',
        "image_settings": json.dumps(EMBED),
        "prevent_duplicate": "false",
        "on_duplicate": "reindex",
        "percolate": "null",
    }
    response = await upload(space, picture(number), fields, "/v1/ingest/images/upload")
    assert 200 == response.status_code, response.text
    task = await space.finished(response.json()["task_id"])
    assert ("DONE", True, True) == (task["status"], "describe" in task["steps"], "percolate" not in task["steps"])
    assert {"n": 7} == (await space.http.get(f"/assets/{task['asset_id']}")).json()["metadata"]


@pytest.mark.parametrize(
    ("fields", "place", "says"),
    [
        ({}, "collection_id", "required"),
        ({"collection_id": "c", "url": "http://x/y"}, "url", "not a field"),
        ({"json": "{"}, "json", "not JSON"),
        ({"json": "[1]"}, "json", "JSON object"),
        ({"collection_id": "c", "metadata": "no json"}, "metadata", "must be an object"),
        ({"collection_id": "c", "json": '{"collection_id": "d"}'}, "collection_id", "given twice"),
        ({"collection_id": "c", "percolate": '{"min_score": 2}'}, "percolate.min_score", "1"),
        ({"collection_id": "c", "skip_duplicate": "maybe"}, "skip_duplicate", "boolean"),
    ],
)
async def test_a_bad_form_is_refused(space: Api, fields: dict[str, str], place: str, says: str) -> None:
    """Each mistake of a form is a 422 that names the part or the field."""
    refusal = rest_refusal(await upload(space, b"x", fields))
    assert (422, "validation_error") == (refusal.code, refusal.type)
    assert says in refusal.fields[place]


async def test_a_form_has_exactly_one_file(space: Api) -> None:
    """No file, one under another name, or an empty one is a 422 at `file`; two, or no form at all, are a 400."""
    fields = {"collection_id": "c"}
    one = ("x.jpg", b"x", "image/jpeg")
    none = await space.http.post(UPLOAD, files={"collection_id": (None, "c")})
    assert {"file"} == set(rest_refusal(none).fields)
    assert {"photo"} == set(rest_refusal(await space.http.post(UPLOAD, data=fields, files={"photo": one})).fields)
    assert {"file"} == set(rest_refusal(await upload(space, b"", fields)).fields)
    two = await space.http.post(UPLOAD, data=fields, files=[("file", one), ("file", one)])
    assert 400 == rest_refusal(two).code
    refusal = rest_refusal(await space.http.post(UPLOAD, json=fields))
    assert (400, True) == (refusal.code, "multipart/form-data" in refusal.message)


async def test_a_bad_stream_is_refused(space: Api, collection: str) -> None:
    """The head comes first and once, it keeps its rules under its fields' own names, and the file has bytes."""
    head, chunk = upload_messages(b"x", collection_id=collection)
    bare = next(upload_messages(b""))
    for messages, field in (
        ([], "head"),
        ([chunk, head], "head"),
        ([head, head], "chunk"),
        ([head], "file"),
        ([bare, chunk], "collection_id"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rpc_upload(space, messages)
        refusal = rpc_refusal(caught.value)
        assert (grpc.StatusCode.INVALID_ARGUMENT, {field}) == (refusal.code, set(refusal.fields))


async def test_too_large_a_file_is_refused_while_it_is_read(mesh: Mesh, space: Api, collection: str) -> None:
    """A file beyond the limit is 413 and OUT_OF_RANGE at every door, and nothing of it is accepted."""
    content = bytes(32_000_001)
    fields = {"collection_id": collection}
    assert (413, "payload_too_large") == _kind(await upload(space, content, fields))
    assert (413, "payload_too_large") == _kind(await space.http.post("/files", content=content))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc_upload(space, upload_messages(content, 1_000_000, **fields))
    assert grpc.StatusCode.OUT_OF_RANGE == caught.value.code()
    assert 0 == await assets_in(space, collection)


async def test_a_large_file_comes_through(space: Api, collection: str) -> None:
    """A file of several megabytes, which is never whole in the gateway's memory, arrives as it was sent."""
    content = picture(1, (1200, 1000), "BMP")
    assert len(content) > 3_000_000
    task = await uploaded(space, content, {"collection_id": collection})
    asset = (await space.http.get(f"/assets/{task['asset_id']}")).json()
    assert ("DONE", hashlib.sha256(content).hexdigest()) == (task["status"], asset["file_hash"])
    stored = await space.http.post("/files", content=content)
    assert {"file_id": asset["file_hash"], "size_bytes": len(content)} == stored.json()


async def test_what_is_no_image_fails_its_task(space: Api, collection: str) -> None:
    """An upload of another type fails in the step that opens it, with the type's name, as behind a URL."""
    task = await uploaded(space, b"%PDF-1.7 ...", {"collection_id": collection})
    assert ("FAILED", "unsupported_media_type", "fetch") == (
        task["status"], task["error"]["type"], task["error"]["stage"],
    )  # fmt: skip
    assert "PDF" in task["error"]["message"]


async def test_duplicates_are_known_whichever_way_they_came(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """An upload of a file that a URL brought is skipped or copied as asked."""
    first = await space.run({"url": photos.picture_url(number), "collection_id": collection})
    skipped = await uploaded(space, picture(number), {"collection_id": collection, "skip_duplicate": True})
    assert ("FAILED", "duplicate_asset", first["asset_id"]) == (
        skipped["status"], skipped["error"]["type"], skipped["asset_id"],
    )  # fmt: skip
    copied = await uploaded(space, picture(number), {"collection_id": collection, "on_duplicate": "copy_features"})
    asset = (await space.http.get(f"/assets/{copied['asset_id']}")).json()
    assert ("DONE", first["asset_id"]) == (copied["status"], asset["duplicate_of"])


async def test_an_upload_updates_an_asset(space: Api, collection: str, number: int) -> None:
    """asset_update replaces by a file; of an unknown asset, it is a 404 at once."""
    first = await uploaded(space, picture(number), {"collection_id": collection, "metadata": {"old": 1}})
    update = {"asset_id": first["asset_id"], "mode": "replace"}
    body = {"collection_id": collection, "asset_update": update, "metadata": {"new": 2}}
    second = await uploaded(space, picture(number + 1), body)
    asset = (await space.http.get(f"/assets/{first['asset_id']}")).json()
    assert (first["asset_id"], {"new": 2}) == (second["asset_id"], asset["metadata"])
    body["asset_update"] = update | {"asset_id": "nope"}
    assert 404 == rest_refusal(await upload(space, picture(number), {"json": json.dumps(body)})).code


def _kind(response: httpx.Response) -> tuple[Any, str]:
    refusal = rest_refusal(response)
    return refusal.code, refusal.type
