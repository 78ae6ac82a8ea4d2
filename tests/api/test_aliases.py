"""Other names that are accepted on input: of fields, of values, of paths; answers use the canonical ones."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Api, PhotoHost

TEXT = {"type": "text", "value": "alias"}


@pytest.mark.parametrize(
    "path", ["/index/images/url", "/ingest/images/url", "/v1/index/images/url", "/v1/ingest/images/url"]
)
async def test_paths(space: Api, collection: str, photos: PhotoHost, number: int, path: str) -> None:
    """Images are taken in under both names of the path, each also under /v1, always with 200."""
    response = await space.http.post(path, json={"url": photos.picture_url(number), "collection_id": collection})
    assert 200 == response.status_code
    assert {"message", "task_id"} == set(response.json())
    assert "Image URL processing queued" == response.json()["message"]
    prefix = "/v1" if path.startswith("/v1") else ""
    assert 200 == (await space.http.get(f"{prefix}/tasks/{response.json()['task_id']}")).status_code


async def test_names_of_an_index_request(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """collection, image_settings, prevent_duplicate and the older names of an index and a threshold are understood."""
    stored = {
        "collections": [collection],
        "queries": [{"embedding_model": "text_vector", **TEXT}],
        "relevance_threshold": 1,
    }
    made = await space.http.post("/percolators/queries", json=stored)
    assert 200 == made.status_code, made.text
    body = {
        "url": photos.picture_url(number),
        "collection": collection,
        "prevent_duplicate": True,
        "image_settings": {
            "embed": [{"vector_name": "text_vector", **TEXT}, {"embedding_model": "multimodal_vector", "type": "url"}],
            "read": {"embedding_model": "keyword_vector"},
        },
        "percolate": {"min_relevance": 0.9},
    }
    task = await space.run(body)
    assert ("DONE", [made.json()["percolator_id"]]) == (
        task["status"],
        [each["percolator_id"] for each in task["matches"]],
    )
    found = (await space.http.get(f"/assets/{task['asset_id']}/features")).json()["features"]["image"][0]
    assert {"text", "multimodal", "keyword"} == {each["vector_index"] for each in found["vector_info"]}
    shown = (await space.http.get(f"/percolators/queries/{made.json()['percolator_id']}")).json()
    assert ("text", 1.0) == (shown["queries"][0]["vector_index"], shown["min_score"])
    assert "duplicate_asset" == (await space.run(body))["error"]["type"]


@pytest.mark.parametrize("index", ["vector_index", "embedding_model", "vector_name"])
@pytest.mark.parametrize("value", ["multimodal", "multimodal_vector"])
@pytest.mark.parametrize("score", ["min_score", "min_relevance", "relevance_threshold"])
@pytest.mark.parametrize("where", ["collection_ids", "collections"])
async def test_names_of_a_search(space: Api, collection: str, index: str, value: str, score: str, where: str) -> None:
    """A search takes every combination of names."""
    query = {index: value, "settings": {score: 0.5}, **TEXT}
    response = await space.http.post("/features/search", json={"queries": [query], where: [collection]})
    assert (200, []) == (response.status_code, response.json().get("results"))


async def test_a_name_and_its_alias_may_agree(space: Api, collection: str) -> None:
    """A name and its alias with the same value are no conflict."""
    query = {"vector_index": "text", "embedding_model": "text", **TEXT}
    body: dict[str, Any] = {"queries": [query], "collection_ids": [collection], "collections": [collection]}
    assert 200 == (await space.http.post("/features/search", json=body)).status_code


async def test_names_of_a_namespace_and_a_collection(api: Api) -> None:
    """namespace_id is accepted for the name of a new namespace, collection_id for that of a new collection."""
    body = {"namespace_id": "aliased", "vector_indexes": ["image_vector", "keyword_vector"]}
    made = await api.http.post("/namespaces", json=body)
    assert made.status_code in (200, 409)
    if made.status_code == 200:
        assert ("aliased", ["image", "keyword"]) == (made.json()["namespace_name"], made.json()["vector_indexes"])
    headers = {"X-Namespace": "aliased"}
    await api.http.post("/collections", json={"collection_id": "shoes"}, headers=headers)
    listed = (await api.http.get("/collections", headers=headers)).json()
    assert ["shoes"] == [each["collection_name"] for each in listed["results"]]
