"""Keys, unknown things, and what is no part of the API: the answer says what to do, in the API's own shape."""

from __future__ import annotations

import time

import grpc
import pytest
from google.protobuf.message import Message
from lensmesh.v1 import asset_pb2, logo_pb2, namespace_pb2, percolator_pb2, task_pb2

from tests.api.doors import rest_refusal, rpc, rpc_refused
from tests.conftest import Api

LIST = namespace_pb2.ListCollectionsRequest()


@pytest.mark.parametrize(
    ("authorization", "says"),
    [
        (None, "Authorization: Bearer"),
        ("", "Authorization: Bearer"),
        ("Bearer", "Authorization: Bearer"),
        ("Basic abc", "Authorization: Bearer"),
        ("Bearer lm_wrong", "not known"),
        ("bearer lm_wrong", "not known"),
    ],
)
async def test_a_wrong_key_is_refused(api: Api, authorization: str | None, says: str) -> None:
    """No key, or an unknown one, is 401 and UNAUTHENTICATED, and the answer never repeats the key."""
    request = api.http.build_request("GET", "/collections")
    del request.headers["authorization"]
    if authorization is not None:
        request.headers["authorization"] = authorization
    response = await api.http.send(request)
    refusal = rest_refusal(response)
    assert (401, "unauthenticated") == (refusal.code, refusal.type)
    assert "Bearer" == response.headers["www-authenticate"]
    assert says in refusal.message
    assert "lm_wrong" not in response.text
    metadata = () if authorization is None else (("authorization", authorization),)
    found = await rpc_refused(api, "ListCollections", LIST, metadata)
    assert (grpc.StatusCode.UNAUTHENTICATED, refusal.message) == (found.code, found.message)


async def test_a_key_may_do_what_it_was_made_for(api: Api) -> None:
    """A key with the permission to read reads, and is refused a write with the permission's name."""
    user = f"t{time.time_ns()}@example.org"
    made = await api.http.post(f"/organizations/users/{user}/api-keys?key_name=reader", json={"permissions": ["read"]})
    key = made.json()
    assert ("reader", ["read"]) == (key["key_name"], key["permissions"])
    headers = {"Authorization": f"Bearer {key['api_key']}"}
    assert 200 == (await api.http.get("/collections", headers=headers)).status_code
    response = await api.http.post("/collections", json={"collection_name": "x"}, headers=headers)
    refusal = rest_refusal(response)
    assert (403, "permission_denied", True) == (refusal.code, refusal.type, "'write'" in refusal.message)
    metadata = (("authorization", headers["Authorization"]),)
    request = namespace_pb2.CreateCollectionRequest(collection_name="x")
    found = await rpc_refused(api, "CreateCollection", request, metadata)
    assert (grpc.StatusCode.PERMISSION_DENIED, refusal.message) == (found.code, found.message)
    assert (await rpc(api, "ListCollections", LIST, metadata)).pagination.page == 1


@pytest.mark.parametrize(
    ("method", "path", "name", "request_message"),
    [
        ("GET", "/tasks/nope", "GetTask", task_pb2.GetTaskRequest(task_id="nope")),
        ("GET", "/tasks/nope/events", "WatchTask", task_pb2.WatchTaskRequest(task_id="nope")),
        ("DELETE", "/tasks/nope", "CancelTask", task_pb2.CancelTaskRequest(task_id="nope")),
        ("GET", "/assets/nope", "GetAsset", asset_pb2.GetAssetRequest(asset_id="nope")),
        ("GET", "/assets/nope/features", "GetAssetFeatures", asset_pb2.GetAssetFeaturesRequest(asset_id="nope")),
        (
            "GET", "/percolators/queries/nope", "GetStoredQuery",
            percolator_pb2.GetStoredQueryRequest(percolator_id="nope"),
        ),
        (
            "DELETE", "/percolators/queries/nope", "DeleteStoredQuery",
            percolator_pb2.DeleteStoredQueryRequest(percolator_id="nope"),
        ),
        ("GET", "/logos/nope", "GetLogo", logo_pb2.GetLogoRequest(logo_id="nope")),
        ("DELETE", "/logos/nope", "DeleteLogo", logo_pb2.DeleteLogoRequest(logo_id="nope")),
    ],
)  # fmt: skip
async def test_an_unknown_id_is_not_found(
    api: Api, method: str, path: str, name: str, request_message: Message
) -> None:
    """An id that is not known is 404 and NOT_FOUND, and the message names it."""
    refusal = rest_refusal(await api.http.request(method, path))
    assert (404, "not_found", True) == (refusal.code, refusal.type, "nope" in refusal.message)
    found = await rpc_refused(api, name, request_message)
    assert (grpc.StatusCode.NOT_FOUND, "not_found") == (found.code, found.type)
    assert refusal.message == found.message


async def test_an_unknown_namespace_is_not_found(api: Api) -> None:
    """X-Namespace with a name that does not exist is 404 and NOT_FOUND."""
    refusal = rest_refusal(await api.http.get("/collections", headers={"X-Namespace": "nowhere"}))
    assert (404, "no namespace 'nowhere'") == (refusal.code, refusal.message)
    found = await rpc_refused(api, "ListCollections", LIST, (*api.metadata, ("x-namespace", "nowhere")))
    assert (grpc.StatusCode.NOT_FOUND, refusal.message) == (found.code, found.message)


async def test_a_namespace_is_given_by_name_or_id(api: Api) -> None:
    """X-Namespace takes both."""
    default = (await api.http.get("/namespaces")).json()
    known = next(each for each in default if each["namespace_name"] == "default")
    for name in ("default", known["namespace_id"]):
        assert 200 == (await api.http.get("/collections", headers={"X-Namespace": name})).status_code


@pytest.mark.parametrize("path", ["/nope", "/index", "/index/images", "/v2/collections", "/tasks/a/b/c"])
async def test_an_unknown_path_is_not_found(api: Api, path: str) -> None:
    """A path that is no part of the API is a 404 in the API's shape that points at the description."""
    refusal = rest_refusal(await api.http.get(path))
    assert (404, "not_found", True) == (refusal.code, refusal.type, path in refusal.message)
    assert "/docs" in refusal.message


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/index/images/url"), ("PATCH", "/collections"), ("POST", "/docs")]
)
async def test_a_wrong_method_is_not_allowed(api: Api, method: str, path: str) -> None:
    """A method that a path does not take is a 405 in the API's shape."""
    refusal = rest_refusal(await api.http.request(method, path))
    assert (405, "method_not_allowed", True) == (refusal.code, refusal.type, method in refusal.message)


@pytest.mark.parametrize("path", ["/index/videos/url", "/v1/index/videos/upload", "/ingest/videos/x", "/index/videos/"])
async def test_video_is_not_implemented(api: Api, path: str) -> None:
    """Video is known and not offered: 501 in the API's shape."""
    refusal = rest_refusal(await api.http.post(path, json={}))
    assert (501, "not_implemented", True) == (refusal.code, refusal.type, "video" in refusal.message)


async def test_what_exists_already_is_a_conflict(api: Api) -> None:
    """A second collection or namespace of one name is 409 and ALREADY_EXISTS."""
    await api.http.post("/collections", json={"collection_name": "twice"})
    refusal = rest_refusal(await api.http.post("/collections", json={"collection_name": "twice"}))
    assert (409, "conflict") == (refusal.code, refusal.type)
    request = namespace_pb2.CreateNamespaceRequest(namespace_name="default", vector_indexes=[1])
    found = await rpc_refused(api, "CreateNamespace", request)
    assert (grpc.StatusCode.ALREADY_EXISTS, "conflict") == (found.code, found.type)


async def test_an_index_that_the_namespace_lacks_is_refused(api: Api) -> None:
    """A namespace with one index takes no embeddings into another, at once and with the index's name."""
    await api.http.post("/namespaces", json={"namespace_name": "only-text", "vector_indexes": ["text"]})
    headers = {"X-Namespace": "only-text"}
    body = {"url": "http://127.0.0.1:1/x.jpg", "collection_id": "c"}
    refusal = rest_refusal(await api.http.post("/index/images/url", json=body, headers=headers))
    assert {"feature_extractors.embed.0.vector_index": "the namespace has no index 'multimodal'"} == refusal.fields
    query = {"vector_index": "image", "type": "vector", "vector": [1]}
    stored = {"collection_ids": ["c"], "queries": [query]}
    refusal = rest_refusal(await api.http.post("/percolators/queries", json=stored, headers=headers))
    assert {"queries.0.vector_index": "the namespace has no index 'image'"} == refusal.fields
