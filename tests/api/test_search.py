"""Searching features: scores, fusion of several queries, filters, pages and scope."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from lensmesh.v1 import feature_pb2, namespace_pb2, namespace_pb2_grpc

from tests.api.doors import rest_refusal, rpc
from tests.conftest import Api, PhotoHost

KEYS = {"total", "page", "current_page", "page_size", "total_pages", "next_page", "previous_page"}
RRF_K = 60


def text(value: str, index: str = "text", **more: Any) -> dict[str, Any]:
    """A query for a text."""
    return {"vector_index": index, "type": "text", "value": value} | more


async def search(client: Api, collection: str, *queries: dict[str, Any], path: str = "", **more: Any) -> dict[str, Any]:
    """The answer to a search."""
    body = {"queries": list(queries), "collection_ids": [collection]} | more
    response = await client.http.post(f"/features/search{path}", json=body)
    assert response.status_code == 200, response.text
    assert KEYS == set(response.json()["pagination"])
    return dict(response.json())


def order(answer: dict[str, Any]) -> list[Any]:
    """The numbers of the found features."""
    return [each["metadata"]["n"] for each in answer["results"]]


COLORS = ["red", "green", "blue", "red", "green", "blue", "Red"]


@pytest.fixture(scope="module")
async def shelf(space: Api, photos: PhotoHost) -> str:
    """A collection with seven assets: the text index holds "text <n>", the keyword index a few words of them."""

    async def one(n: int) -> None:
        embed = [
            {"type": "text", "vector_index": "text", "value": f"text {n}"},
            {"type": "text", "vector_index": "keyword", "value": f"apple {'pear ' * n} number{n}"},
        ]
        metadata = {"n": n, "color": COLORS[n], "deep": {"price": n * 1.5}, "tags": [f"t{n}", "all"], "q": '"; drop'}
        body = {"url": photos.picture_url(6_000_000 + n), "collection_id": "shelf", "metadata": metadata}
        task = await space.run(body | {"feature_extractors": {"embed": embed}})
        assert "DONE" == task["status"], task

    await asyncio.gather(*map(one, range(7)))
    return "shelf"


async def test_one_query_orders_by_score(space: Api, shelf: str) -> None:
    """A search with one query gives every candidate, best first, with scores of 0..1."""
    answer = await search(space, shelf, text("text 3"))
    scores = [each["score"] for each in answer["results"]]
    assert sorted(scores, reverse=True) == scores
    assert (3, 7, True) == (order(answer)[0], len(scores), all(0 <= each <= 1 for each in scores))
    assert abs(scores[0] - 1) < 1e-5
    assert 7 == answer["pagination"]["total"]


async def test_min_score_is_inclusive(space: Api, shelf: str) -> None:
    """Candidates below min_score are dropped, and the very same vector is not below 1."""
    for n in range(7):
        answer = await search(space, shelf, text(f"text {n}", settings={"min_score": 1.0}))
        assert ([n], 1) == (order(answer), answer["pagination"]["total"])


async def test_a_limit_bounds_the_candidates(space: Api, shelf: str) -> None:
    """settings.limit is how many candidates a query gives."""
    answer = await search(space, shelf, text("text 3", settings={"limit": 2}))
    assert (2, 2) == (len(order(answer)), answer["pagination"]["total"])


async def test_several_queries_are_fused_by_rank(space: Api, shelf: str) -> None:
    """Several queries give reciprocal rank fusion with k = 60 over each query's own ranking."""
    queries = [text("text 1"), text("text 5"), text("apple", "keyword")]
    ranks = [order(await search(space, shelf, each)) for each in queries]
    expected = {n: sum(1 / (RRF_K + 1 + rank.index(n)) for rank in ranks if n in rank) for n in range(7)}
    answer = await search(space, shelf, *queries)
    scores = {each["metadata"]["n"]: each["score"] for each in answer["results"]}
    assert set(expected) == set(scores)
    assert all(abs(expected[n] - scores[n]) < 1e-9 for n in expected)
    assert sorted(scores.values(), reverse=True) == list(scores.values())


async def test_words_are_found_by_words(space: Api, shelf: str) -> None:
    """The keyword index finds assets that have the words, more of them first, and no others."""
    assert [4] == order(await search(space, shelf, text("NUMBER4", "keyword")))
    assert 6 == order(await search(space, shelf, text("pear", "keyword")))[0]
    assert [1, 2, 3, 4, 5, 6] == sorted(order(await search(space, shelf, text("pear", "keyword"))))
    assert [] == order(await search(space, shelf, text("banana", "keyword")))
    assert [] == order(await search(space, shelf, text("?!", "keyword")))


FILTERS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "eq": ({"key": "metadata.color", "operator": "eq", "value": "red"}, [0, 3]),
    "eq by default": ({"key": "metadata.n", "value": 4}, [4]),
    "without case": ({"key": "metadata.color", "value": "red", "case_sensitive": False}, [0, 3, 6]),
    "nested key": ({"key": "metadata.deep.price", "operator": "gte", "value": 7.5}, [5, 6]),
    "without metadata.": ({"key": "deep.price", "operator": "lt", "value": 1.5}, [0]),
    "ne": ({"key": "metadata.color", "operator": "ne", "value": "red"}, [1, 2, 4, 5, 6]),
    "neq of a missing key": ({"key": "metadata.none", "operator": "neq", "value": 1}, [0, 1, 2, 3, 4, 5, 6]),
    "in": ({"key": "metadata.n", "operator": "in", "value": [1, 2, 99]}, [1, 2]),
    "nin": ({"key": "metadata.n", "operator": "nin", "value": [1, 2, 3, 4, 5]}, [0, 6]),
    "in a list": ({"key": "metadata.tags", "value": "t5"}, [5]),
    "text": ({"key": "metadata.color", "operator": "text", "value": "GREEN"}, [1, 4]),
    "regex": ({"key": "metadata.color", "operator": "regex", "value": "^[Rr]ed$"}, [0, 3, 6]),
    "exists": ({"key": "metadata.none", "operator": "exists"}, []),
    "is null": ({"key": "metadata.none", "operator": "is_null"}, [0, 1, 2, 3, 4, 5, 6]),
    "nested groups": (
        {
            "AND": [
                {"OR": [{"key": "color", "value": "red"}, {"key": "color", "value": "blue"}]},
                {"NOR": [{"key": "n", "operator": "gt", "value": 3}, {"key": "n", "value": 0}]},
            ]
        },
        [2, 3],
    ),
    "an injection is data": ({"key": "metadata.color", "value": 'red" or 1 == 1 or "'}, []),
    "quotes are data": ({"key": "metadata.q", "value": '"; drop'}, [0, 1, 2, 3, 4, 5, 6]),
    "a strange key": ({"key": 'metadata.a"] or 1 == 1 or metadata["n', "value": 1}, []),
}


@pytest.mark.parametrize(("filters", "expected"), FILTERS.values(), ids=list(FILTERS))
async def test_filters(space: Api, shelf: str, filters: dict[str, Any], expected: list[int]) -> None:
    """A filter of the search or of its query lets through the assets that satisfy it, and no others."""
    assert expected == sorted(order(await search(space, shelf, text("text 1"), filters=filters)))
    assert expected == sorted(order(await search(space, shelf, text("text 1", filters=filters))))


async def test_both_filters_hold(space: Api, shelf: str) -> None:
    """The filter of the search and that of the query must both hold."""
    red, few = {"key": "color", "value": "red"}, {"key": "n", "operator": "lt", "value": 2}
    assert [0] == order(await search(space, shelf, text("text 1", filters=red), filters=few))
    fused = await search(space, shelf, text("text 1", filters=red), text("text 2"), filters=few)
    assert [0, 1] == sorted(order(fused))


async def test_pages(space: Api, shelf: str) -> None:
    """Pages hold every result once and in order, and say where they stand."""
    every = order(await search(space, shelf, text("text 2"), path="?page_size=100"))
    pages = [
        await search(space, shelf, text("text 2"), path=f"?offset_position={offset}&page_size=3")
        for offset in (0, 3, 6)
    ]
    assert every == [n for page in pages for n in order(page)]
    assert [(1, "2", None), (2, "3", "1"), (3, None, "2")] == [
        tuple(page["pagination"][key] for key in ("page", "next_page", "previous_page")) for page in pages
    ]
    assert {(7, 3, 3)} == {
        tuple(page["pagination"][key] for key in ("total", "page_size", "total_pages")) for page in pages
    }
    assert [1, 2, 3] == [page["pagination"]["current_page"] for page in pages]


async def test_a_search_stays_in_its_collections(
    space: Api, shelf: str, collection: str, photos: PhotoHost, number: int
) -> None:
    """Only the named collections are looked in, by name or id, each once; unknown ones are a 404."""
    embed = [{"type": "text", "vector_index": "text", "value": "text 1"}]
    body = {"url": photos.picture_url(number), "collection_id": collection, "metadata": {"n": 100}}
    task = await space.run(body | {"feature_extractors": {"embed": embed}})
    query = text("text 1", settings={"min_score": 0.99})
    assert [1] == order(await search(space, shelf, query))
    assert [100] == order(await search(space, task["collection_id"], query))
    both = [shelf, collection, task["collection_id"]]
    assert [1, 100] == sorted(order(await search(space, shelf, query, collection_ids=both)))
    unknown = {"queries": [query], "collection_ids": [shelf, "no such"]}
    refusal = rest_refusal(await space.http.post("/features/search", json=unknown))
    assert (404, True) == (refusal.code, "no such" in refusal.message)


async def test_both_doors_find_the_same(space: Api, shelf: str) -> None:
    """gRPC gives the results of REST, in the same order with the same scores."""
    shown = await search(space, shelf, text("text 4"))
    request = feature_pb2.SearchFeaturesRequest(
        queries=[{"vector_index": 3, "type": 1, "value": "text 4"}], collection_ids=[shelf]
    )
    answer = await rpc(space, "SearchFeatures", request)
    assert [(each["feature_id"], each["score"]) for each in shown["results"]] == [
        (each.feature_id, each.score) for each in answer.results
    ]
    assert shown["pagination"]["total"] == answer.pagination.total


async def test_the_indexes_say_what_they_hold(space: Api) -> None:
    """Each index names its inputs, its kind of vector, dimensions and model, at both doors alike."""
    answer = (await space.http.get("/namespaces/indexes")).json()
    kinds = answer["vector_indexes"]
    assert {"image", "multimodal", "text", "keyword", "face"} == set(kinds)
    assert (["image", "text"], "dense") == (
        kinds["multimodal"]["supported_modalities"],
        kinds["multimodal"]["vector_type"],
    )
    assert kinds["image"]["size"] > 0
    assert ("sparse", None) == (kinds["keyword"]["vector_type"], kinds["keyword"]["size"])
    assert all(each["model_version"] for each in kinds.values())
    assert {"type": "keyword"} in answer["payload_indexes"]
    stub = namespace_pb2_grpc.NamespaceServiceStub(space.channel)
    told = await stub.ListIndexes(namespace_pb2.ListIndexesRequest(), metadata=space.metadata)
    assert kinds["image"]["size"] == told.vector_indexes["image"].size
