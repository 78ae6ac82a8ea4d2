"""The same file twice in one collection: refused when asked to, marked otherwise, also when both come at once."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from lensmesh.v1 import task_pb2

from tests.api.doors import assets_in, rpc
from tests.conftest import Api, PhotoHost, picture

ROUNDS = 50
numbers = count(100_000)


async def test_of_two_at_once_one_is_stored(space: Api, collection: str, photos: PhotoHost) -> None:
    """Equal files sent at the same moment with skip_duplicate give one asset, and a failure that names it."""

    async def one_round(number: int) -> None:
        url = photos.put(f"twice/{number}.png", picture(number, (40 + number % 17, 30), "PNG"), "image/png")
        body = {"url": url, "collection_id": f"{collection}-{number % 5}", "skip_duplicate": True}
        tasks = await asyncio.gather(space.run(body), space.run(body))
        assert ["DONE", "FAILED"] == sorted(task["status"] for task in tasks), tasks
        made, refused = sorted(tasks, key=lambda task: str(task["status"]))
        assert ("duplicate_asset", "fetch", False) == tuple(
            refused["error"][key] for key in ("type", "stage", "retryable")
        )
        assert made["asset_id"] == refused["asset_id"]
        assert made["asset_id"] in refused["error"]["message"]
        assert [] == refused["outputs"]

    for _ in range(ROUNDS // 10):
        await asyncio.gather(*(one_round(next(numbers)) for _ in range(10)))
    assert ROUNDS == sum([await assets_in(space, f"{collection}-{each}") for each in range(5)])


async def test_a_refused_duplicate_is_the_same_at_both_doors(space: Api, collection: str, photos: PhotoHost) -> None:
    """gRPC shows the failed task with the existing asset's id as REST does."""
    body = {"url": photos.picture_url(next(numbers)), "collection_id": collection, "skip_duplicate": True}
    first = await space.run(body)
    second = await space.run(body)
    shown = (await rpc(space, "GetTask", task_pb2.GetTaskRequest(task_id=second["task_id"]))).task
    assert (task_pb2.TASK_STATUS_FAILED, "duplicate_asset") == (shown.status, shown.error.type)
    assert first["asset_id"] == shown.asset_id == second["asset_id"]
    assert first["task_id"] == (await space.http.get(f"/assets/{first['asset_id']}")).json()["task_id"]


@pytest.mark.parametrize("skip", [False, None])
async def test_a_wanted_duplicate_is_marked(space: Api, collection: str, photos: PhotoHost, skip: bool | None) -> None:
    """Without skip_duplicate, which ships as off, a second asset is made that names the first."""
    body = {"url": photos.picture_url(next(numbers)), "collection_id": collection, "skip_duplicate": skip}
    first, second = await space.run(body), await space.run(body)
    assert ("DONE", "DONE") == (first["status"], second["status"])
    assert first["asset_id"] != second["asset_id"]
    assets = [(await space.http.get(f"/assets/{each['asset_id']}")).json() for each in (first, second)]
    assert [None, first["asset_id"]] == [each["duplicate_of"] for each in assets]
    assert assets[0]["unique_hash"] == assets[0]["file_hash"] == assets[1]["file_hash"]
    assert 2 == await assets_in(space, collection)


async def test_another_collection_or_namespace_has_its_own_duplicates(
    space: Api, collection: str, api: Api, photos: PhotoHost
) -> None:
    """The same file in another collection, or in another namespace, is no duplicate."""
    body = {"url": photos.picture_url(next(numbers)), "collection_id": collection, "skip_duplicate": True}
    tasks = [await space.run(body), await space.run(body | {"collection_id": f"{collection}-b"}), await api.run(body)]
    assert ["DONE"] * 3 == [task["status"] for task in tasks], tasks
    assert 3 == len({task["asset_id"] for task in tasks})


async def test_the_same_url_with_another_file_is_no_duplicate(space: Api, collection: str, photos: PhotoHost) -> None:
    """The file counts, not its URL: a changed file under one URL is new, an equal file under another is not."""
    path = f"changing/{next(numbers)}.jpg"
    body = {
        "url": photos.put(path, picture(next(numbers), (50, 60))),
        "collection_id": collection,
        "skip_duplicate": True,
    }
    content = picture(next(numbers), (61, 60))
    assert "DONE" == (await space.run(body))["status"]
    photos.put(path, content)
    assert "DONE" == (await space.run(body))["status"]
    again = body | {"url": photos.put(f"other/{path}", content)}
    assert "duplicate_asset" == (await space.run(again))["error"]["type"]


async def test_a_file_whose_task_failed_can_be_indexed_again(space: Api, collection: str, photos: PhotoHost) -> None:
    """A file that could not be decoded leaves no claim, and neither does one whose URL was mended."""
    path = f"mended/{next(numbers)}.jpg"
    body = {"url": photos.put(path, b"not here", status=404), "collection_id": collection, "skip_duplicate": True}
    assert "FAILED" == (await space.run(body))["status"]
    photos.put(path, picture(next(numbers), (70, 60)))
    assert "DONE" == (await space.run(body))["status"]
    assert 1 == await assets_in(space, collection)
