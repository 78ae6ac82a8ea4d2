"""A key of one namespace sees nothing of another, whatever it asks for and at whichever door."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from lensmesh.v1 import asset_pb2, feature_pb2, index_pb2, logo_pb2, match_pb2, namespace_pb2, percolator_pb2, task_pb2

from runner.mesh import Mesh
from tests.api.doors import rest_refusal, rpc, rpc_refused, rpc_stream, rpc_upload, upload_messages
from tests.conftest import Api, PhotoHost, api_of, picture

QUERY = {"vector_index": "multimodal", "type": "text", "value": "x"}


@dataclass
class Other:
    """What another namespace holds."""

    client: Api
    namespace: str
    collection_id: str
    task: dict[str, Any]
    percolator_id: str
    file_id: str
    logo_id: str


async def client_of(mesh: Mesh, api: Api, namespace: str) -> Api:
    """A client with a key for one new namespace."""
    made = await api.http.post("/namespaces", json={"namespace_name": namespace, "vector_indexes": ["multimodal"]})
    assert 200 == made.status_code, made.text
    key = await api.http.post(
        f"/organizations/users/{namespace}@example.org/api-keys", json={"namespaces": [namespace]}
    )
    return api_of(mesh, key.json()["api_key"])


@pytest.fixture(scope="module")
async def other(mesh: Mesh, api: Api, photos: PhotoHost) -> AsyncIterator[Other]:
    """Another namespace with a collection of the same name, an asset that matched, a file."""
    namespace = f"other-{time.time_ns()}"
    client = await client_of(mesh, api, namespace)
    stored = await client.http.post(
        "/percolators/queries", json={"collection_ids": ["c"], "queries": [QUERY], "min_score": 0, "name": "secret"}
    )
    body = {"url": photos.picture_url(777_001), "collection_id": "c", "percolate": {}, "metadata": {"secret": True}}
    task = await client.run(body)
    assert task["matches"]
    file = await client.http.post("/files", content=picture(777_002))
    logo = await client.http.post("/logos", json={"name": "secret", "file_id": file.json()["file_id"]})
    collections = (await client.http.get("/collections")).json()["results"]
    yield Other(
        client, namespace, collections[0]["collection_id"], task,
        stored.json()["percolator_id"], file.json()["file_id"], logo.json()["logo_id"],
    )  # fmt: skip
    await client.http.aclose()
    await client.channel.close()


@pytest.fixture(scope="module")
async def mine(mesh: Mesh, api: Api) -> AsyncIterator[Api]:
    """A key of a namespace with an empty collection of the same name."""
    client = await client_of(mesh, api, f"mine-{time.time_ns()}")
    await client.http.post("/collections", json={"collection_name": "c"})
    yield client
    await client.http.aclose()
    await client.channel.close()


async def test_nothing_of_another_namespace_is_found_by_rest(mine: Api, other: Other) -> None:
    """Every id of another namespace is a 404."""
    asset = other.task["asset_id"]
    asked = [
        ("GET", f"/tasks/{other.task['task_id']}"),
        ("GET", f"/tasks/{other.task['task_id']}/events"),
        ("DELETE", f"/tasks/{other.task['task_id']}"),
        ("GET", f"/assets/{asset}"),
        ("GET", f"/assets/{asset}/features"),
        ("POST", f"/assets/{asset}/near-duplicates"),
        ("GET", f"/percolators/queries/{other.percolator_id}"),
        ("DELETE", f"/percolators/queries/{other.percolator_id}"),
        ("POST", f"/percolators/queries/{other.percolator_id}/redeliver"),
        ("GET", f"/logos/{other.logo_id}"),
        ("DELETE", f"/logos/{other.logo_id}"),
    ]
    for method, path in asked:
        refusal = rest_refusal(await mine.http.request(method, path))
        assert (404, "not_found") == (refusal.code, refusal.type), (method, path)
        assert "secret" not in refusal.message


async def test_nothing_of_another_namespace_is_found_by_grpc(mine: Api, other: Other) -> None:
    """Every id of another namespace is NOT_FOUND."""
    task, asset, stored = {"task_id": other.task["task_id"]}, {"asset_id": other.task["asset_id"]}, other.percolator_id
    asked = [
        ("GetTask", task_pb2.GetTaskRequest(**task)),
        ("WatchTask", task_pb2.WatchTaskRequest(**task)),
        ("CancelTask", task_pb2.CancelTaskRequest(**task)),
        ("GetAsset", asset_pb2.GetAssetRequest(**asset)),
        ("GetAssetFeatures", asset_pb2.GetAssetFeaturesRequest(**asset)),
        ("FindNearDuplicates", asset_pb2.FindNearDuplicatesRequest(**asset)),
        ("GetStoredQuery", percolator_pb2.GetStoredQueryRequest(percolator_id=stored)),
        ("DeleteStoredQuery", percolator_pb2.DeleteStoredQueryRequest(percolator_id=stored)),
        ("RedeliverMatches", percolator_pb2.RedeliverMatchesRequest(percolator_id=stored)),
        ("GetLogo", logo_pb2.GetLogoRequest(logo_id=other.logo_id)),
        ("DeleteLogo", logo_pb2.DeleteLogoRequest(logo_id=other.logo_id)),
    ]
    for name, request in asked:
        refusal = await rpc_refused(mine, name, request)
        assert (grpc.StatusCode.NOT_FOUND, "not_found") == (refusal.code, refusal.type), name


async def test_collections_of_another_namespace_are_not_reached_by_id(mine: Api, other: Other) -> None:
    """A search or listing over another namespace's collection id is a 404, a write goes to one's own."""
    body = {"queries": [QUERY], "collection_ids": [other.collection_id]}
    assert 404 == rest_refusal(await mine.http.post("/features/search", json=body)).code
    assert (
        404
        == rest_refusal(
            await mine.http.post("/percolators/matches", json={"collection_ids": [other.collection_id]})
        ).code
    )
    request = match_pb2.ListMatchesRequest(collection_ids=[other.collection_id])
    assert grpc.StatusCode.NOT_FOUND == (await rpc_refused(mine, "ListMatches", request)).code
    made = await mine.http.post("/percolators/queries", json=body)
    stored = (await mine.http.get(f"/percolators/queries/{made.json()['percolator_id']}")).json()
    assert other.collection_id not in stored["collection_ids"]


async def test_listings_show_ones_own_alone(mine: Api, other: Other) -> None:
    """Searches, matches, stored queries, logos, collections and namespaces hold nothing of another namespace."""
    found = (await mine.http.post("/features/search", json={"queries": [QUERY], "collection_ids": ["c"]})).json()
    assert other.task["asset_id"] not in {each["asset_id"] for each in found["results"]}
    matches = {"collection_ids": ["c"], "percolator_id": other.percolator_id}
    assert 0 == (await mine.http.post("/percolators/matches", json=matches)).json()["pagination"]["total"]
    assert "secret" not in (await mine.http.get("/percolators/queries?page_size=100")).text
    assert 0 == (await mine.http.get("/logos")).json()["pagination"]["total"]
    assert 0 == (await rpc(mine, "ListLogos", logo_pb2.ListLogosRequest())).pagination.total
    collections = (await mine.http.get("/collections?page_size=100")).json()["results"]
    assert other.collection_id not in {each["collection_id"] for each in collections}
    namespaces = (await mine.http.get("/namespaces")).json()
    assert (1, True) == (len(namespaces), namespaces[0]["namespace_name"].startswith("mine-"))


async def test_an_uploaded_file_of_another_namespace_is_unknown(mine: Api, other: Other) -> None:
    """The id of another namespace's file is refused, though the id is right."""
    embed = {"type": "file", "vector_index": "multimodal", "value": other.file_id}
    body = {"url": "http://127.0.0.1:1/x", "collection_id": "c", "feature_extractors": {"embed": [embed]}}
    refusal = rest_refusal(await mine.http.post("/index/images/url", json=body))
    assert (422, {"feature_extractors.embed.0.value"}) == (refusal.code, set(refusal.fields))
    accepted = await other.client.http.post("/index/images/url", json=body)
    assert 200 == accepted.status_code
    refusal = rest_refusal(await mine.http.post("/logos", json={"name": "x", "file_id": other.file_id}))
    assert (422, {"file_id"}) == (refusal.code, set(refusal.fields))


async def test_the_logo_of_another_namespace_is_not_found_on_a_picture(
    mine: Api, other: Other, photos: PhotoHost
) -> None:
    """The very image of another namespace's logo shows no logo here, and that logo there."""
    url = photos.put("other-logo.jpg", picture(777_002))
    body = {"url": url, "collection_id": "c", "feature_extractors": {"detect": {"logos": {}}}}
    for client, ids in ((mine, []), (other.client, [other.logo_id])):
        task = await client.run(body)
        found = (await client.http.get(f"/assets/{task['asset_id']}/features")).json()["features"]["image"]
        assert ids == [each["logo_id"] for each in found[0]["detect"]["logos"]]


async def test_an_asset_of_another_namespace_is_not_updated(mine: Api, other: Other, photos: PhotoHost) -> None:
    """asset_update of another namespace's asset is a 404 at once."""
    update = {"asset_id": other.task["asset_id"], "mode": "replace"}
    body = {"url": photos.picture_url(777_003), "collection_id": "c", "asset_update": update}
    assert 404 == rest_refusal(await mine.http.post("/index/images/url", json=body)).code
    request = index_pb2.IndexImageRequest(
        url=body["url"], collection_id="c", asset_update={"asset_id": update["asset_id"], "mode": 1}
    )
    assert grpc.StatusCode.NOT_FOUND == (await rpc_refused(mine, "IndexImage", request)).code


async def test_a_namespace_that_the_key_may_not_use_is_refused(mesh: Mesh, mine: Api, other: Other) -> None:
    """X-Namespace with another's name is a 403, with an unknown one a 404, at both doors."""
    for name, status, code in (
        (other.namespace, 403, grpc.StatusCode.PERMISSION_DENIED),
        ("never-made", 404, grpc.StatusCode.NOT_FOUND),
    ):
        headers = {"X-Namespace": name}
        assert status == rest_refusal(await mine.http.get("/collections", headers=headers)).code
        metadata = (*mine.metadata, ("x-namespace", name))
        refusal = await rpc_refused(mine, "ListCollections", namespace_pb2.ListCollectionsRequest(), metadata)
        assert code == refusal.code


async def test_a_key_makes_no_key_for_another_namespace(mesh: Mesh, api: Api, other: Other) -> None:
    """A key that administers one namespace can't give itself another, nor make one."""
    keys = f"/organizations/users/grabber-{time.time_ns()}@example.org/api-keys"
    made = await api.http.post(keys, json={"namespaces": ["default"], "permissions": ["admin"]})
    headers = {"Authorization": f"Bearer {made.json()['api_key']}"}
    refusal = rest_refusal(await api.http.post(keys, json={"namespaces": [other.namespace]}, headers=headers))
    assert (403, "permission_denied") == (refusal.code, refusal.type)
    refusal = rest_refusal(await api.http.post(keys, json={"namespaces": ["*"]}, headers=headers))
    assert 404 == refusal.code
    body = {"namespace_name": "grabbed", "vector_indexes": ["image"]}
    assert 403 == rest_refusal(await api.http.post("/namespaces", json=body, headers=headers)).code


async def test_streams_of_matches_show_ones_own_alone(mine: Api, other: Other, photos: PhotoHost) -> None:
    """Watching matches from the first one on gives this namespace's alone."""
    stored = {"collection_ids": ["c"], "queries": [QUERY], "min_score": 0}
    percolator_id = (await mine.http.post("/percolators/queries", json=stored)).json()["percolator_id"]
    await other.client.run({"url": photos.picture_url(777_004), "collection_id": "c", "percolate": {}})
    task = await mine.run({"url": photos.picture_url(777_005), "collection_id": "c", "percolate": {}})
    stream = rpc_stream(mine, "WatchMatches", match_pb2.WatchMatchesRequest())
    first = await asyncio.wait_for(anext(aiter(stream)), timeout=20)
    assert (percolator_id, task["task_id"]) == (first.match.percolator_id, first.match.task_id)
    stream.cancel()  # type: ignore[attr-defined]


async def test_a_search_by_grpc_shows_ones_own_alone(mine: Api, other: Other) -> None:
    """Two namespaces with a collection of one name share nothing of it."""
    request = feature_pb2.SearchFeaturesRequest(
        queries=[{"vector_index": 2, "type": 1, "value": "x"}], collection_ids=["c"], page_size=100
    )
    found = await rpc(mine, "SearchFeatures", request)
    theirs = await rpc(other.client, "SearchFeatures", request)
    assert not {each.asset_id for each in found.results} & {each.asset_id for each in theirs.results}
    assert other.task["asset_id"] in {each.asset_id for each in theirs.results}


async def test_what_is_brought_along_updates_nothing_of_another_namespace(mine: Api, other: Other) -> None:
    """Uploads, texts and items of batches don't reach another namespace's asset or file, at either door."""
    update = {"asset_id": other.task["asset_id"], "mode": "replace"}
    inputs = [{"type": "text", "vector_index": "multimodal", "value": "x"}]
    text = {"collection_id": "c", "asset_update": update, "feature_extractors": {"embed": inputs}}
    assert 404 == rest_refusal(await mine.http.post("/index/text", json=text)).code
    files = {"file": ("x.jpg", picture(777_006), "image/jpeg")}
    fields = {"collection_id": "c", "asset_update": json.dumps(update)}
    assert 404 == rest_refusal(await mine.http.post("/index/images/upload", data=fields, files=files)).code
    item = {"url": "http://127.0.0.1:1/x", "collection_id": "c", "asset_update": update}
    results = (await mine.http.post("/index/images/batch", json={"items": [item]})).json()["results"]
    assert ["not_found"] == [each["error"]["type"] for each in results]
    head = {"collection_id": "c", "asset_update": {"asset_id": update["asset_id"], "mode": 1}}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc_upload(mine, upload_messages(picture(777_006), **head))
    assert grpc.StatusCode.NOT_FOUND == caught.value.code()
    request = index_pb2.IndexTextRequest(
        **head, feature_extractors={"embed": [{"type": 2, "vector_index": 2, "value": "x"}]}
    )
    assert grpc.StatusCode.NOT_FOUND == (await rpc_refused(mine, "IndexText", request)).code
    batch = index_pb2.IndexBatchRequest(items=[index_pb2.IndexImageRequest(url=item["url"], **head)])
    assert ["not_found"] == [each.error.type for each in (await rpc(mine, "IndexBatch", batch)).results]
    embed = {"embed": [{"type": "file", "vector_index": "multimodal", "value": other.file_id}]}
    fields = {"collection_id": "c", "feature_extractors": json.dumps(embed)}
    refusal = rest_refusal(await mine.http.post("/index/images/upload", data=fields, files=files))
    assert (422, {"feature_extractors.embed.0.value"}) == (refusal.code, set(refusal.fields))


async def test_the_list_of_tasks_holds_ones_own_alone(mine: Api, other: Other) -> None:
    """No task of another namespace is listed, whatever is asked for, at either door."""
    listed = (await mine.http.get("/tasks?page_size=100")).json()
    assert other.task["task_id"] not in {each["task_id"] for each in listed["results"]}
    answer = await rpc(mine, "ListTasks", task_pb2.ListTasksRequest(page_size=100))
    assert listed["pagination"]["total"] == answer.pagination.total
    # Unknown, or a collection of one's own that was given that name.
    asked = (await mine.http.get(f"/tasks?collection_id={other.collection_id}")).json()
    assert [] == asked.get("results", [])
    assert [other.task["task_id"]] == [
        each["task_id"]
        for each in (await other.client.http.get(f"/tasks?collection_id={other.collection_id}")).json()["results"][-1:]
    ]


async def test_what_brings_a_file_is_refused_like_everything_else(mine: Api, other: Other) -> None:
    """Another namespace's name is a 403 for uploads too, an unknown key a 401, before the file is looked at."""
    for headers, status, code in (
        ({"X-Namespace": other.namespace}, 403, grpc.StatusCode.PERMISSION_DENIED),
        ({"Authorization": "Bearer lm_wrong"}, 401, grpc.StatusCode.UNAUTHENTICATED),
    ):
        for path in ("/index/images/upload", "/index/text", "/index/images/batch", "/files"):
            response = await mine.http.post(path, content=b"x", headers=headers)
            assert status == rest_refusal(response).code, path
        metadata = dict(mine.metadata) | {name.lower(): value for name, value in headers.items()}
        call = Api(mine.http, mine.channel, tuple(metadata.items()))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rpc_upload(call, [])
        assert code == caught.value.code()
