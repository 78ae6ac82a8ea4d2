"""Something is matched against the stored queries without being indexed, and says what indexing would."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from lensmesh.v1 import percolator_pb2

from services.gateway.rest.codec import decode
from tests.api.doors import rest_refusal, rpc, rpc_refused
from tests.api.test_percolation import ids, store, text, with_texts
from tests.conftest import Api, PhotoHost, picture

STATS = {"stored", "candidates", "evaluated", "filtered", "matched", "ms"}


async def percolate(client: Api, collection: str, *inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What inputs match."""
    body = {"collection_id": collection, "inputs": list(inputs)} | more
    response = await client.http.post("/percolators/percolate", json=body)
    assert 200 == response.status_code, response.text
    return dict(response.json())


def scores(found: dict[str, Any]) -> list[Any]:
    """What both answers say of their matches."""
    keys = ("percolator_id", "score", "query_scores", "metadata")
    return [{key: each[key] for key in keys} for each in found["matches"]]


async def test_it_equals_indexing(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """Texts, words, an image and the metadata match what the same asset matches when it is indexed, by equal scores."""
    cheap = {"key": "metadata.price", "operator": "lt", "value": 10}
    await store(space, collection, text("a red shoe"), metadata={"of": "text"}, filters=cheap)
    await store(space, collection, text("shoe red", "keyword"), min_score=0.1)
    # These words stand in the metadata alone.
    await store(space, collection, text("leather", "keyword"), min_score=0.1)
    await store(space, collection, {"vector_index": "image", "type": "url", "value": photos.picture_url(number)})
    await store(space, collection, text("a red shoe"), filters={"NOR": [cheap]})
    await store(space, collection, text("a red shoe"), text("unheard", "keyword"), min_score=0.2)
    metadata = {"price": 5, "material": "leather"}
    embed = [
        {"type": "text", "vector_index": "text", "value": "a red shoe"},
        {"type": "text", "vector_index": "keyword", "value": "one red red shoe"},
        {"type": "url", "vector_index": "image", "value": photos.picture_url(number)},
    ]
    indexed = with_texts(photos, collection, number, metadata=metadata, feature_extractors={"embed": embed})
    task = await space.run(indexed)
    assert 5 == len(ids(task))
    found = await percolate(space, collection, *embed, metadata=metadata)
    assert scores(task) == scores(found)
    counted = task["steps"]["percolate"]["stats"]
    assert STATS == set(counted) == set(found["stats"])
    assert {key: counted[key] for key in STATS - {"ms"}} == {key: found["stats"][key] for key in STATS - {"ms"}}
    assert (5, True) == (counted["matched"], counted["stored"] >= counted["candidates"] >= counted["evaluated"] >= 5)


async def test_nothing_is_kept(space: Api, collection: str, number: int) -> None:
    """No asset, no match and no collection is made; both doors answer the same."""
    stored = await store(space, collection, {"vector_index": "image", "type": "base64", "value": inline(number)})
    given = {"vector_index": "image", "type": "base64", "value": inline(number)}
    found = await percolate(space, collection, given)
    assert [(stored, 1.0)] == [(each["percolator_id"], each["score"]) for each in found["matches"]]
    request = percolator_pb2.PercolateRequest()
    decode({"collection_id": collection, "inputs": [given]}, request)
    answer = await rpc(space, "Percolate", request)
    assert [stored] == [each.percolator_id for each in answer.matches]
    body = {"collection_ids": [collection]}
    assert [] == (await space.http.post("/percolators/matches", json=body)).json()["results"]
    assert [] == (await space.http.post("/assets", json=body)).json()["results"]
    assert 0 == (await space.http.get(f"/percolators/queries/{stored}")).json()["stats"]["matches"]


def inline(number: int) -> str:
    """A picture as a value."""
    return base64.b64encode(picture(number)).decode()


async def test_thresholds_and_limits(space: Api, collection: str) -> None:
    """The larger threshold counts, and at most so many come, the best first."""
    low = await store(space, collection, text("one"), text("absent", "keyword"), min_score=0.1, name="low")
    high = await store(space, collection, text("one"), min_score=0.9)
    one = text("one")
    every = await percolate(space, collection, one)
    assert [(high, ""), (low, "low")] == [(each["percolator_id"], each["name"]) for each in every["matches"]]
    assert [high] == [m["percolator_id"] for m in (await percolate(space, collection, one, min_score=0.8))["matches"]]
    few = await percolate(space, collection, one, max_candidates=1)
    assert ([high], 2) == ([m["percolator_id"] for m in few["matches"]], few["stats"]["matched"])


async def test_vectors_are_matched_as_they_are(space: Api, collection: str) -> None:
    """A dense vector of the index's size is one of the inputs; of another size it is refused."""
    vector = [1.0] + [0.0] * 63
    stored = await store(space, collection, {"vector_index": "text", "type": "vector", "vector": vector})
    given = {"vector_index": "text", "type": "vector", "vector": [2 * each for each in vector]}
    assert [stored] == [each["percolator_id"] for each in (await percolate(space, collection, given))["matches"]]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"inputs": []}, "inputs"),
        ({"inputs": [text("")]}, "inputs.0"),
        ({"inputs": [text("x"), {"vector_index": "text", "type": "vector", "vector": [1.0]}]}, "inputs.1.vector"),
        ({"inputs": [text("x", "face")]}, "inputs.0"),
        ({"inputs": [{"vector_index": "face", "type": "base64", "value": "eA=="}]}, "inputs.0.vector_index"),
        ({"inputs": [{"vector_index": "image", "type": "base64", "value": "?"}]}, "inputs.0.value"),
        ({"min_score": 2}, "min_score"),
        ({"max_candidates": 0}, "max_candidates"),
    ],
)
async def test_what_is_wrong_is_named(space: Api, collection: str, change: dict[str, Any], field: str) -> None:
    """A broken rule is a 422 that names the field, and the same at the gRPC door."""
    body = {"collection_id": collection, "inputs": [text("x")]} | change
    refused = rest_refusal(await space.http.post("/percolators/percolate", json=body))
    assert (422, [field]) == (refused.code, list(refused.fields))
    request = percolator_pb2.PercolateRequest()
    decode(body, request)
    assert [field] == list((await rpc_refused(space, "Percolate", request)).fields)


async def test_an_unknown_collection_is_not_found(space: Api) -> None:
    """Unlike indexing, matching makes no collection."""
    body = {"collection_id": "never-made", "inputs": [text("x")]}
    refused = rest_refusal(await space.http.post("/percolators/percolate", json=body))
    assert (404, "not_found") == (refused.code, refused.type)
    request = ParseDict({"collection_id": "never-made"}, percolator_pb2.PercolateRequest())
    decode(body, request)
    assert "not_found" == (await rpc_refused(space, "Percolate", request)).type
