"""Which stored assets a stored query would have matched: what indexing them with percolate had found."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from lensmesh.v1 import percolator_pb2

from tests.api.doors import rest_refusal, rpc, rpc_refused
from tests.api.test_percolation import store, text, with_texts
from tests.conftest import Api, PhotoHost


async def dry_run(client: Api, percolator_id: str, **body: Any) -> dict[str, Any]:
    """A dry run."""
    response = await client.http.post(f"/percolators/queries/{percolator_id}/dry-run", json=body)
    assert 200 == response.status_code, response.text
    return dict(response.json())


async def index_some(client: Api, photos: PhotoHost, collection: str, number: int) -> None:
    """Six assets, of which some lack an index."""
    texts = [("a red shoe",), ("a red shoe", "a hat"), ("a hat",), (), ("red shoes",), ("a red shoe",)]
    for position, each in enumerate(texts):
        body = with_texts(photos, collection, number + position, *each, metadata={"price": position, "kind": "shoe"})
        if position < 4:
            words = {"type": "text", "vector_index": "keyword", "value": f"red shoe {position}", "field_name": "words"}
            body["feature_extractors"]["embed"].append(words)
        task = await client.run(body)
        assert "DONE" == task["status"], task


async def test_it_equals_what_indexing_found(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """Of assets that were indexed with percolate, a dry run finds those that matched, by the same scores, in order."""
    dear = {"key": "metadata.price", "operator": "gte", "value": 1}
    stored = [
        await store(space, collection, text("a red shoe"), min_score=0.9),
        await store(space, collection, text("shoe", "keyword"), text("a red shoe"), min_score=0.2, filters=dear),
        # A word of the metadata.
        await store(space, collection, text("shoe red", "keyword"), min_score=0.01),
        await store(
            space, collection, text("a red shoe", filters={"key": "metadata.price", "value": 5}), min_score=0.5
        ),
        await store(space, collection, {"vector_index": "image", "type": "url", "value": photos.picture_url(number)}),
    ]
    await index_some(space, photos, collection, number)
    for percolator_id in stored:
        body = {"collection_ids": [collection], "percolator_id": percolator_id}
        matches = (await space.http.post("/percolators/matches?page_size=50", json=body)).json()["results"]
        assert matches
        keys = ("asset_id", "feature_id", "collection_id", "score", "query_scores")
        expected = [{key: match[key] for key in keys} for match in matches]
        expected.sort(key=lambda match: (-match["score"], match["feature_id"]))
        found = await dry_run(space, percolator_id)
        assert expected == [{key: each[key] for key in keys} for each in found["results"]]
        assert (len(matches), False) == (found["matched"], found["truncated"])


async def test_scores_are_counted_in_bins(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """Twenty ranges hold all that satisfy the filters; another threshold and a limit narrow the results alone."""
    cheap = {"key": "metadata.price", "operator": "lt", "value": 5}
    percolator_id = await store(space, collection, text("a red shoe"), min_score=0.9, filters=cheap, enabled=False)
    await index_some(space, photos, collection, number)
    whole = await dry_run(space, percolator_id)
    bins = whole["histogram"]
    assert [(round(n / 20, 2), round((n + 1) / 20, 2)) for n in range(20)] == [
        (round(each["low"], 2), round(each["high"], 2)) for each in bins
    ]
    assert (5, 5, 2) == (whole["evaluated"], sum(each["count"] for each in bins), whole["matched"])
    assert (2, 1) <= (bins[19]["count"], bins[0]["count"])
    assert [1.0, 1.0] == [each["score"] for each in whole["results"]]
    assert {"price", "kind"} == set(whole["results"][0]["metadata"])
    every = await dry_run(space, percolator_id, min_score=0, limit=3)
    assert (3, 5) == (len(every["results"]), every["matched"])
    assert whole["results"] == every["results"][:2]
    request = percolator_pb2.DryRunStoredQueryRequest(percolator_id=percolator_id)
    answer = await rpc(space, "DryRunStoredQuery", request)
    assert [each["feature_id"] for each in whole["results"]] == [each.feature_id for each in answer.results]
    # Nothing was made by that, and what is disabled had matched nothing.
    listed = await space.http.post("/percolators/matches", json={"collection_ids": [collection]})
    assert [] == listed.json()["results"]


async def test_the_assets_own_metadata_count(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """Filters see the metadata that the asset has now, as they would if it were indexed."""
    percolator_id = await store(space, collection, text("one"), filters={"key": "metadata.price", "value": 2})
    task = await space.run(with_texts(photos, collection, number, "one", metadata={"price": 1}))
    assert (0, 0) == (len(task["matches"]), (await dry_run(space, percolator_id))["evaluated"])
    await space.http.patch(f"/assets/{task['asset_id']}", json={"metadata": {"price": 2}})
    found = await dry_run(space, percolator_id)
    assert [(task["asset_id"], {"price": 2})] == [(each["asset_id"], each["metadata"]) for each in found["results"]]


async def test_an_empty_collection_is_no_error(space: Api, collection: str) -> None:
    """Without assets all counts are zero."""
    found = await dry_run(space, await store(space, collection, text("one")))
    assert ([], 0, 0, False) == (found["results"], found["matched"], found["evaluated"], found["truncated"])
    assert 20 == len(found["histogram"])


async def test_only_so_many_features_are_looked_at(space: Api, collection: str) -> None:
    """Of more features than the server's limit only that many are scored, and the answer says so."""
    percolator_id = await store(space, collection, text("one"))
    embed = [{"type": "text", "vector_index": "text", "value": "one"}]
    body = {"collection_id": collection, "feature_extractors": {"embed": embed}}
    answers = await asyncio.gather(*(space.http.post("/index/text", json=body) for _ in range(21)))
    await asyncio.gather(*(space.finished(each.json()["task_id"]) for each in answers))
    found = await dry_run(space, percolator_id, limit=5)
    assert (5, 20, 20, True) == (len(found["results"]), found["matched"], found["evaluated"], found["truncated"])


@pytest.mark.parametrize("body", [{"min_score": 1.1}, {"limit": 0}, {"limit": 1001}])
async def test_what_is_wrong_is_named(space: Api, collection: str, body: dict[str, Any]) -> None:
    """A broken rule is a 422 that names the field; an unknown stored query a 404."""
    percolator_id = await store(space, collection, text("one"))
    path = f"/percolators/queries/{percolator_id}/dry-run"
    refused = rest_refusal(await space.http.post(path, json=body))
    assert (422, list(body)) == (refused.code, list(refused.fields))
    request = percolator_pb2.DryRunStoredQueryRequest(percolator_id=percolator_id, **body)
    assert list(body) == list((await rpc_refused(space, "DryRunStoredQuery", request)).fields)
    assert 404 == (await space.http.post("/percolators/queries/nowhere/dry-run", json={})).status_code
