"""Namespaces and collections: changed, limited, and deleted with everything in them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
from lensmesh.v1 import namespace_pb2

from runner.mesh import Mesh
from tests.api.doors import rest_refusal, rpc
from tests.conftest import Api, PhotoHost, api_of

_numbers = count(1)


@pytest.fixture
async def own(mesh: Mesh, api: Api) -> AsyncIterator[Api]:
    """A client with an admin key for a new namespace that only this test uses."""
    name = f"own-{next(_numbers)}"
    made = await api.http.post("/namespaces", json={"namespace_name": name, "vector_indexes": ["multimodal"]})
    assert made.status_code == 200, made.text
    key = await api.http.post(
        f"/organizations/users/{name}@example.org/api-keys",
        json={"namespaces": [name], "permissions": ["read", "write", "admin"]},
    )
    client = api_of(mesh, key.json()["api_key"])
    client.http.headers["X-Namespace"] = name
    yield client
    await client.http.aclose()
    await client.channel.close()


async def test_a_collection_keeps_its_id_when_renamed(
    space: Api, photos: PhotoHost, collection: str, number: int
) -> None:
    """A renamed collection is found by its new name and its id, holds what it held, and frees its old name."""
    body = {"url": photos.picture_url(number), "collection_id": collection}
    await space.run(body)
    before = (await space.http.get(f"/collections/{collection}")).json()
    assert 1 == before["count"]
    assert before["size_bytes"] > 100
    renamed = await space.http.put(
        f"/collections/{collection}", json={"collection_name": f"{collection}-new", "metadata": {"a": 1}}
    )
    assert (before["collection_id"], {"a": 1}, 1) == tuple(
        renamed.json()[key] for key in ("collection_id", "metadata", "count")
    )
    for name in (f"{collection}-new", before["collection_id"]):
        assert renamed.json() == (await space.http.get(f"/collections/{name}")).json()
    assert 404 == rest_refusal(await space.http.get(f"/collections/{collection}")).code
    again = await space.http.post("/collections", json={"collection_name": collection})
    assert before["collection_id"] != again.json()["collection_id"]
    taken = await space.http.put(f"/collections/{collection}", json={"collection_name": f"{collection}-new"})
    assert 409 == rest_refusal(taken).code
    listing = {"collection_ids": [f"{collection}-new"]}
    assert 1 == (await space.http.post("/assets", json=listing)).json()["pagination"]["total"]
    assert 1 == (await space.http.get("/collections?page_size=1")).json()["pagination"]["page_size"]


async def test_a_deleted_collection_takes_its_assets_along(
    space: Api, photos: PhotoHost, collection: str, number: int
) -> None:
    """Assets, features and matches of a deleted collection are gone; another collection's stay."""
    other = f"{collection}-other"
    queries = [{"vector_index": "multimodal", "type": "url", "value": photos.picture_url(number)}]
    stored = {"collection_ids": [collection, other], "queries": queries, "min_score": 0}
    await space.http.post("/percolators/queries", json=stored)
    bodies = [{"url": photos.picture_url(number), "collection_id": each} for each in (collection, other)]
    gone, stays = [(await space.run(body | {"percolate": {}}))["asset_id"] for body in bodies]
    deleted = (await space.http.delete(f"/collections/{collection}")).json()
    assert (True, 1) == (deleted["deleted"], deleted["assets"])
    assert 404 == rest_refusal(await space.http.delete(f"/collections/{collection}")).code
    assert 404 == rest_refusal(await space.http.get(f"/assets/{gone}")).code
    assert 200 == (await space.http.get(f"/assets/{stays}")).status_code
    await space.http.post("/collections", json={"collection_name": collection})
    for path, total in ((collection, 0), (other, 1)):
        for listing in ("/assets", "/percolators/matches", "/features"):
            answer = (await space.http.post(listing, json={"collection_ids": [path]})).json()
            assert total == answer["pagination"]["total"], (path, listing)


async def test_a_namespace_is_read_and_changed(own: Api, photos: PhotoHost, number: int) -> None:
    """A namespace can be renamed, get further indexes, payload indexes and limits, and can't lose an index."""
    name = own.http.headers["X-Namespace"]
    before = (await own.http.get(f"/namespaces/{name}")).json()
    assert before == (await own.http.get(f"/namespaces/{before['namespace_id']}")).json()
    body = {"url": photos.picture_url(number), "collection_id": "c"}
    assert "DONE" == (await own.run(body))["status"]
    lacking = body | {"feature_extractors": {"embed": [{"type": "url", "vector_index": "image"}]}}
    assert 422 == rest_refusal(await own.http.post("/index/images/url", json=lacking)).code
    payload = [{"field_name": "price", "type": "float"}]
    change: dict[str, Any] = {
        "namespace_name": f"{name}-new",
        "payload_indexes": payload,
        "vector_indexes": ["multimodal", "image"],
        "limits": {"collections_max": 1, "stored_queries_max": 0},
    }
    changed = (await own.http.put(f"/namespaces/{name}", json=change)).json()
    assert (before["namespace_id"], f"{name}-new") == (changed["namespace_id"], changed["namespace_name"])
    assert ["multimodal", "image"] == changed["vector_indexes"]
    own.http.headers["X-Namespace"] = f"{name}-new"
    assert "DONE" == (await own.run(lacking))["status"]
    fewer = await own.http.put(f"/namespaces/{name}-new", json={"vector_indexes": ["image"]})
    assert "vector_indexes" in rest_refusal(fewer).fields
    full = rest_refusal(await own.http.post("/collections", json={"collection_name": "second"}))
    assert (403, "quota_exceeded") == (full.code, full.type)
    query = {"vector_index": "multimodal", "type": "text", "value": "x"}
    stored = {"collection_ids": ["c"], "queries": [query]}
    assert "quota_exceeded" == rest_refusal(await own.http.post("/percolators/queries", json=stored)).type
    assert 404 == rest_refusal(await own.http.get(f"/namespaces/{name}")).code


async def test_a_deleted_namespace_is_empty_when_made_again(api: Api, own: Api, photos: PhotoHost, number: int) -> None:
    """Deleting a namespace removes its assets, stored queries, tasks and keys; a new one of its name knows nothing."""
    name = own.http.headers["X-Namespace"]
    query = {"vector_index": "multimodal", "type": "url", "value": photos.picture_url(number)}
    stored = {"collection_ids": ["c"], "queries": [query]}
    percolator_id = (await own.http.post("/percolators/queries", json=stored)).json()["percolator_id"]
    task = await own.run({"url": photos.picture_url(number), "collection_id": "c", "percolate": {}})
    assert 1 == len(task["matches"])
    assert {"namespace_id", "deleted"} == set((await api.http.delete(f"/namespaces/{name}")).json())
    assert 401 == rest_refusal(await own.http.get("/collections")).code
    assert 404 == rest_refusal(await api.http.get(f"/namespaces/{name}")).code
    made = await api.http.post("/namespaces", json={"namespace_name": name, "vector_indexes": ["multimodal"]})
    assert made.status_code == 200, made.text
    there = {"X-Namespace": name}
    assert [] == (await api.http.get("/collections", headers=there)).json()["results"]
    assert [] == (await api.http.get("/percolators/queries", headers=there)).json()["results"]
    for path in (f"/tasks/{task['task_id']}", f"/assets/{task['asset_id']}", f"/percolators/queries/{percolator_id}"):
        assert 404 == rest_refusal(await api.http.get(path, headers=there)).code
    again = await api.http.post(
        "/index/images/url", json={"url": photos.picture_url(number), "collection_id": "c"}, headers=there
    )
    assert 200 == again.status_code
    await api.http.delete(f"/namespaces/{name}")


async def test_what_cannot_be_deleted_or_named(api: Api, space: Api) -> None:
    """The default namespace stays, names of paths are refused, and a key can't touch what it may not use."""
    assert 409 == rest_refusal(await api.http.delete("/namespaces/default")).code
    assert 409 == rest_refusal(await api.http.put("/namespaces/default", json={"namespace_name": "x"})).code
    for name in ("indexes", "reembed"):
        made = await api.http.post("/namespaces", json={"namespace_name": name, "vector_indexes": ["text"]})
        assert "namespace_name" in rest_refusal(made).fields
    for call in (space.http.get, space.http.delete):
        assert 403 == rest_refusal(await call("/namespaces/default")).code


async def test_grpc_does_the_same(space: Api, collection: str) -> None:
    """Collections and namespaces are read over gRPC."""
    found = await rpc(space, "GetCollection", namespace_pb2.GetCollectionRequest(collection=collection))
    assert collection == found.result.collection_name
    found = await rpc(space, "GetNamespace", namespace_pb2.GetNamespaceRequest(namespace="api-suite"))
    assert "api-suite" == found.result.namespace_name
    deleted = await rpc(space, "DeleteCollection", namespace_pb2.DeleteCollectionRequest(collection=collection))
    assert deleted.deleted


async def test_stored_queries_are_replaced(space: Api, photos: PhotoHost, collection: str, number: int) -> None:
    """PUT replaces a stored query under its id, with its vectors when asked for; a match can be deleted."""

    def body(at: int) -> dict[str, Any]:
        query = {"vector_index": "multimodal", "type": "url", "value": photos.picture_url(at)}
        return {"collection_ids": [collection], "queries": [query], "min_score": 0.999, "name": f"number {at}"}

    made = (await space.http.post("/percolators/queries", json=body(number))).json()["percolator_id"]
    path = f"/percolators/queries/{made}"
    first = (await space.http.get(path)).json()
    assert [] == first["vectors"]
    replaced = (await space.http.put(path, json=body(number + 1))).json()
    assert (made, f"number {number + 1}", first["created_at"]) == tuple(
        replaced[key] for key in ("percolator_id", "name", "created_at")
    )
    assert 1 == len((await space.http.get(path + "?include_vectors=true")).json()["vectors"])
    matched = []
    for at in (number, number + 1):
        task = await space.run({"url": photos.picture_url(at), "collection_id": collection, "percolate": {}})
        matched.append(len(task["matches"]))
    assert [0, 1] == matched
    match_id = task["matches"][0]["match_id"]
    assert {"match_id": match_id, "deleted": True} == (
        await space.http.delete(f"/percolators/matches/{match_id}")
    ).json()
    assert 404 == rest_refusal(await space.http.delete(f"/percolators/matches/{match_id}")).code
    assert 404 == rest_refusal(await space.http.put("/percolators/queries/nothing", json=body(number))).code
