"""Features: listed by cursor, read with their vectors, changed and deleted; inputs embedded without storing them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from lensmesh.v1 import common_pb2, feature_pb2

from tests.api.doors import rest_refusal, rpc
from tests.conftest import Api, PhotoHost

EMBED = {"embed": [{"type": "url", "vector_index": each} for each in ("multimodal", "image")]}


@pytest.fixture
async def shelf(space: Api, photos: PhotoHost, collection: str, number: int) -> list[str]:
    """The feature ids of six assets, oldest first, with metadata n, in two groups."""
    found = []
    for n in range(6):
        body = {"url": photos.picture_url(number + n), "collection_id": collection, "feature_extractors": EMBED}
        task = await space.run(body | {"metadata": {"n": n, "group": "even" if n % 2 == 0 else "odd"}})
        found.append(task["outputs"][0]["feature_id"])
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    """The ids of the results, in their order."""
    return [each["feature_id"] for each in answer["results"]]


async def search(space: Api, collection: str, path: str = "", **body: Any) -> dict[str, Any]:
    """The answer of a search."""
    given = {"collection_ids": [collection], "queries": [], **body}
    response = await space.http.post(f"/features/search{path}", json=given)
    assert response.status_code == 200, response.text
    return dict(response.json())


def looks_like(photos: PhotoHost, number: int, index: str = "image", **settings: Any) -> dict[str, Any]:
    """A query by a picture."""
    return {"vector_index": index, "type": "url", "value": photos.picture_url(number), "settings": settings}


async def test_the_cursor_walks_through_all(space: Api, collection: str, shelf: list[str]) -> None:
    """Pages that begin after the last feature of the page before hold every feature once, oldest first."""
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        path = f"/features?page_size=4&offset_feature_id={cursor}" if cursor else "/features?page_size=4"
        answer = (await space.http.post(path, json={"collection_ids": [collection]})).json()
        seen += ids(answer)
        cursor = answer["pagination"]["next_page"]
    assert shelf == seen
    unknown = await space.http.post("/features?offset_feature_id=nothing", json={"collection_ids": [collection]})
    assert "offset_feature_id" in rest_refusal(unknown).fields


async def test_vectors_come_when_asked_for(space: Api, collection: str, shelf: list[str]) -> None:
    """vectors is empty unless asked for; then it has a unit vector for each index, in every answer with features."""
    plain = (await space.http.get(f"/features/{shelf[0]}")).json()
    assert ({}, {"multimodal", "image"}) == (plain["vectors"], {each["vector_index"] for each in plain["vector_info"]})
    for name in ("include_vectors", "return_vectors"):
        feature = (await space.http.get(f"/features/{shelf[0]}?{name}=true")).json()
        assert {"multimodal", "image"} == set(feature["vectors"])
        for vector in feature["vectors"].values():
            assert 1 == pytest.approx(math.hypot(*vector), abs=1e-4)
    listed = await space.http.post("/features", json={"collection_ids": [collection], "include_vectors": True})
    assert feature["vectors"] == listed.json()["results"][0]["vectors"]
    found = await search(space, collection, include_vectors=True, filters={"key": "n", "value": 0})
    assert feature["vectors"] == found["results"][0]["vectors"]


async def test_without_queries_everything_is_found(space: Api, collection: str, shelf: list[str]) -> None:
    """A search without queries lists what the filters select, in the order asked for."""
    assert shelf == ids(await search(space, collection))
    odd = {"key": "group", "value": "odd"}
    answer = await search(space, collection, filters=odd, sort={"field": "n", "direction": "desc"})
    assert [shelf[5], shelf[3], shelf[1]] == ids(answer)
    assert [None] * 3 == [each["score"] for each in answer["results"]]


async def test_found_features_are_sorted_grouped_and_selected(
    space: Api, photos: PhotoHost, collection: str, shelf: list[str], number: int
) -> None:
    """A search may be sorted by a field, grouped by one, and cut down to some fields."""
    query = looks_like(photos, number)
    best = await search(space, collection, queries=[query])
    assert (shelf[0], 1.0) == (best["results"][0]["feature_id"], best["results"][0]["score"])
    answer = await search(space, collection, queries=[query], sort={"field": "metadata.n", "direction": "desc"})
    assert shelf[::-1] == ids(answer)
    group = {"field": "metadata.group", "max_features": 2, "sort": {"field": "n", "direction": "desc"}}
    grouped = await search(space, collection, queries=[query], group_by=group, select=["score"])
    assert ["even", "odd"] == [each["metadata.group"] for each in grouped["results"]]
    assert [[shelf[4], shelf[2]], [shelf[5], shelf[3]]] == [
        [member["feature_id"] for member in each["features"]] for each in grouped["results"]
    ]
    assert {"feature_id", "asset_id", "score"} == set(grouped["results"][0]["features"][0])
    assert (2, 1) == (grouped["pagination"]["total"], grouped["pagination"]["total_pages"])
    second = await search(
        space, collection, "?offset_position=1&page_size=1", queries=[query], group_by={"field": "group"}
    )
    assert ["odd"] == [each["group"] for each in second["results"]]


async def test_modality_and_what_is_not_offered(
    space: Api, photos: PhotoHost, collection: str, shelf: list[str], number: int
) -> None:
    """settings.modality narrows a query; reranking by interactions is refused, and a session is accepted."""
    found = await search(space, collection, queries=[looks_like(photos, number, modality="image")], session_id="s")
    assert 6 == found["pagination"]["total"]
    none = await search(space, collection, queries=[looks_like(photos, number, modality="text")])
    assert [] == none["results"]
    body = {"collection_ids": [collection], "queries": [], "reranking_options": {"enable_reranking": True}}
    refused = rest_refusal(await space.http.post("/features/search", json=body))
    assert "reranking_options.enable_reranking" in refused.fields


async def test_filters_that_milvus_cannot_say_find_all(
    space: Api, photos: PhotoHost, collection: str, shelf: list[str], number: int
) -> None:
    """A search whose filter is checked after the store's own finds as many as there are, with a small limit, too."""
    last = {"NOR": [{"key": "n", "operator": "lt", "value": 5}]}
    answer = await search(space, collection, queries=[looks_like(photos, number, limit=1)], filters=last)
    assert [shelf[5]] == ids(answer)


async def test_metadata_of_one_feature(space: Api, collection: str, shelf: list[str]) -> None:
    """PUT replaces a feature's metadata; its asset keeps its own."""
    changed = (await space.http.put(f"/features/{shelf[0]}", json={"metadata": {"mine": 1}})).json()
    assert {"mine": 1} == changed["metadata"]
    assert [shelf[0]] == ids(await search(space, collection, filters={"key": "mine", "value": 1}))
    asset = (await space.http.get(f"/assets/{changed['asset_id']}")).json()
    assert {"n": 0, "group": "even"} == asset["metadata"]
    assert 404 == rest_refusal(await space.http.put("/features/nothing", json={"metadata": {}})).code


async def test_a_deleted_feature_is_found_no_more(
    space: Api, photos: PhotoHost, collection: str, shelf: list[str], number: int
) -> None:
    """A deleted feature is in no listing and no search; its asset stays."""
    asset_id = (await space.http.get(f"/features/{shelf[2]}")).json()["asset_id"]
    assert {"feature_id": shelf[2], "deleted": True} == (await space.http.delete(f"/features/{shelf[2]}")).json()
    assert 404 == rest_refusal(await space.http.get(f"/features/{shelf[2]}")).code
    assert 404 == rest_refusal(await space.http.delete(f"/features/{shelf[2]}")).code
    left = [each for each in shelf if each != shelf[2]]
    assert left == ids(await search(space, collection))
    assert shelf[2] not in ids(await search(space, collection, queries=[looks_like(photos, number + 2)]))
    assert [] == (await space.http.get(f"/assets/{asset_id}/features")).json()["features"]["image"]


@pytest.mark.parametrize(
    ("index", "kind", "keys"),
    [
        ("text", "text", {"vector"}),
        ("multimodal", "text", {"vector"}),
        ("keyword", "text", {"indices", "values"}),
        ("image", "url", {"vector"}),
    ],
)
async def test_an_input_is_embedded(
    space: Api, photos: PhotoHost, number: int, index: str, kind: str, keys: set[str]
) -> None:
    """Embedding gives a dense vector, or a sparse one from the keyword index, and the seconds that it took."""
    value = photos.picture_url(number) if kind == "url" else "two red words"
    body = {"type": kind, "vector_index": index, "value": value}
    answer = (await space.http.post("/features/extractors/embed", json=body)).json()
    assert keys == set(answer["embedding"])
    assert answer["elapsed_time"] > 0
    if "vector" in keys:
        assert 1 == pytest.approx(math.hypot(*answer["embedding"]["vector"]), abs=1e-4)
    else:
        assert 3 == len(answer["embedding"]["indices"]) == len(answer["embedding"]["values"])


async def test_what_cannot_be_embedded(space: Api) -> None:
    """A text for the image index, a missing value and a broken image are refused, naming the field."""
    path = "/features/extractors/embed"
    wrong = await space.http.post(path, json={"type": "text", "vector_index": "image", "value": "x"})
    assert "vector_index" in rest_refusal(wrong).message
    missing = await space.http.post(path, json={"type": "text", "vector_index": "text"})
    assert "value" in rest_refusal(missing).fields
    broken = await space.http.post(path, json={"type": "base64", "vector_index": "image", "value": "!!"})
    assert "value" in rest_refusal(broken).fields


async def test_grpc_does_the_same(space: Api, collection: str, shelf: list[str]) -> None:
    """Vectors come as bytes over gRPC; groups stand in a field of their own."""
    request = feature_pb2.GetFeatureRequest(feature_id=shelf[0], include_vectors=True)
    feature = (await rpc(space, "GetFeature", request)).feature
    assert {"multimodal", "image"} == set(feature.vector_values)
    assert len(feature.vector_values["image"].dense) % 4 == 0
    grouping = feature_pb2.SearchFeaturesRequest(collection_ids=[collection])
    grouping.group_by.field = "group"
    answer = await rpc(space, "SearchFeatures", grouping)
    assert ["even", "odd"] == [each.value.string_value for each in answer.groups]
    listing = feature_pb2.ListFeaturesRequest(collection_ids=[collection], offset_feature_id=shelf[3])
    assert shelf[4:] == [each.feature_id for each in (await rpc(space, "ListFeatures", listing)).results]
    embed = feature_pb2.EmbedFeatureRequest(
        type=feature_pb2.QUERY_TYPE_TEXT, vector_index=common_pb2.VECTOR_INDEX_TEXT, value="x"
    )
    assert (await rpc(space, "EmbedFeature", embed)).embedding.vector.dense
