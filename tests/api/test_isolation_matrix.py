"""Every operation, at both doors, with a key of one namespace and the ids of another: refused, and nothing changes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from runner.mesh import Mesh
from services.gateway.core.core import Operation
from services.gateway.rest.routes import bindings
from services.mesh.json_encoding import encode
from tests.api.doors import METHODS, rest_refusal, rpc_refused
from tests.conftest import Api, PhotoHost, api_of

QUERY = {"vector_index": "VECTOR_INDEX_MULTIMODAL", "type": "QUERY_TYPE_TEXT", "value": "x"}
# What else each operation needs for a request without fault, beside the ids that its fields ask for.
NEEDS: dict[str, dict[str, Any]] = {
    "IndexImage": {"url": "http://127.0.0.1:1/x", "asset_update": {"mode": "ASSET_UPDATE_MODE_APPEND"}},
    "IndexText": {
        "asset_update": {"mode": "ASSET_UPDATE_MODE_APPEND"},
        "feature_extractors": {"embed": [QUERY | {"type": "EMBED_TYPE_TEXT"}]},
    },
    "SearchFeatures": {"queries": [QUERY]},
    "ReplaceAsset": {"metadata": {"a": 1}},
    "UpdateAsset": {"metadata": {"a": 1}},
    "UpdateFeature": {"metadata": {"a": 1}},
    "ReplaceStoredQuery": {"queries": [QUERY]},
    "UpdateStoredQuery": {"enabled": False},
    "Percolate": {"inputs": [QUERY]},
    "SearchAssets": {"query": {"key": ["*"], "value": "x"}},
}
# Operations that name nothing that exists, and so can't reach for another namespace's.
NAMELESS = {
    "EmbedFeature", "ListStoredQueries", "CreateStoredQuery", "WatchMatches", "CreateLogo", "ListLogos",
    "CreateNamespace", "ListNamespaces", "ListIndexes", "Reembed", "CreateCollection", "ListCollections", "CreateKey",
    "UploadFile", "GetOrganization", "GetUsage", "ExportStoredQueries",
}  # fmt: skip
# Operations whose ids stand inside a list or a stream, which tests of their own hold: tests/api/test_isolation.py and
# test_import_export.py.
ELSEWHERE = {"IndexBatch", "IndexUpload", "ImportStoredQueries"}
REFUSED = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED)


@dataclass
class Theirs:
    """Another namespace: a client of its own, and its ids by the name of the field that asks for them."""

    client: Api
    ids: dict[str, str]


async def admin_of(mesh: Mesh, api: Api, name: str) -> Api:
    """A client that may do everything in one new namespace."""
    made = await api.http.post("/namespaces", json={"namespace_name": name, "vector_indexes": ["multimodal"]})
    assert 200 == made.status_code, made.text
    body = {"namespaces": [name], "permissions": ["read", "write", "admin"]}
    key = await api.http.post(f"/organizations/users/{name}@example.org/api-keys", json=body)
    return api_of(mesh, key.json()["api_key"])


@pytest.fixture(scope="module")
async def theirs(mesh: Mesh, api: Api, photos: PhotoHost) -> AsyncIterator[Theirs]:
    """A namespace with one of everything."""
    name = f"theirs-{time.time_ns()}"
    client = await admin_of(mesh, api, name)
    query = {"vector_index": "multimodal", "type": "text", "value": "x"}
    stored = {"collection_ids": ["c"], "queries": [query], "min_score": 0}
    percolator_id = (await client.http.post("/percolators/queries", json=stored)).json()["percolator_id"]
    task = await client.run({"url": photos.picture_url(888_001), "collection_id": "c", "percolate": {}})
    logo = await client.http.post("/logos", json={"name": "mark", "url": photos.picture_url(888_002)})
    collection = (await client.http.get("/collections/c")).json()
    yield Theirs(
        client,
        {
            "task_id": task["task_id"],
            "asset_id": task["asset_id"],
            "feature_id": task["outputs"][0]["feature_id"],
            "offset_feature_id": task["outputs"][0]["feature_id"],
            "match_id": task["matches"][0]["match_id"],
            "percolator_id": percolator_id,
            "logo_id": logo.json()["logo_id"],
            "collection": collection["collection_id"],
            "collection_id": collection["collection_id"],
            "email": f"{name}@example.org",
            "key_name": "default",
            "collection_ids": collection["collection_id"],
            "namespace": name,
        },
    )  # fmt: skip
    await client.http.aclose()
    await client.channel.close()


@pytest.fixture(scope="module")
async def mine(mesh: Mesh, api: Api) -> AsyncIterator[Api]:
    """A client that may do everything in an empty namespace."""
    client = await admin_of(mesh, api, f"mine-{time.time_ns()}")
    yield client
    await client.http.aclose()
    await client.channel.close()


def request_of(method: MethodDescriptor, ids: dict[str, str]) -> Message | None:
    """A request without fault that names the given ids wherever it can; None when it can't name any."""
    message = GetMessageClass(method.input_type)()
    ParseDict(NEEDS.get(method.name, {}), message)
    named = False
    for field in method.input_type.fields:
        if field.name == "asset_update":
            message.asset_update.asset_id = ids["asset_id"]  # type: ignore[attr-defined]
            message.collection_id = "c"  # type: ignore[attr-defined]
            named = True
        elif field.name in ids and not (field.name == "collection_id" and named):
            value = ids[field.name]
            getattr(message, field.name).append(value) if field.is_repeated else setattr(message, field.name, value)
            named = True
    return message if named else None


async def state(theirs: Theirs) -> list[Any]:
    """What the other namespace holds, as its own client sees it."""
    ids = theirs.ids
    paths = [f"/assets/{ids['asset_id']}/features", f"/percolators/queries/{ids['percolator_id']}", "/collections"]
    paths += [f"/logos/{ids['logo_id']}", f"/tasks/{ids['task_id']}", f"/namespaces/{ids['namespace']}"]
    seen = [(await theirs.client.http.get(path)).json() for path in paths]
    matches = await theirs.client.http.post("/percolators/matches", json={"collection_ids": ["c"]})
    return [*seen, matches.json()]


@pytest.mark.parametrize("name", sorted(METHODS))
async def test_another_namespace_is_out_of_reach(mine: Api, theirs: Theirs, name: str) -> None:
    """The ids of another namespace are unknown or forbidden, and what it holds stays as it was."""
    method = METHODS[name]
    if name in ELSEWHERE:
        return
    request = request_of(method, theirs.ids)
    if request is None or name in NAMELESS:
        assert name in NAMELESS, f"{name} names nothing: list it, or say here which id it takes"
        return
    before = await state(theirs)
    refusal = await rpc_refused(mine, name, request)
    assert refusal.code in REFUSED, f"{name} at the gRPC door: {refusal}"
    for binding in bindings(Operation(method, 0, None)):  # type: ignore[arg-type]
        body = {key: value for key, value in encode(request).items() if value not in (None, "", [], {}, 0)}
        path = binding.path
        for key in list(body):
            if f"{{{key}}}" in path:
                path = path.replace(f"{{{key}}}", str(body.pop(key)))
        given = {"json": body} if binding.body else {"params": body}
        refused = rest_refusal(await mine.http.request(binding.method, path, **given))
        assert refused.code in (403, 404), f"{binding.method} {path}: {refused}"
    assert before == await state(theirs)
