"""Cancelling tasks, and watching them until they end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import grpc
from aiohttp import web
from lensmesh.v1 import task_pb2

from tests.api.doors import assets_in, events, rpc, rpc_stream
from tests.conftest import TERMINAL, Api, PhotoHost, picture


class SlowHost:
    """A path of the photo host that does not answer, and knows when it was asked and left."""

    def __init__(self, photos: PhotoHost, path: str) -> None:
        self.url = photos.url(path)
        self.asked, self.left = asyncio.Event(), asyncio.Event()
        photos.handlers[path] = self.answer

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Begin an answer and never end it."""
        response = web.StreamResponse(headers={"Content-Type": "image/jpeg"})
        await response.prepare(request)
        await response.write(b"\xff\xd8\xff")
        self.asked.set()
        try:
            while request.transport is not None and not request.transport.is_closing():
                await asyncio.sleep(0.02)
        finally:
            self.left.set()
        return response


async def cancel_by_rest(client: Api, task_id: str) -> str:
    """Cancel by REST; the state in the answer."""
    return str((await client.http.delete(f"/tasks/{task_id}")).json()["status"])


async def cancel_by_grpc(client: Api, task_id: str) -> str:
    """Cancel by gRPC; the state in the answer."""
    answer = await rpc(client, "CancelTask", task_pb2.CancelTaskRequest(task_id=task_id))
    return task_pb2.TaskStatus.Name(answer.task.status).removeprefix("TASK_STATUS_")


async def check_cancel(client: Api, slow: SlowHost, collection: str, cancel: Callable[[Api, str], object]) -> None:
    """Cancel a task whose image is being fetched, and see what it leaves."""
    task_id = await client.index({"url": slow.url, "collection_id": collection, "percolate": {}})
    await asyncio.wait_for(slow.asked.wait(), timeout=20)
    async with asyncio.timeout(20):
        # Said when the fetch has taken a moment.
        while (await client.http.get(f"/tasks/{task_id}")).json()["status"] != "DOWNLOADING":
            await asyncio.sleep(0.02)
    assert "CANCELLED" == await cancel(client, task_id)  # type: ignore[misc]
    started = time.monotonic()
    await asyncio.wait_for(slow.left.wait(), timeout=20)
    assert time.monotonic() - started < 5, "the fetch ran on"
    task = await client.finished(task_id)
    assert ("CANCELLED", None, []) == (task["status"], task["error"], task["outputs"])
    assert "CANCELLED" == await cancel(client, task_id)  # type: ignore[misc]
    assert 0 == await assets_in(client, collection)


async def test_a_running_task_is_cancelled_by_rest(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """DELETE stops the fetch under way, the task ends CANCELLED and leaves no asset; again changes nothing."""
    await check_cancel(space, SlowHost(photos, f"slow/{number}"), collection, cancel_by_rest)


async def test_a_running_task_is_cancelled_by_grpc(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """CancelTask does what DELETE does."""
    await check_cancel(space, SlowHost(photos, f"slow/{number}"), collection, cancel_by_grpc)


async def test_a_cancelled_file_can_be_indexed_again(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """Tasks cancelled at any moment leave no claim on their file that stands in the way of the next."""
    url = photos.picture_url(number)
    body = {"url": url, "collection_id": collection, "skip_duplicate": True}
    for _ in range(10):
        task_id = await space.index(body)
        await space.http.delete(f"/tasks/{task_id}")
        task = await space.finished(task_id)
        if task["status"] == "DONE":
            break
        assert "CANCELLED" == task["status"]
    last = await space.run(body)
    if task["status"] == "DONE":
        assert task["asset_id"] == last["asset_id"]
    else:
        assert "DONE" == last["status"], last


async def test_cancelling_a_finished_task_changes_nothing(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """A finished task stays as it is, at both doors, and so does its asset."""
    task = await space.run({"url": photos.picture_url(number), "collection_id": collection})
    assert "DONE" == await cancel_by_rest(space, task["task_id"])
    assert "DONE" == await cancel_by_grpc(space, task["task_id"])
    assert task == (await space.http.get(f"/tasks/{task['task_id']}")).json()
    assert 200 == (await space.http.get(f"/assets/{task['asset_id']}")).status_code


async def test_events_of_a_task_end_with_it(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """The event stream begins at once, shows the task as it changes, and ends after its terminal state."""
    task_id = await space.index({"url": photos.picture_url(number), "collection_id": collection})
    seen = await asyncio.wait_for(events(space, f"/tasks/{task_id}/events"), timeout=30)
    assert {"task"} == {each["event"] for each in seen}
    tasks = [json.loads(each["data"]) for each in seen]
    assert "DONE" == tasks[-1]["status"]
    assert not [task for task in tasks[:-1] if task["status"] in TERMINAL]
    assert tasks[-1] == (await space.http.get(f"/tasks/{task_id}")).json()
    again = await asyncio.wait_for(events(space, f"/tasks/{task_id}/events"), timeout=30)
    assert ["DONE"] == [json.loads(each["data"])["status"] for each in again]


async def test_watching_a_task_ends_with_it(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """WatchTask begins at once and ends after the terminal state, also one that comes by cancelling."""
    slow = SlowHost(photos, f"slow/{number}")
    task_id = await space.index({"url": slow.url, "collection_id": collection})
    stream = rpc_stream(space, "WatchTask", task_pb2.WatchTaskRequest(task_id=task_id))
    statuses = []
    async for answer in stream:
        statuses.append(answer.task.status)
        if len(statuses) == 1:
            await asyncio.wait_for(slow.asked.wait(), timeout=20)
            await space.http.delete(f"/tasks/{task_id}")
    assert task_pb2.TASK_STATUS_CANCELLED == statuses[-1]
    assert 1 == statuses.count(task_pb2.TASK_STATUS_CANCELLED)
    assert grpc.StatusCode.OK == await stream.code()  # type: ignore[attr-defined]


async def test_running_work_of_an_upload_is_cancelled(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """Cancelling stops what is done for an upload, here the fetch of what it embeds, and leaves no asset."""
    slow = SlowHost(photos, f"slow/{number}")
    embed = {"type": "url", "vector_index": "image", "value": slow.url}
    fields = {"collection_id": collection, "feature_extractors": json.dumps({"embed": [embed]})}
    files = {"file": ("x.jpg", picture(number), "image/jpeg")}
    response = await space.http.post("/index/images/upload", data=fields, files=files)
    task_id = response.json()["task_id"]
    await asyncio.wait_for(slow.asked.wait(), timeout=20)
    assert "CANCELLED" == await cancel_by_rest(space, task_id)
    await asyncio.wait_for(slow.left.wait(), timeout=20)
    task = await space.finished(task_id)
    assert ("CANCELLED", []) == (task["status"], task["outputs"])
    assert 0 == await assets_in(space, collection)


async def test_a_cancelled_text_can_be_indexed_again(space: Api, collection: str) -> None:
    """Texts cancelled at any moment leave neither an asset nor a claim."""
    embed = {"type": "text", "vector_index": "text", "value": f"for {collection}"}
    body = {"collection_id": collection, "skip_duplicate": True, "feature_extractors": {"embed": [embed]}}
    statuses = []
    for _ in range(10):
        task_id = (await space.http.post("/index/text", json=body)).json()["task_id"]
        await space.http.delete(f"/tasks/{task_id}")
        statuses.append((await space.finished(task_id))["status"])
        if statuses[-1] == "DONE":
            break
    assert set(statuses) <= {"DONE", "CANCELLED"}
    last = await space.finished((await space.http.post("/index/text", json=body)).json()["task_id"])
    assert ("FAILED" if statuses[-1] == "DONE" else "DONE") == last["status"]
    async with asyncio.timeout(20):
        # What was being written when it was cancelled goes when its message comes again.
        while await assets_in(space, collection) != 1:
            await asyncio.sleep(0.05)
