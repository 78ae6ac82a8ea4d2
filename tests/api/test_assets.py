"""Assets: listed, searched by their metadata, changed and deleted with all that belongs to them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from lensmesh.v1 import asset_pb2

from tests.api.doors import rest_refusal, rpc
from tests.conftest import Api, PhotoHost

EVERYTHING = {
    "read": {"vector_index": "keyword"},
    "embed": [{"type": "url", "vector_index": each} for each in ("multimodal", "image")],
}


async def add(space: Api, photos: PhotoHost, collection: str, number: int, **body: Any) -> str:
    """Index a picture; returns the asset's id."""
    given = {"url": photos.picture_url(number), "collection_id": collection, **body}
    task = await space.run(given)
    assert "DONE" == task["status"], task
    return str(task["asset_id"])


@pytest.fixture
async def shelf(space: Api, photos: PhotoHost, collection: str, number: int) -> list[str]:
    """The ids of seven assets, oldest first, whose metadata have a number n, a colour and a nested name."""
    ids = []
    for n in range(7):
        metadata = {"n": n, "color": "red" if n % 2 else "blue", "who": {"name": f"person {n}", "tags": ["a", f"t{n}"]}}
        if n == 6:
            metadata = {"color": "blue"}
        ids.append(await add(space, photos, collection, number + n, metadata=metadata))
    return ids


async def listed(space: Api, collection: str, path: str = "", **body: Any) -> dict[str, Any]:
    """The answer of a listing."""
    response = await space.http.post(f"/assets{path}", json={"collection_ids": [collection], **body})
    assert response.status_code == 200, response.text
    return dict(response.json())


def ids(answer: dict[str, Any]) -> list[str]:
    """The ids of the results, in their order."""
    return [each["asset_id"] for each in answer["results"]]


async def test_pages_hold_every_asset_once(space: Api, collection: str, shelf: list[str]) -> None:
    """Assets are listed newest first, and pages hold each of them once."""
    pages = [await listed(space, collection, f"?page={page}&page_size=3") for page in (1, 2, 3)]
    assert shelf[::-1] == [each for page in pages for each in ids(page)]
    assert {"total": 7, "page": 2, "page_size": 3, "total_pages": 3, "next_page": "3", "previous_page": "1"} == (
        pages[1]["pagination"]
    )
    assert pages[2]["pagination"]["next_page"] is None


async def test_sorted_filtered_and_selected(space: Api, collection: str, shelf: list[str]) -> None:
    """Sorting puts what lacks the field last, filters hold, and only the selected fields and the id are returned."""
    answer = await listed(space, collection, sort={"field": "metadata.n", "direction": "desc"})
    assert [*shelf[5::-1], shelf[6]] == ids(answer)
    reds = {"key": "metadata.color", "value": "red"}
    answer = await listed(
        space, collection, sort={"field": "n"}, filters=reds, select=["metadata.who.name", "no.such"], return_url=True
    )
    names = [{"asset_id": shelf[n], "metadata": {"who": {"name": f"person {n}"}}} for n in (1, 3, 5)]
    assert names == answer["results"]


async def test_grouped(space: Api, collection: str, shelf: list[str]) -> None:
    """Groups stand under the field's name with at most max_assets members, in the order of the listing."""
    group = {"field": "metadata.color", "max_assets": 2, "sort": {"field": "metadata.n", "direction": "asc"}}
    answer = await listed(space, collection, group_by=group)
    assert ["blue", "red"] == [each["metadata.color"] for each in answer["results"]]
    members = [[asset["asset_id"] for asset in each["assets"]] for each in answer["results"]]
    assert [[shelf[0], shelf[2]], [shelf[1], shelf[3]]] == members
    assert 2 == answer["pagination"]["total"]
    by_n = await listed(space, collection, group_by={"field": "n"})
    assert [None, 5, 4, 3, 2, 1, 0] == [each["n"] for each in by_n["results"]]
    refused = rest_refusal(
        await space.http.post("/assets", json={"collection_ids": [collection], "group_by": {"field": "score"}})
    )
    assert "group_by.field" in refused.fields


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"key": ["metadata.who.name"], "value": "Person 3"}, [3]),
        ({"key": ["who.tags"], "value": "t4"}, [4]),
        ({"key": ["*"], "value": "red"}, [1, 3, 5]),
        ({"key": ["*"], "value": "person"}, []),
        ({"key": ["**"], "value": "t2"}, [2]),
        ({"key": ["color", "who.name"], "value": "blue 2"}, [2]),
        ({"key": ["color"], "value": "green"}, []),
    ],
)
async def test_searched_by_metadata(
    space: Api, collection: str, shelf: list[str], query: dict[str, Any], found: list[int]
) -> None:
    """Words are looked for in the chosen keys; the assets that have all of them come first, with the score 1."""
    body = {"collection_ids": [collection], "query": query}
    answer = (await space.http.post("/assets/search?page_size=50", json=body)).json()
    whole = [shelf.index(each["asset_id"]) for each in answer["results"] if each["score"] == 1.0]
    assert found == sorted(whole)
    assert all(0 < each["score"] <= 1 for each in answer["results"])
    scores = [each["score"] for each in answer["results"]]
    assert sorted(scores, reverse=True) == scores


async def test_metadata_are_merged_and_replaced(space: Api, photos: PhotoHost, collection: str, number: int) -> None:
    """PATCH merges, PUT replaces; a search right after sees the new metadata and words, and the old ones no more."""
    asset_id = await add(
        space, photos, collection, number, metadata={"old": "zebra", "kept": 1}, feature_extractors=EVERYTHING
    )
    patched = await space.http.patch(f"/assets/{asset_id}", json={"metadata": {"old": "giraffe", "new": [1]}})
    assert {"old": "giraffe", "kept": 1, "new": [1]} == patched.json()["metadata"]
    assert patched.json()["updated_at"] > patched.json()["created_at"]

    async def found(**search: Any) -> list[str]:
        body = {"collection_ids": [collection], **search}
        return [each["asset_id"] for each in (await space.http.post("/features/search", json=body)).json()["results"]]

    def words(value: str) -> list[dict[str, str]]:
        return [{"vector_index": "keyword", "type": "text", "value": value}]

    assert [asset_id] == await found(queries=words("giraffe"))
    assert [] == await found(queries=words("zebra"))
    plain = [{"vector_index": "multimodal", "type": "text", "value": "x"}]
    assert [asset_id] == await found(queries=plain, filters={"key": "old", "value": "giraffe"})
    replaced = await space.http.put(f"/assets/{asset_id}", json={"metadata": {"only": "this"}})
    assert {"only": "this"} == replaced.json()["metadata"]
    assert [] == await found(queries=plain, filters={"key": "old", "operator": "exists", "value": True})
    alone = await space.http.put(
        f"/assets/{asset_id}", json={"metadata": {"only": "asset"}, "propagate_features": False}
    )
    assert {"only": "asset"} == alone.json()["metadata"]
    assert [asset_id] == await found(queries=plain, filters={"key": "only", "value": "this"})
    assert [asset_id] == ids(await listed(space, collection, filters={"key": "only", "value": "asset"}))
    for method in (space.http.put, space.http.patch):
        assert "metadata" in rest_refusal(await method(f"/assets/{asset_id}", json={})).fields
        assert 404 == rest_refusal(await method("/assets/nothing", json={"metadata": {}})).code


async def test_a_deleted_asset_leaves_nothing(space: Api, photos: PhotoHost, collection: str, number: int) -> None:
    """A deleted asset is in no listing, search or stored match, and its file may come again as a new asset."""
    queries = [{"vector_index": "multimodal", "type": "url", "value": photos.picture_url(number)}]
    stored = {"collection_ids": [collection], "queries": queries, "min_score": 0}
    await space.http.post("/percolators/queries", json=stored)
    body = {"percolate": {}, "feature_extractors": EVERYTHING, "skip_duplicate": True}
    asset_id = await add(space, photos, collection, number, **body)
    other = await add(space, photos, collection, number + 1, **body)
    matches = (await space.http.post("/percolators/matches", json={"collection_ids": [collection]})).json()["results"]
    assert {asset_id, other} == {each["asset_id"] for each in matches}
    feature_id = (await space.http.get(f"/assets/{asset_id}/features")).json()["features"]["image"][0]["feature_id"]

    assert {"asset_id": asset_id, "deleted": True} == (await space.http.delete(f"/assets/{asset_id}")).json()

    for path in (f"/assets/{asset_id}", f"/assets/{asset_id}/features", f"/features/{feature_id}"):
        assert 404 == rest_refusal(await space.http.get(path)).code
    assert 404 == rest_refusal(await space.http.delete(f"/assets/{asset_id}")).code
    assert [other] == ids(await listed(space, collection))
    matches = (await space.http.post("/percolators/matches", json={"collection_ids": [collection]})).json()["results"]
    assert {other} == {each["asset_id"] for each in matches}
    for index in ("multimodal", "image"):
        query = {"vector_index": index, "type": "url", "value": photos.picture_url(number)}
        search = {"collection_ids": [collection], "queries": [query]}
        answer = (await space.http.post("/features/search", json=search)).json()
        assert [other] == [each["asset_id"] for each in answer["results"]]
    assert asset_id != await add(space, photos, collection, number, **body)


async def test_a_file_that_was_replaced_is_free_again(
    space: Api, photos: PhotoHost, collection: str, number: int
) -> None:
    """The file that an asset had before it was replaced is no duplicate of it any more."""
    asset_id = await add(space, photos, collection, number)
    update = {"asset_id": asset_id, "mode": "replace"}
    assert asset_id == await add(space, photos, collection, number + 1, asset_update=update)
    assert asset_id != await add(space, photos, collection, number, skip_duplicate=True)


async def test_previews_are_links_that_need_no_key(space: Api, photos: PhotoHost, collection: str, number: int) -> None:
    """With return_url, preview_url leads to the image without a key; a changed link leads nowhere."""
    asset_id = await add(space, photos, collection, number)
    assert (await space.http.get(f"/assets/{asset_id}")).json()["preview_url"] is None
    link = (await space.http.get(f"/assets/{asset_id}?return_url=true")).json()["preview_url"]
    image = await space.http.get(link, headers={"Authorization": ""})
    assert (200, "image/jpeg") == (image.status_code, image.headers["content-type"])
    assert image.content.startswith(b"\xff\xd8")
    for changed in (link[:-3] + "abc", link.replace(asset_id, "other"), link.replace("expires=", "expires=9"), "/x"):
        assert 404 == rest_refusal(await space.http.get(changed)).code


async def test_grpc_does_the_same(space: Api, collection: str, shelf: list[str]) -> None:
    """Listing, changing and deleting work over gRPC, where groups stand in a field of their own."""
    request = asset_pb2.ListAssetsRequest(collection_ids=[collection], page_size=2)
    answer = await rpc(space, "ListAssets", request)
    assert shelf[:-3:-1] == [each.asset_id for each in answer.results]
    request.group_by.field = "color"
    grouped = await rpc(space, "ListAssets", request)
    assert (0, ["blue", "red"]) == (len(grouped.results), [each.value.string_value for each in grouped.groups])
    changed = asset_pb2.UpdateAssetRequest(asset_id=shelf[0])
    changed.metadata.update({"n": 100})
    assert 100 == (await rpc(space, "UpdateAsset", changed)).asset.metadata["n"]
    assert (await rpc(space, "DeleteAsset", asset_pb2.DeleteAssetRequest(asset_id=shelf[1]))).deleted


async def test_writers_of_one_asset_lose_nothing(space: Api, photos: PhotoHost, collection: str, number: int) -> None:
    """Twenty merges at once all arrive."""
    asset_id = await add(space, photos, collection, number)
    bodies = [{"metadata": {f"key{n}": n}} for n in range(20)]
    await asyncio.gather(*(space.http.patch(f"/assets/{asset_id}", json=body) for body in bodies))
    metadata = (await space.http.get(f"/assets/{asset_id}")).json()["metadata"]
    assert {f"key{n}": n for n in range(20)} == metadata
