"""What stored queries are besides what they look for: enabled or not, expiring, counted; and those that are refused."""

from __future__ import annotations

import asyncio
import base64
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lensmesh.v1 import percolator_pb2

from services.gateway.rest.codec import decode
from tests.api.doors import rest_refusal, rpc, rpc_refused
from tests.api.test_percolation import ids, store, text, with_texts
from tests.conftest import Api, PhotoHost, picture

QUERIES = "/percolators/queries"


async def shown(client: Api, percolator_id: str) -> dict[str, Any]:
    """A stored query."""
    response = await client.http.get(f"{QUERIES}/{percolator_id}")
    assert 200 == response.status_code, response.text
    return dict(response.json())


async def test_a_disabled_query_matches_nothing(tenant: Api, photos: PhotoHost, number: int) -> None:
    """It is listed and counted, but matches nothing until PUT or PATCH enable it; both doors say what it is."""
    percolator_id = await store(tenant, "c", text("one"), enabled=False)
    assert [] == ids(await tenant.run(with_texts(photos, "c", number, "one")))
    listed = (await tenant.http.get(QUERIES)).json()
    assert (1, [False], [None]) == (
        listed["pagination"]["total"],
        [each["enabled"] for each in listed["results"]],
        [each["stats"] for each in listed["results"]],
    )
    body = {"collection_ids": ["c"], "queries": [text("one")]}
    replaced = await tenant.http.put(f"{QUERIES}/{percolator_id}", json=body)
    assert (200, True) == (replaced.status_code, replaced.json()["enabled"])
    assert [percolator_id] == ids(await tenant.run(with_texts(photos, "c", number, "one")))
    changed = await tenant.http.patch(f"{QUERIES}/{percolator_id}", json={"enabled": False})
    assert (200, False) == (changed.status_code, changed.json()["enabled"])
    assert [] == ids(await tenant.run(with_texts(photos, "c", number, "one")))
    request = percolator_pb2.UpdateStoredQueryRequest(percolator_id=percolator_id, enabled=True)
    assert (await rpc(tenant, "UpdateStoredQuery", request)).stored_query.enabled
    assert [percolator_id] == ids(await tenant.run(with_texts(photos, "c", number, "one")))


async def test_a_change_leaves_the_rest_as_it_is(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """PATCH keeps an inline image, the vectors and the webhook; without fields it changes nothing."""
    inline = {"vector_index": "image", "type": "base64", "value": base64.b64encode(picture(number)).decode()}
    delivery = {"webhook_url": photos.url("hook"), "secret": "x" * 24}
    percolator_id = await store(space, collection, inline, delivery=delivery, metadata={"a": 1}, name="kept")
    path = f"{QUERIES}/{percolator_id}?include_vectors=true"
    before = (await space.http.get(path)).json()
    assert before == (await space.http.patch(f"{QUERIES}/{percolator_id}", json={})).json() | {
        "vectors": before["vectors"]
    }
    for enabled in (False, True):
        await space.http.patch(f"{QUERIES}/{percolator_id}", json={"enabled": enabled})
        assert before | {"enabled": enabled} == (await space.http.get(path)).json()
    assert 404 == (await space.http.patch(f"{QUERIES}/nowhere", json={"enabled": True})).status_code


async def test_a_query_expires(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """From its end on a stored query matches nothing, and soon after it is gone; a far or no end changes nothing."""
    at = datetime.now(UTC) + timedelta(seconds=1.5)
    soon = await store(space, collection, text("one"), expires_at=at.isoformat())
    late = await store(space, collection, text("one"), expires_at="9999-12-31T23:59:59Z")
    never = await store(space, collection, text("one"), expires_at=None)
    assert at.replace(tzinfo=None).isoformat()[:19] == (await shown(space, soon))["expires_at"][:19]
    assert None is (await shown(space, never))["expires_at"]
    deadline = time.monotonic() + 20
    while (await space.http.get(f"{QUERIES}/{soon}")).status_code == 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert datetime.now(UTC) >= at
    assert sorted([late, never]) == ids(await space.run(with_texts(photos, collection, number, "one")))
    body = {"collection_ids": [collection], "queries": [text("one")], "expires_at": "9999-01-01T00:00:00Z"}
    assert 200 == (await space.http.put(f"{QUERIES}/{never}", json=body)).status_code
    assert "9999-01-01T00:00:00Z" == (await shown(space, never))["expires_at"]


async def test_matches_are_counted(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """A stored query says how many matches of it are kept, and when the last one was made."""
    percolator_id = await store(space, collection, text("one"))
    assert {"matches": 0, "last_match_at": None} == (await shown(space, percolator_id))["stats"]
    tasks = [await space.run(with_texts(photos, collection, number + n, "one")) for n in range(2)]
    stats = (await shown(space, percolator_id))["stats"]
    assert {"matches": 2, "last_match_at": tasks[-1]["matches"][0]["created_at"]} == stats
    await space.http.delete(f"/percolators/matches/{tasks[-1]['matches'][0]['match_id']}")
    assert 1 == (await shown(space, percolator_id))["stats"]["matches"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"queries": [text("...", "keyword")]}, "queries.0.value"),
        ({"queries": [text("ok"), text("x", "face")]}, "queries.1"),
        ({"queries": [text("ok", "face")]}, "queries.0"),
        ({"queries": [{"vector_index": "face", "type": "vector", "vector": [1.0]}]}, "queries.0.vector_index"),
        ({"queries": [{"vector_index": "text", "type": "vector", "vector": [0.0] * 64}]}, "queries.0.vector"),
        ({"queries": [{"vector_index": "text", "type": "vector", "vector": [1.0]}]}, "queries.0.vector"),
        ({"filters": {"key": "a", "operator": "regex", "value": "("}}, "filters.value"),
        ({"queries": [text("ok", filters={"key": "a", "operator": "in", "value": 1})]}, "queries.0.filters.value"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ],
)
async def test_what_could_never_match_is_refused(
    space: Api, collection: str, change: dict[str, Any], field: str
) -> None:
    """A stored query that could not be evaluated is a 422 that says why, when it is made and when it is replaced."""
    body = {"collection_ids": [collection], "queries": [text("ok")]} | change
    refused = rest_refusal(await space.http.post(QUERIES, json=body))
    assert (422, [field]) == (refused.code, list(refused.fields))
    percolator_id = await store(space, collection, text("ok"))
    assert refused == rest_refusal(await space.http.put(f"{QUERIES}/{percolator_id}", json=body))
    request = percolator_pb2.CreateStoredQueryRequest()
    decode(body, request)
    assert refused.fields == (await rpc_refused(space, "CreateStoredQuery", request)).fields


async def test_a_time_that_there_is_not_is_refused(space: Api, collection: str) -> None:
    """A message's times beyond the year 9999, or with too many nanoseconds, are refused by name."""
    request = percolator_pb2.CreateStoredQueryRequest()
    decode({"collection_ids": [collection], "queries": [text("ok")]}, request)
    for wrong in (Timestamp(seconds=2**40), Timestamp(seconds=2**62), Timestamp(seconds=2_000_000_000, nanos=-1)):
        request.expires_at.CopyFrom(wrong)
        assert ["expires_at"] == list((await rpc_refused(space, "CreateStoredQuery", request)).fields)


async def test_a_record_has_a_limit(space: Api, collection: str) -> None:
    """A stored query that is too large to be kept is a 413 with the limit in it."""
    body = {"collection_ids": [collection], "queries": [text("word " * 200_000, "keyword")]}
    refused = rest_refusal(await space.http.post(QUERIES, json=body))
    assert (413, "payload_too_large") == (refused.code, refused.type)
    assert "950000" in refused.message
