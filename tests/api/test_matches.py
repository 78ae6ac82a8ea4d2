"""The matches that were made: listed newest first, and streamed from a cursor on, at both doors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from lensmesh.v1 import match_pb2

from tests.api.doors import events, rest_refusal, rpc, rpc_stream
from tests.api.test_percolation import store, text, with_texts
from tests.conftest import Api, PhotoHost

PAGINATION = {"total", "page", "page_size", "total_pages", "next_page", "previous_page"}


async def page(client: Api, collection: str, query: str = "", **more: Any) -> dict[str, Any]:
    """A page of the matches of a collection."""
    response = await client.http.post(f"/percolators/matches{query}", json={"collection_ids": [collection]} | more)
    assert response.status_code == 200, response.text
    assert PAGINATION == set(response.json()["pagination"])
    return dict(response.json())


@pytest.fixture
async def seven(space: Api, collection: str, photos: PhotoHost, number: int) -> list[dict[str, Any]]:
    """Tasks of seven assets that matched one stored query each, oldest first."""
    await store(space, collection, text("one"), metadata={"kind": "all"})
    return [await space.run(with_texts(photos, collection, number + each, "one")) for each in range(7)]


async def test_matches_are_listed_newest_first(space: Api, collection: str, seven: list[dict[str, Any]]) -> None:
    """Pages hold every match once, newest first, with the total on each."""
    expected = [task["matches"][0] for task in reversed(seven)]
    first, second = (
        await page(space, collection, "?page=1&page_size=5"),
        await page(space, collection, "?page=2&page_size=5"),
    )
    assert expected == first["results"] + second["results"]
    assert (7, 1, 5, 2, "2", None) == tuple(first["pagination"][key] for key in (
        "total", "page", "page_size", "total_pages", "next_page", "previous_page"
    ))  # fmt: skip
    assert (7, None, "1") == tuple(second["pagination"][key] for key in ("total", "next_page", "previous_page"))
    beyond = await page(space, collection, "?page=9&page_size=5")
    assert ([], 7) == (beyond["results"], beyond["pagination"]["total"])
    request = match_pb2.ListMatchesRequest(collection_ids=[collection], page=2, page_size=5)
    answer = await rpc(space, "ListMatches", request)
    assert [each["match_id"] for each in expected[5:]] == [each.match_id for each in answer.results]
    assert (7, 2) == (answer.pagination.total, answer.pagination.page)


async def test_matches_are_narrowed_down(space: Api, collection: str, seven: list[dict[str, Any]]) -> None:
    """asset_id, percolator_id, since and a filter on the stored query's metadata each narrow the listing."""
    match = seven[3]["matches"][0]
    by_asset = await page(space, collection, asset_id=match["asset_id"])
    assert [match] == by_asset["results"]
    assert 7 == (await page(space, collection, percolator_id=match["percolator_id"]))["pagination"]["total"]
    assert 0 == (await page(space, collection, percolator_id="none"))["pagination"]["total"]
    since = await page(space, collection, since=match["created_at"])
    assert [task["matches"][0] for task in reversed(seven[3:])] == since["results"]
    for value, total in (("all", 7), ("other", 0)):
        kind = {"key": "metadata.kind", "value": value}
        assert total == (await page(space, collection, filters=kind))["pagination"]["total"]
    assert (
        404 == rest_refusal(await space.http.post("/percolators/matches", json={"collection_ids": ["never made"]})).code
    )


async def test_matches_are_watched_from_a_cursor_by_grpc(
    space: Api, collection: str, photos: PhotoHost, number: int, seven: list[dict[str, Any]]
) -> None:
    """WatchMatches gives what is kept, goes on with what comes, and resumes after a cursor exactly."""
    percolator_id = seven[0]["matches"][0]["percolator_id"]
    stream = rpc_stream(space, "WatchMatches", match_pb2.WatchMatchesRequest(percolator_id=percolator_id))
    seen = []
    async for answer in stream:
        seen.append(answer)
        if len(seen) == 7:
            seven.append(await space.run(with_texts(photos, collection, number + 7, "one")))
        if len(seen) == 8:
            break
    stream.cancel()  # type: ignore[attr-defined]
    expected = [task["matches"][0]["match_id"] for task in seven]
    assert expected == [each.match.match_id for each in seen]
    cursors = [each.cursor for each in seen]
    assert sorted(set(cursors)) == cursors
    request = match_pb2.WatchMatchesRequest(percolator_id=percolator_id, cursor=cursors[4])
    resumed = rpc_stream(space, "WatchMatches", request)
    rest = [(await asyncio.wait_for(anext(aiter(resumed)), timeout=20)).match.match_id]
    assert expected[5] == rest[0]
    resumed.cancel()  # type: ignore[attr-defined]


async def test_matches_are_watched_from_a_cursor_by_sse(
    space: Api, collection: str, seven: list[dict[str, Any]]
) -> None:
    """The event stream gives each match with its cursor as the event's id, and resumes after one."""
    percolator_id = seven[0]["matches"][0]["percolator_id"]
    path = f"/percolators/matches/events?percolator_id={percolator_id}"
    seen = await asyncio.wait_for(events(space, path, limit=7), timeout=30)
    assert {"match"} == {each["event"] for each in seen}
    matches = [json.loads(each["data"])["match"] for each in seen]
    assert [task["matches"][0] for task in seven] == matches
    resumed = await asyncio.wait_for(events(space, f"{path}&cursor={seen[4]['id']}", limit=2), timeout=30)
    assert [each["id"] for each in seen[5:]] == [each["id"] for each in resumed]
    assert matches[5:] == [json.loads(each["data"])["match"] for each in resumed]


async def test_stored_queries_are_listed_oldest_first(space: Api, collection: str) -> None:
    """Stored queries come in pages, oldest first, as they were stored."""
    made = [await store(space, collection, text(f"q{each}"), name=f"n{each}", min_score=0.25) for each in range(3)]
    found: list[dict[str, Any]] = []
    page_number: int | None = 1
    while page_number:
        listed = (await space.http.get(f"/percolators/queries?page={page_number}&page_size=100")).json()
        assert PAGINATION == set(listed["pagination"])
        found += listed["results"]
        page_number = listed["pagination"]["next_page"]
    assert made == [each["percolator_id"] for each in found if each["percolator_id"] in made]
    assert len(found) == listed["pagination"]["total"]
    last = next(each for each in found if each["percolator_id"] == made[2])
    assert ("n2", 0.25, "q2") == (last["name"], last["min_score"], last["queries"][0]["value"])
