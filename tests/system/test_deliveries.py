"""Deliveries across kill -9: every match arrives at its webhook, and first arrives in the order it was made."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from runner.mesh import Mesh
from tests.conftest import Api, PhotoHost
from tests.webhook_receiver import SECRET, Call, until

TEXTS = 40
QUERIES = 3
# Killed when so many calls have come.
KILL_AT = {"percolator": 4, "nats": 10}
BODY: dict[str, Any] = {
    "collection_id": "delivered",
    "percolate": {},
    "feature_extractors": {"embed": [{"type": "text", "vector_index": "text", "value": "one"}]},
}


async def made(tenant: Api, percolator_id: str) -> list[str]:
    """The matches of a stored query in the order in which they were made."""
    body = {"collection_ids": ["delivered"], "percolator_id": percolator_id}
    answer = await tenant.http.post("/percolators/matches?page_size=100", json=body)
    return [match["match_id"] for match in answer.json()["results"]][::-1]


async def test_no_match_is_lost_when_percolator_and_nats_are_killed(mesh: Mesh, tenant: Api, photos: PhotoHost) -> None:
    """Texts in flight, calls in flight, kill -9 of the percolator and then of nats-server: each webhook gets all."""
    calls: dict[str, list[Call]] = {f"delivered/{number}": [] for number in range(QUERIES)}

    async def receive(request: web.Request) -> web.Response:
        path = request.path.lstrip("/")
        calls[path].append(Call(path, dict(request.headers), await request.read(), 0.0))
        # As far away as a receiver may be, so that calls are in flight at every kill.
        await asyncio.sleep(0.1)
        return web.Response()

    percolators = {}
    for path in calls:
        photos.handlers[path] = receive
        stored = {
            "collection_ids": ["delivered"],
            "queries": [{"vector_index": "text", "type": "text", "value": "one"}],
            "delivery": {"webhook_url": photos.url(path), "secret": SECRET},
        }
        percolators[path] = (await tenant.http.post("/percolators/queries", json=stored)).json()["percolator_id"]

    def arrived(path: str) -> list[str]:
        return list(dict.fromkeys(match_id for call in calls[path] for match_id in call.match_ids))

    posted = [await tenant.http.post("/index/text", json=BODY) for _ in range(TEXTS)]
    task_ids = [answer.json()["task_id"] for answer in posted]
    for victim, number in KILL_AT.items():
        await until(lambda number=number: sum(map(len, calls.values())) >= number, within_s=60)  # type: ignore[misc]
        mesh.processes[victim].kill()
    finished = await asyncio.gather(*(tenant.finished(task_id, within_s=100) for task_id in task_ids))
    assert {"DONE"} == {task["status"] for task in finished}
    await until(lambda: all(len(arrived(path)) == TEXTS for path in calls), within_s=60)
    await mesh.wait_ready()
    for path, percolator_id in percolators.items():
        assert await made(tenant, percolator_id) == arrived(path)
