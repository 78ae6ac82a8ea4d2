"""Writes to a real Milvus Lite: many callers share upserts, and none is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from runner.mesh import Mesh
from services.embedder.config import MilvusSettings
from services.embedder.milvus import Milvus, Schema

SCHEMA = Schema(strings=("of",), dim=2)


@pytest.mark.parametrize("wait_ms", [0, 30])
async def test_rows_of_many_callers_are_all_written(mesh: Mesh, wait_ms: float) -> None:
    """Rows that come while an upsert runs, more than one batch holds, are stored when their callers go on."""
    milvus = Milvus(mesh.endpoints["milvus_uri"], MilvusSettings(batch_rows_max=4, batch_wait_ms=wait_ms))
    name = f"shared_{wait_ms}"
    written: list[int] = []

    async def write(number: int) -> None:
        await asyncio.sleep(number % 7 / 1_000)
        row = {"id": f"r{number}", "of": str(number), "metadata": {}, "vector": [1.0, 0.0]}
        await milvus.upsert(name, SCHEMA, [row])
        written.append(number)

    async with asyncio.timeout(60):
        await asyncio.gather(*(write(number) for number in range(60)))
    assert set(range(60)) == set(written)
    rows = await milvus.query(name, 'id != ""', ["id", "of"])
    assert {(f"r{number}", str(number)) for number in range(60)} == {(row["id"], row["of"]) for row in rows}
    await milvus.close()
