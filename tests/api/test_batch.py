"""Several images in one request, and the list of the tasks that they become."""

from __future__ import annotations

import grpc
import pytest
from lensmesh.v1 import index_pb2, task_pb2

from tests.api.doors import rest_refusal, rpc, rpc_refused
from tests.conftest import Api, PhotoHost

BATCH = "/index/images/batch"


async def test_every_item_is_taken_or_refused_by_itself(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """Results come in order: tasks of the good items, and of the others what they alone would have been answered."""
    good = {"url": photos.picture_url(number), "collection_id": collection}
    update = {"asset_update": {"asset_id": "nope", "mode": "replace"}}
    items = [good, {"url": "ftp://x"}, good | update, good | {"percolate": {"min_score": 7}}, good]
    response = await space.http.post(BATCH, json={"items": items})
    assert 200 == response.status_code, response.text
    results = response.json()["results"]
    assert [True, False, False, False, True] == [each["task_id"] is not None for each in results]
    for taken in (results[0], results[4]):
        assert (None, "Image URL processing queued") == (taken["error"], taken["message"])
        assert "DONE" == (await space.finished(taken["task_id"]))["status"]
    for position in (1, 2, 3):
        alone = (await space.http.post("/index/images/url", json=items[position])).json()
        told = results[position]["error"]
        assert alone["error"]["type"] == told["type"]
        assert alone["error"]["message"] == told["message"]
        assert (None, None) == (results[position]["task_id"], results[position]["message"])
    rules = results[1]["error"]["detail"]
    assert [["body", "items", 1, "collection_id"], ["body", "items", 1, "url"]] == sorted(each["loc"] for each in rules)
    assert all({"loc", "msg", "type"} == set(each) for each in rules)
    assert [["body", "items", 2]] == [each["loc"] for each in results[2]["error"]["detail"]]


async def test_a_batch_comes_by_grpc(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """The gRPC door takes and refuses the same items."""
    good = index_pb2.IndexImageRequest(url=photos.picture_url(number), collection_id=collection)
    request = index_pb2.IndexBatchRequest(items=[index_pb2.IndexImageRequest(url="x"), good])
    refused, taken = (await rpc(space, "IndexBatch", request)).results
    assert ("validation_error", False) == (refused.error.type, refused.HasField("task_id"))
    assert {"collection_id", "url"} == {each.loc[3].string_value for each in refused.error.detail}
    assert "DONE" == (await space.finished(taken.task_id))["status"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "items"),
        ({"items": []}, "items"),
        ({"items": [{}] * 101}, "items"),
        ({"items": [{"url": 1}]}, "items.0.url"),
        ({"items": [1]}, "items.0"),
    ],
)
async def test_what_is_no_batch_is_refused_whole(space: Api, body: dict[str, object], field: str) -> None:
    """No items, too many, or JSON of another shape is a 422 of the whole that names the item and the field."""
    refusal = rest_refusal(await space.http.post(BATCH, json=body))
    assert (422, {field}) == (refusal.code, set(refusal.fields))


async def test_too_large_a_batch_is_refused_by_grpc(space: Api) -> None:
    """101 items are INVALID_ARGUMENT."""
    request = index_pb2.IndexBatchRequest(items=[index_pb2.IndexImageRequest()] * 101)
    refusal = await rpc_refused(space, "IndexBatch", request)
    assert (grpc.StatusCode.INVALID_ARGUMENT, {"items"}) == (refusal.code, set(refusal.fields))


async def test_tasks_are_listed_newest_first(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """A collection's tasks come by page, the newest first, without matches, and by state; both doors agree."""
    items = [{"url": photos.picture_url(number + each), "collection_id": collection} for each in range(4)]
    made = [await space.run(item) for item in items]
    broken = await space.run({"url": photos.put(f"no/{number}", b"x", status=404), "collection_id": collection})
    ids = [task["task_id"] for task in [*made, broken]][::-1]
    pages = []
    for page in (1, 2, 3):
        listed = (await space.http.get(f"/tasks?collection_id={collection}&page={page}&page_size=2")).json()
        assert (5, 3, page) == tuple(listed["pagination"][name] for name in ("total", "total_pages", "page"))
        pages += [task["task_id"] for task in listed["results"]]
    assert ids == pages
    failed = (await space.http.get(f"/tasks?collection={collection}&status=FAILED")).json()
    assert [broken["task_id"]] == [task["task_id"] for task in failed["results"]]
    assert [broken] == [task | {"matches": []} for task in failed["results"]]
    request = task_pb2.ListTasksRequest(collection_id=collection, status=1, page_size=100)
    answer = await rpc(space, "ListTasks", request)
    assert (ids[1:], 4) == ([task.task_id for task in answer.results], answer.pagination.total)
    beyond = (await space.http.get(f"/tasks?collection_id={collection}&page=99")).json()
    assert ([], 5) == (beyond["results"], beyond["pagination"]["total"])


async def test_a_bad_listing_is_refused(space: Api) -> None:
    """An unknown state, page size or parameter is a 422, an unknown collection a 404."""
    for query, field in (("status=done", "status"), ("page_size=101", "page_size"), ("sort=x", "sort")):
        refusal = rest_refusal(await space.http.get(f"/tasks?{query}"))
        assert (422, {field}) == (refusal.code, set(refusal.fields))
    assert 404 == rest_refusal(await space.http.get("/tasks?collection_id=nowhere")).code
    request = task_pb2.ListTasksRequest(collection_id="nowhere")
    assert grpc.StatusCode.NOT_FOUND == (await rpc_refused(space, "ListTasks", request)).code
