"""`make demo`: starts a mesh of its own, indexes the sample photos over REST, prints what came of it, and ends.

The photos are served from loopback, on a port that is the only address that the fetch guard lets through.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from runner.mesh import Mesh, MeshConfig
from runner.process import StartFailed
from runner.servers import ROOT
from runner.triton import TritonUnavailable

PHOTOS = Path(__file__).resolve().parent / "photos"
COLLECTION = "demo"
# The first photo waits for models that warm up; a slow laptop needs this.
TASK_S_MAX = 120.0

EXTRACT: dict[str, Any] = {
    "read": {"vector_index": "keyword"},
    "describe": {"vector_index": "text"},
    "detect": {"faces": {}, "logos": {}},
    "embed": [{"type": "url", "vector_index": "multimodal"}, {"type": "url", "vector_index": "image"}],
}
STORED_QUERIES: tuple[dict[str, Any], ...] = (
    {
        "name": "hot drinks",
        "queries": [{"vector_index": "multimodal", "type": "text", "value": "a cup of coffee"}],
        "min_score": 0.4,
    },
    {
        "name": "entry is free (words on the image)",
        "queries": [{"vector_index": "keyword", "type": "text", "value": "free entry"}],
        "min_score": 0.3,
    },
    {
        "name": "cats, photos only (with a filter)",
        "queries": [{"vector_index": "multimodal", "type": "text", "value": "a cat"}],
        "filters": {"AND": [{"key": "metadata.kind", "operator": "eq", "value": "photo"}]},
        "min_score": 0.4,
    },
)
SEARCHES = (("multimodal", "a rocket"), ("keyword", "open house saturday"))

console = Console(highlight=False)


async def serve_photos() -> tuple[web.AppRunner, int]:
    """A web server for the photos on a free port of loopback."""
    app = web.Application()
    app.router.add_static("/", PHOTOS)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, int(runner.addresses[0][1])


async def run() -> int:
    """The whole demonstration; returns the exit code."""
    data_dir = ROOT / ".lensmesh-demo"
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.mkdir(mode=0o700)
    photos, port = await serve_photos()
    config = MeshConfig(data_dir, rest_port=0, grpc_port=0, fetch_allow=f"127.0.0.1:{port}")
    started = time.monotonic()
    with (data_dir / "mesh.log").open("w") as log, console.status("starting the mesh") as status:
        mesh = Mesh(
            config,
            lambda name, line: print(f"{name:<10} | {line}", file=log, flush=True),
            lambda text: status.update(f"starting the mesh: {text}"),
        )
        await mesh.start()
        status.stop()
        console.print(f"[bold]The mesh is up[/] after {time.monotonic() - started:.0f} s at {mesh.rest_url}")
        try:
            headers = {"Authorization": f"Bearer {mesh.api_key}"}
            async with httpx.AsyncClient(base_url=mesh.rest_url, headers=headers, timeout=60) as client:
                return await demonstrate(client, f"http://127.0.0.1:{port}")
        finally:
            console.print("Stopping the mesh.")
            await mesh.stop()
            await photos.cleanup()


async def demonstrate(client: httpx.AsyncClient, photo_url: str) -> int:
    """Store queries, index, show, search; returns the exit code."""
    names = {}
    for query in STORED_QUERIES:
        answer = await post(client, "/percolators/queries", {"collection_ids": [COLLECTION], **query})
        names[answer["percolator_id"]] = query["name"]
    console.print(f"Stored {len(names)} queries: {'; '.join(names.values())}.")
    files = sorted(path.name for path in PHOTOS.iterdir() if path.suffix in (".jpg", ".png"))
    tasks = {}
    for name in files:
        kind = "poster" if name.startswith("poster") else "photo"
        body = {
            "url": f"{photo_url}/{name}",
            "collection_id": COLLECTION,
            "metadata": {"name": name, "kind": kind},
            "percolate": {},
            "feature_extractors": EXTRACT,
        }
        tasks[name] = (await post(client, "/index/images/url", body))["task_id"]
    finished = await follow(client, tasks)
    for name in files:
        await show(client, name, finished[name], names)
    for index, text in SEARCHES:
        await search(client, index, text)
    failed = [name for name, task in finished.items() if task["status"] != "DONE"]
    if failed:
        console.print(f"[red]Not done: {', '.join(failed)}[/]; the log is .lensmesh-demo/mesh.log")
    return 1 if failed else 0


async def follow(client: httpx.AsyncClient, tasks: dict[str, str]) -> dict[str, Any]:
    """Wait for all tasks, with a progress bar."""
    finished: dict[str, Any] = {}
    columns = (TextColumn("indexing"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn())
    deadline = time.monotonic() + TASK_S_MAX
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("indexing", total=len(tasks))
        while len(finished) < len(tasks) and time.monotonic() < deadline:
            for name, task_id in tasks.items():
                if name not in finished:
                    task = (await client.get(f"/tasks/{task_id}")).json()
                    if task["status"] in ("DONE", "FAILED", "CANCELLED"):
                        finished[name] = task
                        progress.advance(bar)
            await asyncio.sleep(0.1)
    for name, task_id in tasks.items():
        if name not in finished:
            finished[name] = (await client.get(f"/tasks/{task_id}")).json()
    return finished


async def show(client: httpx.AsyncClient, name: str, task: dict[str, Any], queries: dict[str, str]) -> None:
    """One photo: what it says, shows and matched."""
    console.print(f"\n[bold]{name}[/]: {task['status']}")
    table = Table(show_header=False)
    if task["error"]:
        table.add_row("error", task["error"]["message"])
    if task["asset_id"]:
        answer = (await client.get(f"/assets/{task['asset_id']}/features")).json()
        for feature in answer.get("features", {}).get("image", []):
            table.add_row("read", " / ".join((feature["text"] or "").splitlines()) or "-")
            table.add_row("described", feature["description"] or "-")
            found = feature["detect"] or {"faces": [], "logos": []}
            faces = ", ".join(f"{each['confidence']:.2f}" for each in found["faces"])
            table.add_row("faces", f"{len(found['faces'])} ({faces})" if faces else "0")
            table.add_row("logos", ", ".join(f"{x['name']} {x['confidence']:.2f}" for x in found["logos"]) or "-")
    matched = [f"{queries[each['percolator_id']]} [{each['score']:.2f}]" for each in task["matches"]]
    table.add_row("matched", "\n".join(matched).replace("[", r"\[") or "-")
    console.print(table)


async def search(client: httpx.AsyncClient, index: str, text: str) -> None:
    """One search: its three best results."""
    body = {"queries": [{"vector_index": index, "type": "text", "value": text}], "collection_ids": [COLLECTION]}
    answer = await post(client, "/features/search?page_size=3", body)
    console.print(f'\n[bold]search[/] the {index} index for "{text}"')
    table = Table()
    table.add_column("score", justify="right")
    table.add_column("photo")
    for feature in answer["results"]:
        table.add_row(f"{feature['score']:.3f}", feature["metadata"]["name"])
    console.print(table)


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """A POST that must succeed."""
    response = await client.post(path, json=body)
    if response.status_code != 200:
        raise SystemExit(f"POST {path} answered {response.status_code}: {response.text}")
    return dict(response.json())


def main() -> None:
    """Run; a failure ends with one clear message and code 1."""
    try:
        raise SystemExit(asyncio.run(run()))
    except (StartFailed, TritonUnavailable, FileNotFoundError) as error:
        print(f"the demo could not start: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
