"""Pages of ten thousand tasks and assets: the right ones in order, and the gateway's memory does not grow with them."""

from __future__ import annotations

import asyncio
import os
import uuid
from pathlib import Path
from typing import Any

from lensmesh.v1 import asset_pb2, task_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline
from pymilvus import MilvusClient

from runner.mesh import Mesh
from services.embedder import rows
from services.embedder.documents import Documents
from services.mesh.bus.tasks import TaskStore, now
from services.mesh.bus.topology import BusSettings, connect
from services.mesh.tenancy import Tenant
from tests.conftest import Api, PhotoHost

COUNT = 10_000
PAGE = 100
# Some from everywhere: all hundred of both would take minutes on Milvus Lite.
PAGES = (1, 2, 13, 50, 77, 99, 100)
GROWTH_BYTES_MAX = 40_000_000
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int) -> int:
    """The memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


async def tenant_of(client: Api) -> Tenant:
    """The tenant that a client's key is for."""
    found = (await client.http.get("/namespaces")).json()
    return Tenant(found[0]["namespace_id"])


async def pages(client: Api, method: str, path: str, body: Any, key: str) -> list[str]:
    """The ids on some pages of a listing, each page checked for where it says it stands."""
    ids = []
    for page in PAGES:
        answer = (await client.http.request(method, f"{path}?page={page}&page_size={PAGE}", json=body)).json()
        assert (COUNT, PAGE) == (answer["pagination"]["total"], len(answer["results"]))
        assert answer["pagination"]["next_page"] == (None if page == COUNT // PAGE else str(page + 1))
        ids += [each[key] for each in answer["results"]]
    return ids


def on_pages(ids: list[str]) -> list[str]:
    """The ids that stand on these pages of a list."""
    return [each for page in PAGES for each in ids[(page - 1) * PAGE : page * PAGE]]


async def test_ten_thousand_tasks(mesh: Mesh, tenant: Api) -> None:
    """Pages are newest first, and a status selects its own."""
    scope = await tenant_of(tenant)
    bus = await connect(mesh.endpoints["nats_url"], "test", stream_replicas=1, settings=BusSettings())
    store = await TaskStore.open(bus)
    made = [str(uuid.uuid4()) for _ in range(COUNT)]

    async def record(number: int) -> None:
        task = task_pb2.Task(task_id=made[number], status=task_pb2.TASK_STATUS_DONE, updated_at=now())
        task.created_at.FromSeconds(1_700_000_000 + number)
        if number % 10 == 0:
            task.status = task_pb2.TASK_STATUS_FAILED
        record = pipeline.TaskRecord(namespace_id=scope.namespace_id, task=task, stage=pipeline.STAGE_CLOSED)
        await store.create(scope, record)

    for first in range(0, COUNT, 500):
        await asyncio.gather(*(record(number) for number in range(first, first + 500)))
    await bus.close()
    gateway = mesh.processes["gateway"].pid
    assert gateway is not None
    await tenant.http.get("/tasks")
    before = resident_bytes(gateway)
    assert on_pages(made[::-1]) == await pages(tenant, "GET", "/tasks", None, "task_id")
    failed = (await tenant.http.get("/tasks?status=FAILED&page=3")).json()
    assert (COUNT // 10, 10) == (failed["pagination"]["total"], len(failed["results"]))
    assert {"FAILED"} == {each["status"] for each in failed["results"]}
    assert resident_bytes(gateway) - before < GROWTH_BYTES_MAX


async def test_ten_thousand_assets(mesh: Mesh, tenant: Api, photos: PhotoHost) -> None:
    """Pages are newest first."""
    task = await tenant.run({"url": photos.picture_url(1_234_567), "collection_id": "many"})
    first = (await tenant.http.get(f"/assets/{task['asset_id']}")).json()
    scope = await tenant_of(tenant)
    made = [await asset_row(scope, first["collection_id"], number) for number in range(COUNT - 1)]
    client = MilvusClient(mesh.endpoints["milvus_uri"])
    for start in range(0, len(made), 1_000):
        await asyncio.to_thread(client.upsert, rows.documents_collection(scope), made[start : start + 1_000])
    await asyncio.to_thread(client.flush, rows.documents_collection(scope))
    client.close()
    gateway = mesh.processes["gateway"].pid
    assert gateway is not None
    await tenant.http.post("/assets", json={"collection_ids": ["many"]})
    before = resident_bytes(gateway)
    expected = [first["asset_id"], *(each["id"] for each in reversed(made))]
    assert on_pages(expected) == await pages(tenant, "POST", "/assets", {"collection_ids": ["many"]}, "asset_id")
    assert resident_bytes(gateway) - before < GROWTH_BYTES_MAX


async def asset_row(scope: Tenant, collection_id: str, number: int) -> dict[str, Any]:
    """The row of an asset; the higher its number, the later it was made."""
    asset = asset_pb2.Asset(asset_id=str(uuid.uuid4()), collection_id=collection_id, modality="image", status="DONE")
    asset.created_at.FromSeconds(1_700_000_000 + number)
    asset.updated_at.CopyFrom(asset.created_at)
    asset.metadata.update({"n": number})
    document = await Documents(None).encode(scope, asset)  # type: ignore[arg-type]
    return rows.asset_row(asset, document, {"n": number})
