"""Rows in a real Milvus server, not the embedded one: the path that a cluster takes by one setting.

The only server that a package brings is 2.3.5, which knows no sparse vectors: those are not tested here.
"""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.embedder import hashes, rows
from services.embedder.config import MilvusSettings
from services.embedder.milvus import Milvus, Row
from services.mesh.filters import AllOf, Leaf, Operator, compile

PACKAGE = Path(__file__).parents[2] / ".cache" / "milvus-server"
START_S_MAX = 90
STARTER = """
import sys
sys.path.insert(0, sys.argv[1])
from milvus import default_server
default_server.set_base_dir(sys.argv[2])
default_server.listen_port = int(sys.argv[3])
default_server.start()
print("started", flush=True)
sys.stdin.read()
default_server.stop()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Milvus server of this module's own."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the only package of a Milvus server is for Linux x86_64")
    assert PACKAGE.exists(), f"{PACKAGE} is not there: make test fetches it"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    directory = tmp_path_factory.mktemp("milvus")
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(PACKAGE), str(directory), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "started" == process.stdout.readline().strip()
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                break
    yield f"http://127.0.0.1:{port}"
    process.communicate("", timeout=60)


def row(number: int) -> Row:
    """An asset's row."""
    return {
        "id": f"{number:x}-asset",
        "kind": rows.ASSET,
        "asset_id": f"asset-{number}",
        "collection_id": "even" if number % 2 == 0 else "odd",
        "modality": "image",
        "created_at": f"{number:04}",
        "updated_at": f"{number:04}",
        "images": "",
        "size_bytes": number,
        "document": "z:",
        "metadata": {"n": number, "tags": ["a", f"t{number}"]},
        "vector": hashes.vector(f"{number:016x}"),
    }


async def test_rows_are_written_found_and_removed(server: str) -> None:
    """Writing, reading by id, filtering, the nearest by vector, counting and deleting do what the embedder asks for."""
    milvus = Milvus(server, MilvusSettings())
    name = "documents"
    try:
        await milvus.upsert(name, rows.DOCUMENT_SCHEMA, [row(number) for number in range(200)])
        await milvus.upsert(name, rows.DOCUMENT_SCHEMA, [row(7) | {"document": "z:changed"}])
        found = await milvus.query(name, rows.among("id", ["7-asset", "ff-none"]), ["id", "document", "metadata"])
        assert [("7-asset", "z:changed", {"n": 7, "tags": ["a", "t7"]})] == [
            (each["id"], each["document"], each["metadata"]) for each in found
        ]
        condition = AllOf(
            (
                Leaf(("metadata", "n"), Operator.GT, 190),
                Leaf(("metadata", "tags"), Operator.IN, ("t195", "t3")),
                Leaf(("collection_id",), Operator.EQ, "odd"),
            )
        )
        compiled = compile(condition, columns=rows.FILTER_COLUMNS)
        assert ["c3-asset"] == [each["id"] for each in await milvus.query(name, compiled.expression, ["id"])]
        prefix = rows.every((rows.equals("kind", rows.ASSET), 'id like "1%"'))
        assert {each["id"][0] for each in await milvus.query(name, prefix, ["id"])} == {"1"}
        nearest = await milvus.search(
            name,
            hashes.vector(f"{5:016x}"),
            metric="COSINE",
            limit=2,
            expression=rows.equals("collection_id", "odd"),
            fields=["id"],
        )
        assert "5-asset" == nearest[0]["id"]
        assert 100 == await milvus.count(name, rows.equals("collection_id", "odd"))
        await milvus.delete(name, rows.equals("collection_id", "odd"))
        assert 100 == await milvus.count(name, rows.equals("kind", rows.ASSET))
        assert [name] == await milvus.names("doc")
        await milvus.drop(name)
        assert [] == await milvus.names("doc")
    finally:
        await milvus.close()
