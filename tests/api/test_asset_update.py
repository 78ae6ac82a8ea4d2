"""Updating an asset: replace drops what was there, append adds to it; searches and filters see the new state."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Api, PhotoHost


def body_of(photos: PhotoHost, collection: str, number: int, text: str, **more: Any) -> dict[str, Any]:
    """An asset with one text."""
    embed = [{"type": "text", "vector_index": "text", "value": text}]
    return {
        "url": photos.picture_url(number), "collection_id": collection, "feature_extractors": {"embed": embed},
    } | more  # fmt: skip


async def found(
    client: Api, collection: str, text: str, filters: dict[str, Any] | None = None
) -> list[tuple[str, str]]:
    """Asset and feature of the features that have exactly this text."""
    query = {"vector_index": "text", "type": "text", "value": text, "settings": {"min_score": 0.99}}
    body = {"queries": [query], "collection_ids": [collection], "filters": filters}
    response = await client.http.post("/features/search", json=body)
    assert response.status_code == 200, response.text
    return [(each["asset_id"], each["feature_id"]) for each in response.json()["results"]]


async def features(client: Api, asset_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An asset and its features of images."""
    answer = (await client.http.get(f"/assets/{asset_id}/features")).json()
    assert ({"asset", "features"}, {"video", "image", "text", "audio"}) == (set(answer), set(answer["features"]))
    return answer["asset"], answer["features"]["image"]


@pytest.fixture
async def first(space: Api, collection: str, photos: PhotoHost, number: int) -> dict[str, Any]:
    """The task of an asset with metadata."""
    task = await space.run(body_of(photos, collection, number, "old", metadata={"a": 1, "b": {"c": 1, "d": 2}}))
    assert "DONE" == task["status"], task
    return task


async def test_replace_drops_what_was_there(
    space: Api, collection: str, photos: PhotoHost, number: int, first: dict[str, Any]
) -> None:
    """After replace, the asset has the new features and metadata alone, and searches find nothing of the old."""
    update = {"asset_id": first["asset_id"], "mode": "replace"}
    body = body_of(photos, collection, number + 1, "new", metadata={"a": 2}, asset_update=update)
    task = await space.run(body)
    assert ("DONE", first["asset_id"]) == (task["status"], task["asset_id"])
    asset, left = await features(space, first["asset_id"])
    assert [task["outputs"][0]["feature_id"]] == [each["feature_id"] for each in left]
    assert ({"a": 2}, {"a": 2}) == (asset["metadata"], left[0]["metadata"])
    assert (task["task_id"], photos.picture_url(number + 1)) == (asset["task_id"], asset["url"])
    assert [] == await found(space, collection, "old")
    assert [(first["asset_id"], left[0]["feature_id"])] == await found(space, collection, "new")
    assert [] == await found(space, collection, "new", {"key": "metadata.b.c", "operator": "exists"})
    assert 1 == len(await found(space, collection, "new", {"key": "metadata.a", "value": 2}))


async def test_append_keeps_what_was_there(
    space: Api, collection: str, photos: PhotoHost, number: int, first: dict[str, Any]
) -> None:
    """After append, the asset has both features; the metadata are merged by top-level key, and filters see them."""
    update = {"asset_id": first["asset_id"], "mode": "append"}
    metadata = {"b": {"c": 9}, "e": [1]}
    task = await space.run(body_of(photos, collection, number + 1, "new", metadata=metadata, asset_update=update))
    assert ("DONE", first["asset_id"]) == (task["status"], task["asset_id"])
    asset, both = await features(space, first["asset_id"])
    expected = [first["outputs"][0]["feature_id"], task["outputs"][0]["feature_id"]]
    assert expected == [each["feature_id"] for each in both]
    merged = {"a": 1, "b": {"c": 9}, "e": [1]}
    assert [merged] * 3 == [asset["metadata"], *(each["metadata"] for each in both)]
    for text, feature_id in zip(("old", "new"), expected, strict=True):
        assert [(first["asset_id"], feature_id)] == await found(space, collection, text)
        for key, value in (("metadata.a", 1), ("metadata.b.c", 9), ("metadata.e", 1)):
            assert 1 == len(await found(space, collection, text, {"key": key, "value": value})), (text, key)
        assert [] == await found(space, collection, text, {"key": "metadata.b.d", "operator": "exists"})


async def test_an_update_without_metadata(
    space: Api, collection: str, photos: PhotoHost, number: int, first: dict[str, Any]
) -> None:
    """Append without metadata keeps them, replace without metadata empties them."""
    for mode, expected in (("append", {"a": 1, "b": {"c": 1, "d": 2}}), ("replace", {})):
        update = {"asset_id": first["asset_id"], "mode": mode}
        await space.run(body_of(photos, collection, number + 1, mode, asset_update=update))
        asset, _ = await features(space, first["asset_id"])
        assert expected == asset["metadata"], mode


async def test_an_update_is_no_duplicate_of_itself(
    space: Api, collection: str, photos: PhotoHost, number: int, first: dict[str, Any]
) -> None:
    """An asset may be updated from the same file, also with skip_duplicate."""
    update = {"asset_id": first["asset_id"], "mode": "replace"}
    task = await space.run(body_of(photos, collection, number, "again", asset_update=update, skip_duplicate=True))
    assert ("DONE", first["asset_id"]) == (task["status"], task["asset_id"])


async def test_an_update_that_fails_leaves_the_asset(
    space: Api, collection: str, photos: PhotoHost, first: dict[str, Any]
) -> None:
    """An update whose image can't be fetched fails, and the asset stays as it was."""
    before = await features(space, first["asset_id"])
    for mode in ("replace", "append"):
        update = {"asset_id": first["asset_id"], "mode": mode}
        body = {"url": photos.url("no/such.jpg"), "collection_id": collection, "asset_update": update, "metadata": {}}
        task = await space.run(body)
        assert ("FAILED", first["asset_id"]) == (task["status"], task["asset_id"])
        assert before == await features(space, first["asset_id"])


async def test_an_update_stays_in_the_assets_collection(
    space: Api, collection: str, photos: PhotoHost, number: int, first: dict[str, Any]
) -> None:
    """The collection of an update does not move the asset."""
    before, _ = await features(space, first["asset_id"])
    update = {"asset_id": first["asset_id"], "mode": "append"}
    await space.run(body_of(photos, f"{collection}-x", number, "new", asset_update=update))
    after, both = await features(space, first["asset_id"])
    assert {before["collection_id"]} == {after["collection_id"], *(each["collection_id"] for each in both)}
    assert before["created_at"] == after["created_at"]
    assert 1 == len(await found(space, collection, "new"))


async def test_updates_at_the_same_moment_do_not_undo_each_other(
    space: Api, collection: str, photos: PhotoHost, number: int, first: dict[str, Any]
) -> None:
    """Appends to one asset that come at once all leave their features and metadata."""
    update = {"asset_id": first["asset_id"], "mode": "append"}
    bodies = [
        body_of(photos, collection, number + n, f"at once {n}", metadata={f"k{n}": n}, asset_update=update)
        for n in range(8)
    ]
    await asyncio.gather(*map(space.run, bodies))
    asset, every = await features(space, first["asset_id"])
    expected = {"a": 1, "b": {"c": 1, "d": 2}} | {f"k{n}": n for n in range(8)}
    assert [expected] * 10 == [asset["metadata"], *(each["metadata"] for each in every)]


async def test_the_words_of_metadata_are_found_and_follow_updates(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """In the keyword index an asset is found by what its metadata say, by their new words after an update."""

    async def by_words(text: str) -> list[tuple[str, float]]:
        query = {"vector_index": "keyword", "type": "text", "value": text, "settings": {"min_score": 0.1}}
        answer = await space.http.post("/features/search", json={"queries": [query], "collection_ids": [collection]})
        assert answer.status_code == 200, answer.text
        return [(each["asset_id"], each["score"]) for each in answer.json()["results"]]

    embed = [{"type": "text", "vector_index": "keyword", "value": "harbour"}]
    body = body_of(photos, collection, number, "x", metadata={"place": {"city": "Hamburg"}, "tags": ["crane", 7]})
    task = await space.run(body | {"feature_extractors": {"embed": embed}})
    ((found_id, score),) = await by_words("hamburg")
    assert (found_id, score > 0.4) == (task["asset_id"], True)
    assert [each for each, _ in await by_words("CRANE")] == [task["asset_id"]]
    assert [each for each, _ in await by_words("harbour")] == [task["asset_id"]]

    update = {"asset_id": task["asset_id"], "mode": "append"}
    more = body_of(photos, collection, number + 1, "y", metadata={"place": {"city": "Bremen"}}, asset_update=update)
    assert (await space.run(more))["status"] == "DONE"
    assert {each for each, _ in await by_words("bremen")} == {task["asset_id"]}
    assert await by_words("hamburg") == []

    silent = body_of(photos, collection, number + 2, "z", metadata={"place": 1, "tags": 2}, asset_update=update)
    assert (await space.run(silent))["status"] == "DONE"
    assert await by_words("bremen") == []
    assert {each for each, _ in await by_words("harbour")} == {task["asset_id"]}
