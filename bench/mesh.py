"""`make bench-mesh`: what the mesh costs beyond its models.

(a) CPU-ms an image over the gateway, vision, embedder and percolator, with a model set that does nothing.
(b) Images a second through the mesh, over images a second of the same Triton calls made directly by one script, in
turns on the same machine in the same run, every image new to the models. Each round of the mesh stands between two
direct ones and is compared with their mean, because the host's speed drifts.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from bench.images import photos, small
from bench.processes import cpu_seconds
from runner.mesh import Mesh, MeshConfig
from services.mesh.config import load
from services.mesh.models import ModelSet, TritonModels, TritonSettings, bytes_tensor

RESULTS = Path(__file__).resolve().parent / "results" / "mesh.json"
SERVICES = ("gateway", "vision", "embedder", "percolator")
COST_IMAGES = int(os.environ.get("BENCH_COST_IMAGES", "1600"))
COST_PARTS = 3
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
ROUND_IMAGES = int(os.environ.get("BENCH_ROUND_IMAGES", "84"))
IN_FLIGHT = 8
POLL_S = 0.2
TARGET_CPU_MS, TARGET_EFFICIENCY = 10.0, 0.9

SHORT: dict[str, Any] = {"embed": [{"type": "url", "vector_index": "multimodal"}]}
FULL: dict[str, Any] = {
    "read": {"vector_index": "keyword"},
    "describe": {"vector_index": "text"},
    "detect": {"faces": {}, "logos": {}},
    "embed": [{"type": "url", "vector_index": "multimodal"}, {"type": "url", "vector_index": "image"}],
}


@dataclass(frozen=True, slots=True)
class Round:
    """Images a second, direct and through the mesh, and the mesh's CPU-ms a photo by process."""

    direct: float
    mesh: float
    cpu_ms_per_photo: dict[str, float]

    @property
    def ratio(self) -> float:
        """The mesh's throughput over the bare models'."""
        return self.mesh / self.direct


class Host:
    """A web server on loopback for the images of one run."""

    def __init__(self) -> None:
        self.images: list[bytes] = []
        self.port = 0

    async def start(self) -> web.AppRunner:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_get("/{number}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = int(runner.addresses[0][1])
        return runner

    async def _answer(self, request: web.Request) -> web.Response:
        return web.Response(body=self.images[int(request.match_info["number"])], content_type="image/jpeg")


class Load:
    """Sends images to a mesh and waits for their tasks."""

    def __init__(self, host: Host, client: httpx.AsyncClient) -> None:
        self._host, self._client = host, client
        self.unchecked: list[str] = []

    async def run(self, images: Sequence[bytes], extract: dict[str, Any]) -> float:
        """Index all images; returns the seconds from the first request until the last tasks are done."""
        first = len(self._host.images)
        self._host.images.extend(images)
        started = time.perf_counter()
        tasks = [await self._send(first + number, extract) for number in range(len(images))]
        # The last ones are watched, not polled: for a run of many seconds that would be a load of its own.
        for task in tasks[-IN_FLIGHT * 2 :]:
            # The answer ends with the task.
            (await self._client.get(f"/tasks/{task}/events")).raise_for_status()
        self.unchecked = tasks
        return time.perf_counter() - started

    async def check(self) -> None:
        """Make sure that every task of the last run is done."""
        for task in self.unchecked:
            await self._finished(task)

    async def _finished(self, task_id: str) -> None:
        while (task := (await self._client.get(f"/tasks/{task_id}")).json())["status"] not in ("DONE", "FAILED"):
            await asyncio.sleep(POLL_S)
        if task["status"] != "DONE":
            raise SystemExit(f"a task ended {task['status']}: {task['error']}")

    async def _send(self, number: int, extract: dict[str, Any]) -> str:
        url = f"http://127.0.0.1:{self._host.port}/{number}"
        body = {"url": url, "collection_id": "bench", "percolate": {}, "feature_extractors": extract}
        response = await self._client.post("/index/images/url", json=body)
        response.raise_for_status()
        return str(response.json()["task_id"])


async def cost(load: Load, mesh: Mesh, extract: dict[str, Any], first: int) -> dict[str, float]:
    """CPU-ms an image by process, the median part of a run; the results are checked after each part is measured."""
    images = [small(first + number) for number in range(COST_IMAGES)]
    part = COST_IMAGES // (COST_PARTS + 1)
    await load.run(images[:part], extract)
    await load.check()
    pids = {name: process.pid for name, process in mesh.processes.items()}
    parts = []
    for number in range(1, COST_PARTS + 1):
        before = cpu_seconds(pids)
        seconds = await load.run(images[number * part : (number + 1) * part], extract)
        after = cpu_seconds(pids)
        await load.check()
        by_process = {name: round((after[name] - before[name]) * 1e3 / part, 3) for name in before}
        parts.append(by_process | {"images_per_second": round(part / seconds, 1), "yardstick_ms": yardstick_ms()})
    return sorted(parts, key=services_ms)[COST_PARTS // 2]


def services_ms(by_process: dict[str, float]) -> float:
    """CPU-ms of our four services."""
    return sum(by_process[name] for name in SERVICES)


def yardstick_ms() -> float:
    """CPU-ms of a fixed piece of Python: shared hosts are not always equally fast, and results differ with them."""
    started = time.process_time()
    sum(number * number for number in range(1_000_000))
    return round((time.process_time() - started) * 1e3, 1)


async def direct(address: str, model_set: ModelSet, images: Sequence[bytes]) -> float:
    """The calls that FULL makes of the models, made directly; returns the seconds for all images."""
    models = TritonModels(address, load(TritonSettings))
    roles = model_set.roles
    free = asyncio.Semaphore(IN_FLIGHT)

    async def one(image: bytes) -> None:
        async with free:
            tensor = bytes_tensor(image)
            reading = asyncio.create_task(models.infer(roles["ocr"].model, {"IMAGE": tensor}, ["LINES"]))
            looking = asyncio.create_task(models.infer(roles["faces"].model, {"IMAGE": tensor}, ["FACES"]))
            read = (await reading)["LINES"].reshape(-1)[0]
            await looking
            text = " ".join(line["text"] for line in json.loads(read)).encode()
            told = {"IMAGE": tensor, "TEXT": bytes_tensor(text)}
            describing = asyncio.create_task(models.infer(roles["caption"].model, told, ["CAPTION"]))
            await models.infer(roles["logos"].model, {"IMAGE": tensor, "LINES": bytes_tensor(read)}, ["LOGOS"])
            described = json.loads((await describing)["CAPTION"].reshape(-1)[0])["text"].encode()
            multimodal = {"IMAGE": tensor} | ({"TEXT": bytes_tensor(text)} if text else {})
            await asyncio.gather(
                models.infer(roles["embed_multimodal"].image_model, multimodal, ["VECTOR"]),
                models.infer(roles["embed_image"].model, {"IMAGE": tensor}, ["VECTOR"]),
                models.infer(roles["embed_text"].model, {"TEXT": bytes_tensor(described)}, ["VECTOR"]),
            )

    started = time.perf_counter()
    await asyncio.gather(*(one(image) for image in images))
    seconds = time.perf_counter() - started
    await models.close()
    return seconds


async def with_mesh(model_set: str, measure: Any, settings: dict[str, str]) -> Any:
    """Run a measurement on a fresh mesh with these settings of its services."""
    host = Host()
    server = await host.start()
    with tempfile.TemporaryDirectory() as directory, (Path(directory) / "log").open("w") as log:
        allowed = f"127.0.0.1:{host.port}"
        config = MeshConfig(Path(directory) / "data", 0, 0, model_set, fetch_allow=allowed, settings=settings)
        mesh = Mesh(config, lambda name, line: print(name, line, file=log, flush=True))
        await mesh.start()
        try:
            headers = {"Authorization": f"Bearer {mesh.api_key}"}
            async with httpx.AsyncClient(base_url=mesh.rest_url, headers=headers, timeout=60) as client:
                return await measure(mesh, Load(host, client))
        finally:
            await mesh.stop()
            await server.cleanup()


async def measure_cost(mesh: Mesh, load: Load) -> dict[str, Any]:
    """Part (a)."""
    return {"short": await cost(load, mesh, SHORT, 0), "full": await cost(load, mesh, FULL, 100_000)}


async def measure_efficiency(mesh: Mesh, load: Load) -> list[Round]:
    """Part (b), by round."""
    model_set = ModelSet.read("lite")
    address = mesh.endpoints["triton_address"]
    pids = {name: process.pid for name, process in mesh.processes.items()}
    await load.run(photos(7, 0), FULL)
    await direct(address, model_set, photos(7, 1))
    rounds = []
    before = ROUND_IMAGES / await direct(address, model_set, photos(ROUND_IMAGES, 2))
    for number in range(ROUNDS):
        used = cpu_seconds(pids)
        meshed = ROUND_IMAGES / await load.run(photos(ROUND_IMAGES, 3 + 2 * number), FULL)
        by_process = {
            name: round((seconds - used[name]) * 1e3 / ROUND_IMAGES, 1) for name, seconds in cpu_seconds(pids).items()
        }
        after = ROUND_IMAGES / await direct(address, model_set, photos(ROUND_IMAGES, 4 + 2 * number))
        one = Round((before + after) / 2, meshed, by_process)
        print(f"  round {number + 1}: direct {one.direct:.2f} images/s, mesh {meshed:.2f}, ratio {one.ratio:.3f}")
        print(f"    CPU-ms a photo: {by_process}")
        rounds.append(one)
        before = after
    return rounds


def main() -> None:
    """Measure, print, and write bench/results/mesh.json."""
    print(f"(a) cost: {COST_IMAGES} small images, four hops, a model set that does nothing")
    costs = asyncio.run(with_mesh("trivial", measure_cost, {}))
    for kind, by_process in costs.items():
        print(f"  {kind}: {services_ms(by_process):.2f} CPU-ms an image; {by_process}")
    print(f"(b) efficiency: {ROUNDS} x {ROUND_IMAGES} photos, lite set, {IN_FLIGHT} in flight, all extractors")
    rounds = asyncio.run(with_mesh("lite", measure_efficiency, {"LENSMESH_VISION_CONCURRENCY": str(IN_FLIGHT)}))
    ratios = sorted(each.ratio for each in rounds)
    result = {
        "cpu_ms_per_image": round(services_ms(costs["short"]), 2),
        "cpu_ms_per_image_all_extractors": round(services_ms(costs["full"]), 2),
        "efficiency": round(ratios[len(ratios) // 2], 3),
        "efficiency_rounds": [round(ratio, 3) for ratio in ratios],
        "targets": {"cpu_ms_per_image": TARGET_CPU_MS, "efficiency": TARGET_EFFICIENCY},
        "by_process": costs,
        "rounds": [asdict(each) for each in rounds],
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "python": sys.version.split()[0],
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"cpu_ms_per_image {result['cpu_ms_per_image']} (target {TARGET_CPU_MS})")
    print(f"efficiency {result['efficiency']} (target {TARGET_EFFICIENCY})")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
