"""A namespace is embedded anew for another model: no search is without its answer, none sees vectors of two models."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from lensmesh.v1 import common_pb2
from lensmesh.v1 import namespace_pb2 as api_pb2
from lensmesh.v1.namespace_pb2_grpc import NamespaceServiceStub
from pymilvus import MilvusClient

from runner.mesh import Mesh
from tests.conftest import Api, PhotoHost, api_of, mesh_config, picture

ROOT = Path(__file__).resolve().parents[2]
ASSETS = 24
# Half as many dimensions, so that a vector that went astray can't be compared at all.
NEXT_DIM = 32
NEXT_MODEL = '''"""The other model: the same texts elsewhere."""
from lensmesh_models import trivial

class TritonPythonModel(trivial.TritonPythonModel):
    def answer(self, request):
        vectors = -trivial.TritonPythonModel.answer(self, request)["VECTOR"][:, ::2]
        return {"VECTOR": vectors / (vectors**2).sum(axis=1, keepdims=True) ** 0.5}
'''


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two model sets that differ in the model of the text index, by their paths."""
    folder = tmp_path_factory.mktemp("sets")
    repository = folder / "repository"
    shutil.copytree(ROOT / "models" / "trivial", repository)
    shutil.copytree(repository / "embed_text", repository / "embed_text_next")
    config = (repository / "embed_text" / "config.pbtxt").read_text()
    config = config.replace('"embed_text"', '"embed_text_next"').replace("dims: [64]", f"dims: [{NEXT_DIM}]")
    (repository / "embed_text_next" / "config.pbtxt").write_text(config)
    (repository / "embed_text_next" / "1" / "model.py").write_text(NEXT_MODEL)
    first = json.loads((ROOT / "models" / "sets" / "trivial.json").read_text()) | {"repository": str(repository)}
    following = json.loads(json.dumps(first))
    following["roles"]["embed_text"] = {"model": "embed_text_next", "version": "next-1", "dim": NEXT_DIM}
    following["roles"]["ocr"]["version"] = "trivial-2"
    (folder / "first.json").write_text(json.dumps(first))
    (folder / "next.json").write_text(json.dumps(following))
    return str(folder / "first.json"), str(folder / "next.json")


@asynccontextmanager
async def running(directory: Path, photos: PhotoHost, model_set: str, before: str = "") -> AsyncIterator[Mesh]:
    """A mesh on this data with these model sets."""
    settings = {"LENSMESH_REEMBED_GRACE_S": "0.2"}
    config = mesh_config(directory / "data", photos, model_set=model_set, model_sets_before=before, settings=settings)
    with (directory / "mesh.log").open("a") as log:
        mesh = Mesh(config, lambda name, line: print(name, line, file=log, flush=True))
        await mesh.start()
        try:
            yield mesh
        finally:
            await mesh.stop()


def body(photos: PhotoHost, number: int) -> dict[str, Any]:
    """An asset with a text of its own; the image index holds its picture."""
    embed = [
        {"type": "text", "vector_index": "text", "value": f"text {number}"},
        {"type": "url", "vector_index": "image"},
    ]
    url = photos.picture_url(9_000_000 + number)
    metadata = {"number": number}
    return {
        "url": url,
        "collection_id": "c",
        "metadata": metadata,
        "percolate": {},
        "feature_extractors": {"embed": embed},
    }


async def found(client: Api, number: int) -> tuple[int, float, set[str]]:
    """The best hit for an asset's text: its number, its score, and the versions of its text vectors."""
    query = {"vector_index": "text", "type": "text", "value": f"text {number}"}
    answer = await client.http.post("/features/search", json={"queries": [query], "collection_ids": ["c"]})
    assert answer.status_code == 200, answer.text
    best = answer.json()["results"][0]
    versions = {each["model_version"] for each in best["vector_info"] if each["vector_index"] == "text"}
    return int(best["metadata"]["number"]), float(best["score"]), versions


async def stored_query(client: Api, number: int) -> str:
    """Store a query for an asset's text and picture, matched by nothing else."""
    encoded = base64.b64encode(picture(9_000_000 + number)).decode()
    queries = [
        {"vector_index": "text", "type": "text", "value": f"text {number}"},
        {"vector_index": "image", "type": "base64", "value": encoded},
    ]
    request = {"collection_ids": ["c"], "queries": queries, "min_score": 0.99}
    return str((await client.http.post("/percolators/queries", json=request)).json()["percolator_id"])


async def matched(client: Api, photos: PhotoHost, number: int) -> list[str]:
    """Index an asset; which stored queries it matched."""
    task = await client.run(body(photos, number))
    assert task["status"] == "DONE", task
    return [each["percolator_id"] for each in task["matches"]]


async def lensmesh(mesh: Mesh, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the command line with --json; its exit code and what it printed."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "gen", ROOT / "client")))
    environment = os.environ | {"LENSMESH_DATA_DIR": str(mesh.config.data_dir), "PYTHONPATH": paths}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", *arguments, "--json", stdout=asyncio.subprocess.PIPE, env=environment, cwd=ROOT
    )
    output, _ = await process.communicate()
    return process.returncode or 0, [json.loads(line) for line in output.decode().splitlines()]


async def broken_off(client: Api) -> int:
    """Begin to embed anew and hang up half-way; how many vectors were made."""
    request = api_pb2.ReembedRequest(vector_indexes=[common_pb2.VECTOR_INDEX_TEXT])
    call = NamespaceServiceStub(client.channel).Reembed(request, metadata=client.metadata)
    async for answer in call:
        if answer.progress.share >= 0.5:
            call.cancel()
            return int(answer.progress.made)
    raise AssertionError("it ended before its half")


async def read_by(client: Api, photos: PhotoHost) -> str:
    """Index one file, copying what is known of it; the model that read it."""
    extractors = {"read": {}}
    url = photos.picture_url(9_500_000)
    task = await client.run(
        {"url": url, "collection_id": "c", "on_duplicate": "copy_features", "feature_extractors": extractors}
    )
    assert task["status"] == "DONE", task
    found = (await client.http.get(f"/assets/{task['asset_id']}/features")).json()["features"]["image"][0]
    return str(found["models"]["read"])


async def indexes(client: Api) -> dict[str, Any]:
    """What the indexes say of their models."""
    return dict((await client.http.get("/namespaces/indexes")).json()["vector_indexes"])


async def test_a_namespace_is_embedded_anew_while_it_is_used(
    tmp_path: Path, photos: PhotoHost, sets: tuple[str, str]
) -> None:
    """Searches and percolation go on through a change of the model, which survives being broken off."""
    first, following = sets
    async with running(tmp_path, photos, first) as mesh:
        client = api_of(mesh)
        tasks = [await client.index(body(photos, number)) for number in range(ASSETS)]
        assert {(await client.finished(task))["status"] for task in tasks} == {"DONE"}
        early = await stored_query(client, 1_000)
        assert [await read_by(client, photos) for _ in range(2)] == ["trivial-1", "trivial-1"]
        await client.http.aclose()
    async with running(tmp_path, photos, following, before=first) as mesh:
        client = api_of(mesh)
        text = (await indexes(client))["text"]
        assert (text["model_version"], text["size"], text["next_model_version"]) == ("trivial-1", 64, "next-1")
        assert await found(client, 3) == (3, 1.0, {"trivial-1"})
        # What another model read is not copied.
        assert await read_by(client, photos) == "trivial-2"

        began = await broken_off(client)
        during = await stored_query(client, 1_001)
        assert 0 < began < ASSETS
        assert await matched(client, photos, 1_000) == [early]
        assert await matched(client, photos, 1_001) == [during]

        seen: set[frozenset[str]] = set()
        ending = asyncio.create_task(lensmesh(mesh, "reembed"))
        number = 0
        while not ending.done():
            place, score, versions = await found(client, number % ASSETS)
            assert (place, score) == (number % ASSETS, 1.0)
            seen.add(frozenset(versions))
            number += 1
        code, told = ending.result()
        assert code == 0
        last = {each["vector_index"]: each for each in told}
        assert last["image"]["phase"] == "unchanged"
        assert last["text"]["phase"] == "switched"
        # Two assets were indexed meanwhile, with vectors of both; of the stored queries, the later one had the new one.
        assert (last["text"]["made"], last["text"]["present"]) == (ASSETS - began + 1, began + 2)
        assert seen <= {frozenset({"trivial-1"}), frozenset({"next-1"})}

        text = (await indexes(client))["text"]
        assert (text["model_version"], text["size"], text["next_model_version"]) == ("next-1", NEXT_DIM, None)
        assert await found(client, 1_000) == (1_000, 1.0, {"next-1"})
        assert await matched(client, photos, 1_001) == [during]
        names = MilvusClient(mesh.endpoints["milvus_uri"]).list_collections()
        assert [name.partition("_text_")[2] for name in names if "_text_" in name] == ["3_next_1"]
        assert (await lensmesh(mesh, "reembed", "--index", "text"))[1][0]["phase"] == "unchanged"
        await client.http.aclose()


async def test_without_the_old_model_searches_say_what_to_do(
    tmp_path: Path, photos: PhotoHost, sets: tuple[str, str]
) -> None:
    """An index whose model is gone refuses searches until it is embedded anew; nothing is lost with an old vector."""
    first, following = sets
    async with running(tmp_path, photos, first) as mesh:
        client = api_of(mesh)
        await client.run(body(photos, 1))
        vector = {"vector_index": "text", "type": "vector", "vector": [1.0] * 64}
        await client.http.post("/percolators/queries", json={"collection_ids": ["c"], "queries": [vector]})
        await client.http.aclose()
    async with running(tmp_path, photos, following) as mesh:
        client = api_of(mesh)
        query = {"vector_index": "text", "type": "text", "value": "text 1"}
        refused = await client.http.post("/features/search", json={"queries": [query], "collection_ids": ["c"]})
        assert refused.status_code == 409
        assert "embed the namespace anew" in refused.json()["error"]["message"]

        code, told = await lensmesh(mesh, "reembed", "--index", "text")
        assert (code, told[-1]["phase"], told[-1]["failed"]) == (1, "not_switched", 1)
        assert "a vector that was given" in told[-1]["last_error"]

        code, told = await lensmesh(mesh, "reembed", "--index", "text", "--accept-failures")
        assert (code, told[-1]["phase"]) == (0, "switched")
        assert await found(client, 1) == (1, 1.0, {"next-1"})
        await client.http.aclose()
