"""What a key used, and how much it may use."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from lensmesh.v1 import namespace_pb2, organization_pb2

from runner.mesh import Mesh
from tests.api.doors import rest_refusal, rpc
from tests.api.test_isolation import client_of
from tests.conftest import Api, PhotoHost, api_of

LIST = namespace_pb2.ListCollectionsRequest()


async def test_a_key_that_asks_too_often_is_told_when_to_come_again(mesh: Mesh, api: Api) -> None:
    """Beyond a key's requests a minute: 429 with Retry-After, RESOURCE_EXHAUSTED with RetryInfo; others go on."""
    user = f"often{time.time_ns()}@example.org"
    body = {"requests_per_minute": 5}
    key = (await api.http.post(f"/organizations/users/{user}/api-keys", json=body)).json()["key"]
    client = api_of(mesh, key)
    statuses = [(await client.http.get("/collections")).status_code for _ in range(5)]
    assert [200] * 5 == statuses
    response = await client.http.get("/collections")
    refusal = rest_refusal(response)
    assert (429, "resource_exhausted", True) == (refusal.code, refusal.type, "5 requests a minute" in refusal.message)
    assert 1 <= int(response.headers["retry-after"]) <= 60
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc(client, "ListCollections", LIST)
    assert (grpc.StatusCode.RESOURCE_EXHAUSTED, refusal.message) == (caught.value.code(), caught.value.details())
    status, retry = rpc_status.from_call(caught.value), error_details_pb2.RetryInfo()  # type: ignore[arg-type]
    assert status is not None
    assert any(detail.Unpack(retry) for detail in status.details)
    assert 1 <= retry.retry_delay.seconds <= 60
    assert 200 == (await api.http.get("/collections")).status_code
    raised = {"requests_per_minute": 1_000}
    await api.http.patch(f"/organizations/users/{user}/api-keys/default", json=raised)
    assert 200 == (await client.http.get("/collections")).status_code
    await client.http.aclose()
    await client.channel.close()


def credits_of(usage: dict[str, Any]) -> dict[str, int]:
    """Credits of today by action; what usage says of itself adds up."""
    for date in usage["dates"]:
        assert {"date", "credits", "actions"} == set(date)
        assert date["credits"] == sum(action["credits"] for action in date["actions"])
    assert usage["total_credits"] == sum(date["credits"] for date in usage["dates"])
    today = [date for date in usage["dates"] if date["date"] == datetime.now(UTC).date().isoformat()]
    return {action["action"]: action["credits"] for action in today[0]["actions"]} if today else {}


async def test_usage_is_counted_by_action(mesh: Mesh, api: Api, photos: PhotoHost, number: int) -> None:
    """Each success counts under its operation, a batch as its images, a replay not at all; both doors count."""
    client = await client_of(mesh, api, f"usage-{time.time_ns()}")
    for _ in range(3):
        await client.http.get("/namespaces")
    await rpc(client, "ListNamespaces", namespace_pb2.ListNamespacesRequest())
    await client.http.get("/tasks/nope")
    body = {"url": photos.picture_url(number), "collection_id": "c"}
    await client.http.post("/index/images/url", json=body)
    for _ in range(2):
        batch = {"items": [body, body, {}]}
        await client.http.post("/index/images/batch", json=batch, headers={"Idempotency-Key": "once"})
    usage = (await client.http.get("/organizations/usage")).json()
    assert {"ListNamespaces": 4, "IndexImage": 3} == credits_of(usage)
    answer = await rpc(client, "GetUsage", organization_pb2.GetUsageRequest())
    # The request before counts now.
    assert 8 == answer.usage.total_credits
    await client.http.aclose()
    await client.channel.close()


async def test_usage_is_of_the_keys_that_the_caller_may_see(mesh: Mesh, api: Api) -> None:
    """A key without admin sees its own; one with admin all of its namespaces'; one for everything, everybody's."""
    namespace = f"seen-{time.time_ns()}"
    reader = await client_of(mesh, api, namespace)
    body = {"namespaces": [namespace], "permissions": ["admin"]}
    made = await api.http.post(f"/organizations/users/admin-{namespace}@example.org/api-keys", json=body)
    admin = api_of(mesh, made.json()["key"])
    await reader.http.get("/namespaces")
    await admin.http.get("/namespaces")
    await admin.http.get("/collections")
    own = credits_of((await reader.http.get("/organizations/usage")).json())
    assert {"ListNamespaces": 1} == own
    seen = credits_of((await admin.http.get("/organizations/usage")).json())
    assert {"ListNamespaces": 2, "ListCollections": 1, "GetUsage": 1} == seen
    every = credits_of((await api.http.get("/organizations/usage")).json())
    assert all(every[action] >= number for action, number in seen.items())
    for client in (reader, admin):
        await client.http.aclose()
        await client.channel.close()
