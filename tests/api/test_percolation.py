"""New assets are matched against stored queries: which ones match, with which scores, and where the matches appear."""

from __future__ import annotations

import asyncio
import base64
import io
import os
from typing import Any

import pytest
from PIL import Image

from tests.conftest import Api, PhotoHost, picture


async def store(client: Api, collection: str, *queries: dict[str, Any], **more: Any) -> str:
    """Store a query; returns its id."""
    body = {"collection_ids": [collection], "queries": list(queries)} | more
    response = await client.http.post("/percolators/queries", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["percolator_id"])


def text(value: str, index: str = "text", **more: Any) -> dict[str, Any]:
    """A query for a text."""
    return {"vector_index": index, "type": "text", "value": value} | more


def with_texts(photos: PhotoHost, collection: str, number: int, *texts: str, **more: Any) -> dict[str, Any]:
    """An asset whose text index holds these texts and whose image index holds the image itself."""
    embed = [
        {"type": "text", "vector_index": "text", "value": each, "field_name": f"text{position}"}
        for position, each in enumerate(texts)
    ]
    embed.append({"type": "url", "vector_index": "image"})
    body = {"url": photos.picture_url(number), "collection_id": collection, "percolate": {}}
    return body | {"feature_extractors": {"embed": embed}} | more


def ids(task: dict[str, Any]) -> list[str]:
    """The stored queries that a task's asset matched, in order."""
    assert "DONE" == task["status"], task
    return [match["percolator_id"] for match in task["matches"]]


@pytest.mark.parametrize("how", ["text", "url", "base64", "data url", "vector"])
async def test_an_asset_matches_whatever_the_query_is_made_of(
    space: Api, collection: str, photos: PhotoHost, number: int, how: str
) -> None:
    """A stored text, image or vector is met with score 1 by the same one, and is visible right after its creation."""
    encoded = base64.b64encode(picture(number)).decode()
    query = {
        "text": text("a red shoe"),
        "url": {"vector_index": "image", "type": "url", "value": photos.picture_url(number)},
        "base64": {"vector_index": "image", "type": "base64", "value": encoded},
        "data url": {"vector_index": "image", "type": "base64", "value": f"data:image/jpeg;base64,{encoded}"},
        "vector": {"vector_index": "text", "type": "vector", "vector": [3.0] + [0.0] * 63},
    }[how]
    percolator_id = await store(space, collection, query, min_score=0.0 if how == "vector" else 1.0)
    task = await space.run(with_texts(photos, collection, number, "a red shoe"))
    assert [percolator_id] == ids(task)
    if how != "vector":
        assert 1.0 == task["matches"][0]["score"]
    shown = (await space.http.get(f"/percolators/queries/{percolator_id}")).json()
    assert (query["type"], query["vector_index"]) == tuple(shown["queries"][0][key] for key in ("type", "vector_index"))


async def test_another_asset_does_not_match(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """An asset with other texts and pixels does not reach the threshold."""
    await store(space, collection, text("a red shoe"), min_score=0.9)
    await store(space, collection, {"vector_index": "image", "type": "url", "value": photos.picture_url(number + 1)})
    assert [] == ids(await space.run(with_texts(photos, collection, number, "a blue hat")))


async def test_a_match_says_everything(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """A match holds ids, score, each query's score in the stored order, and the stored query's metadata."""
    metadata = {"owner": "a", "depth": {"x": [1, 2.5, None]}}
    percolator_id = await store(space, collection, text("one"), text("absent", "keyword"), metadata=metadata)
    task = await space.run(with_texts(photos, collection, number, "one"))
    match = task["matches"][0]
    keys = {"match_id", "percolator_id", "asset_id", "feature_id", "collection_id", "task_id", "score", "query_scores"}
    assert keys | {"metadata", "created_at"} == set(match)
    assert (percolator_id, task["asset_id"], task["task_id"], metadata, 0.5) == tuple(
        match[key] for key in ("percolator_id", "asset_id", "task_id", "metadata", "score")
    )
    assert task["outputs"][0]["feature_id"] == match["feature_id"]
    scores = [{"vector_index": "text", "score": 1.0}, {"vector_index": "keyword", "score": 0.0}]
    assert scores == match["query_scores"]


async def test_thresholds(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """A threshold is inclusive, 0.5 when not given, and the larger of the request's and the stored query's holds."""
    half = (text("one"), text("absent", "keyword"))
    default = await store(space, collection, *half)
    low = await store(space, collection, *half, min_score=0.1)
    exact = await store(space, collection, *half, min_score=0.5)
    await store(space, collection, *half, min_score=0.500001)
    full = await store(space, collection, text("one"), min_score=1)
    task = await space.run(with_texts(photos, collection, number, "one"))
    assert [full, *sorted([default, low, exact])] == ids(task)
    raised = await space.run(with_texts(photos, collection, number, "one", percolate={"min_score": 0.6}))
    assert [full] == ids(raised)
    lowered = await space.run(with_texts(photos, collection, number, "one", percolate={"min_score": 0}))
    assert [full, *sorted([default, low, exact])] == ids(lowered)


async def test_the_best_candidates_are_kept(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """Matches come best first, at most max_candidates of them, in the task and in the matches collection."""
    weak = [await store(space, collection, text("one"), text("absent", "keyword")) for _ in range(3)]
    strong = await store(space, collection, text("one"))
    every = await space.run(with_texts(photos, collection, number, "one"))
    assert [strong, *sorted(weak)] == ids(every)
    task = await space.run(with_texts(photos, collection, number, "one", percolate={"max_candidates": 2}))
    assert [strong, min(weak)] == ids(task)
    body = {"collection_ids": [collection], "asset_id": task["asset_id"]}
    listed = (await space.http.post("/percolators/matches", json=body)).json()
    assert 2 == listed["pagination"]["total"]


async def test_filters_are_tested_against_the_asset(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """A filter of the stored query decides about the match, one of a single query about that query's score."""
    cheap = {"key": "metadata.price", "operator": "lt", "value": 10}
    await store(space, collection, text("one"), filters=cheap)
    one = await store(space, collection, text("one"), filters={"NOR": [cheap]})
    half = await store(space, collection, text("one"), text("one", filters=cheap))
    task = await space.run(with_texts(photos, collection, number, "one", metadata={"price": 20}))
    assert [one, half] == ids(task)
    assert [1.0, 0.0] == [each["score"] for each in task["matches"][1]["query_scores"]]


async def test_words_are_found_by_words(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """A keyword query matches what was read on the image, and its score is below that of all its words together."""
    found = await store(space, collection, text("TRIVIAL", "keyword"), min_score=0.3)
    half = await store(space, collection, text("trivial unheard", "keyword"), min_score=0.1)
    await store(space, collection, text("unheard", "keyword"), min_score=0.1)
    body = {"url": photos.picture_url(number), "collection_id": collection, "percolate": {}}
    task = await space.run(body | {"feature_extractors": {"read": {"vector_index": "keyword"}}})
    assert [found, half] == ids(task)
    scores = [match["score"] for match in task["matches"]]
    assert 0 < scores[1] < scores[0] <= 1
    assert abs(scores[1] - scores[0] / 2) < 1e-6


async def test_only_queries_of_the_collection_match(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """A stored query is for its collections, by name or id; unknown names become collections."""
    elsewhere = await store(space, f"{collection}-elsewhere", text("one"))
    both = await store(space, collection, text("one"), collection_ids=[collection, f"{collection}-elsewhere"])
    assert [both] == ids(await space.run(with_texts(photos, collection, number, "one")))
    task = await space.run(with_texts(photos, f"{collection}-elsewhere", number, "one"))
    assert sorted([both, elsewhere]) == ids(task)
    by_id = await store(space, task["collection_id"], text("one"), collection_ids=[task["collection_id"]])
    assert by_id in ids(await space.run(with_texts(photos, f"{collection}-elsewhere", number, "one")))


async def test_the_best_of_several_vectors_counts(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """An asset with several vectors in one index is met by any of them."""
    stored = [await store(space, collection, text(each), min_score=1) for each in ("one", "two", "three")]
    assert sorted(stored[:2]) == ids(await space.run(with_texts(photos, collection, number, "one", "two")))


@pytest.mark.parametrize("percolate", [None, {"enabled": False}])
async def test_percolation_is_off_unless_asked_for(
    space: Api, collection: str, photos: PhotoHost, number: int, percolate: dict[str, Any] | None
) -> None:
    """Without a percolate block, or with one that is switched off, nothing is matched."""
    await store(space, collection, text("one"))
    task = await space.run(with_texts(photos, collection, number, "one", percolate=percolate))
    assert ([], False) == (ids(task), "percolate" in task["steps"])


async def test_a_deleted_query_matches_no_more(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """When the deletion has answered, nothing is matched against the query; its matches stay."""
    percolator_id = await store(space, collection, text("one"))
    assert [percolator_id] == ids(await space.run(with_texts(photos, collection, number, "one")))
    deleted = await space.http.delete(f"/percolators/queries/{percolator_id}")
    assert {"percolator_id": percolator_id, "deleted": True} == deleted.json()
    assert [] == ids(await space.run(with_texts(photos, collection, number, "one")))
    assert 404 == (await space.http.get(f"/percolators/queries/{percolator_id}")).status_code
    assert 404 == (await space.http.delete(f"/percolators/queries/{percolator_id}")).status_code
    body = {"collection_ids": [collection], "percolator_id": percolator_id}
    assert 1 == (await space.http.post("/percolators/matches", json=body)).json()["pagination"]["total"]


async def test_an_updated_asset_is_matched_by_its_new_vectors(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """asset_update with percolate matches what the update brought, under the same asset."""
    old, new = [await store(space, collection, text(each), min_score=1) for each in ("old", "new")]
    first = await space.run(with_texts(photos, collection, number, "old"))
    assert [old] == ids(first)
    update = {"asset_id": first["asset_id"], "mode": "append"}
    second = await space.run(with_texts(photos, collection, number, "new", asset_update=update))
    assert ([new], first["asset_id"]) == (ids(second), second["asset_id"])
    assert first["asset_id"] == second["matches"][0]["asset_id"]


async def test_a_large_image_can_be_stored_as_a_query(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """A photo of more than a megabyte, inline, is a query like any other."""
    content = io.BytesIO()
    Image.frombytes("RGB", (700, 700), os.urandom(700 * 700 * 3)).save(content, "PNG")
    assert len(content.getvalue()) > 1_000_000
    encoded = base64.b64encode(content.getvalue()).decode()
    percolator_id = await store(space, collection, {"vector_index": "image", "type": "base64", "value": encoded})
    url = photos.put(f"large/{number}.png", content.getvalue(), "image/png")
    assert [percolator_id] == ids(await space.run(with_texts(photos, collection, number, "x", url=url)))


async def test_matches_that_are_too_many_for_the_task_are_listed(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """When the matches' metadata outgrow a task's record, it shows the best, says so, and the listing has all."""
    await asyncio.gather(*(store(space, collection, text("one"), metadata={"large": "x" * 50_000}) for _ in range(30)))
    task = await space.run(with_texts(photos, collection, number, "one"))
    assert 0 < len(ids(task)) < 30
    assert "30 matches in all" in task["steps"]["percolate"]["note"]
    body = {"collection_ids": [collection], "asset_id": task["asset_id"]}
    listed = (await space.http.post("/percolators/matches?page_size=30", json=body)).json()
    assert (30, 30) == (listed["pagination"]["total"], len(listed["results"]))
