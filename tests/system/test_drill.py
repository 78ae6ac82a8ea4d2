"""Failure drills: whatever process is killed, every accepted task ends exactly once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from runner.mesh import Mesh
from tests.conftest import TERMINAL, Api, PhotoHost, api_of, mesh_config, picture

TASKS = 200
# Killed in turn, each when so many tasks have ended: there are always tasks in flight.
VICTIMS = ("vision", "embedder", "percolator", "gateway", "nats", "triton", "milvus")
KILL_AT = {name: 15 + 25 * number for number, name in enumerate(VICTIMS)}
WITHIN_S = 150.0

BODY: dict[str, Any] = {
    "collection_id": "drill",
    "percolate": {"min_score": 0.1},
    "feature_extractors": {
        "read": {"vector_index": "keyword"},
        "embed": [{"type": "url", "vector_index": "multimodal"}],
    },
}


async def matched(api: Api) -> int:
    """How many matches are stored, asked again while the gateway is away."""
    deadline = time.monotonic() + 60
    while True:
        try:
            body = {"collection_ids": ["drill"]}
            response = await api.http.post("/percolators/matches?page_size=1", json=body)
            if response.status_code == 200:
                return int(response.json()["pagination"]["total"])
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the gateway did not come back"
        await asyncio.sleep(0.1)


async def ended(api: Api, task_ids: list[str]) -> list[dict[str, Any]]:
    """All tasks, once all are terminal."""
    deadline, tasks = time.monotonic() + WITHIN_S, {}
    while len(tasks) < len(task_ids):
        assert time.monotonic() < deadline, f"{len(task_ids) - len(tasks)} tasks not terminal after {WITHIN_S} s"
        for task_id in task_ids:
            if task_id in tasks:
                continue
            try:
                task = (await api.http.get(f"/tasks/{task_id}")).json()
            except httpx.TransportError:
                break
            if task["status"] in TERMINAL:
                tasks[task_id] = task
        await asyncio.sleep(0.2)
    return list(tasks.values())


@pytest.mark.timeout(400)
async def test_nothing_is_lost_or_done_twice_when_everything_is_killed_in_turn(
    tmp_path: Path, photos: PhotoHost
) -> None:
    """200 tasks in flight, kill -9 of every process in turn: 200 are DONE, each with one asset and one match."""

    async def slow(request: web.Request) -> web.Response:
        # As slow as a photo host at the other end of the world, so that tasks are in flight at every kill.
        await asyncio.sleep(0.2)
        return web.Response(body=picture(int(request.query["n"])), content_type="image/jpeg")

    photos.handlers["slow"] = slow
    with (tmp_path / "mesh.log").open("w") as log:
        mesh = Mesh(mesh_config(tmp_path / "data", photos), lambda name, line: print(name, line, file=log, flush=True))
        await mesh.start()
        api = api_of(mesh)
        try:
            query = {"vector_index": "keyword", "type": "text", "value": "trivial"}
            stored = {"collection_ids": ["drill"], "queries": [query], "min_score": 0.1}
            assert 200 == (await api.http.post("/percolators/queries", json=stored)).status_code
            task_ids = [await api.index({"url": photos.url(f"slow?n={n}"), **BODY}) for n in range(TASKS)]
            for victim in VICTIMS:
                while await matched(api) < KILL_AT[victim]:
                    await asyncio.sleep(0.05)
                mesh.processes[victim].kill()
            tasks = await ended(api, task_ids)
            assert {"DONE": TASKS} == _counts(task["status"] for task in tasks), [
                t["error"] for t in tasks if t["error"]
            ]
            assert TASKS == len({task["asset_id"] for task in tasks})
            assert {1} == {len(task["matches"]) for task in tasks}
            assert TASKS == await matched(api)
            await mesh.wait_ready()
            listed = (await api.http.get("/collections")).json()["results"]
            assert {"drill": TASKS} == {each["collection_name"]: each["count"] for each in listed}
            assert all(mesh.processes[victim].restarts for victim in VICTIMS)
        finally:
            await api.http.aclose()
            await api.channel.close()
            await mesh.stop()


def _counts(values: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return found
