"""Fixtures of every suite: one running mesh with the trivial model set, a photo host, clients of both doors.

Everything runs on free ports with its own temporary directory, and is waited for by its health.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from aiohttp import web
from PIL import Image, ImageDraw

from runner import servers, triton
from runner.mesh import Mesh, MeshConfig
from runner.process import Process
from services.mesh.bus import topology
from services.mesh.bus.topology import Bus, BusSettings
from services.mesh.config import load

# The tests start hundreds of processes, of which each would compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

TERMINAL = ("DONE", "FAILED", "CANCELLED", "SKIPPED")


def picture(number: int, size: tuple[int, int] = (64, 48), format: str = "JPEG") -> bytes:
    """A small image that differs from every other number's."""
    image = Image.new("RGB", size, ((number * 37) % 256, (number * 91) % 256, (number * 53) % 256))
    ImageDraw.Draw(image).text((2, 2), str(number), fill="white")
    content = io.BytesIO()
    image.save(content, format)
    return content.getvalue()


@dataclass
class PhotoHost:
    """A web server on loopback: /picture/<number>.jpg, and whatever a test puts in `files` or `handlers`."""

    port: int = 0
    files: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)
    handlers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = field(default_factory=dict)

    def url(self, path: str) -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self.port}/{path}"

    def picture_url(self, number: int) -> str:
        """The URL of a picture that no other number has."""
        return self.url(f"picture/{number}.jpg")

    def put(self, path: str, content: bytes, media_type: str = "image/jpeg", status: int = 200) -> str:
        """Serve content under a path; returns its URL."""
        self.files[path] = (status, media_type, content)
        return self.url(path)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        path = request.path.lstrip("/")
        if path in self.handlers:
            return await self.handlers[path](request)
        if path in self.files:
            status, media_type, content = self.files[path]
            return web.Response(status=status, body=content, content_type=media_type)
        if path.startswith("picture/"):
            number = int(path.removeprefix("picture/").removesuffix(".jpg"))
            return web.Response(body=picture(number), content_type="image/jpeg")
        return web.Response(status=404, text="not here")


@dataclass
class Api:
    """A client of the REST door with a key."""

    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...]

    async def index(self, body: dict[str, Any], **headers: str) -> str:
        """Index an image; returns the task's id."""
        response = await self.http.post("/index/images/url", json=body, headers=headers)
        assert response.status_code == 200, response.text
        return str(response.json()["task_id"])

    async def finished(self, task_id: str, *, within_s: float = 60) -> dict[str, Any]:
        """The task once it is terminal."""
        deadline = time.monotonic() + within_s
        while True:
            response = await self.http.get(f"/tasks/{task_id}")
            if response.status_code == 200 and response.json()["status"] in TERMINAL:
                return dict(response.json())
            assert time.monotonic() < deadline, f"not terminal in {within_s} s: {response.text[:500]}"
            await asyncio.sleep(0.02)

    async def run(self, body: dict[str, Any]) -> dict[str, Any]:
        """Index an image and wait for its end."""
        return await self.finished(await self.index(body))


@pytest.fixture(scope="session")
async def photos() -> AsyncIterator[PhotoHost]:
    """A photo host on a free port of loopback."""
    host = PhotoHost()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", host.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host.port = runner.addresses[0][1]
    yield host
    await runner.cleanup()


def mesh_config(data_dir: Path, photos: PhotoHost, **changes: Any) -> MeshConfig:
    """A mesh with the trivial model set that may fetch from the photo host alone."""
    given: dict[str, Any] = {
        "data_dir": data_dir,
        "rest_port": 0,
        "grpc_port": 0,
        "model_set": "trivial",
        "fetch_allow": f"127.0.0.1:{photos.port}",
        # Tests need not wait as long as a person would.
        "settings": {
            "LENSMESH_GATEWAY_SWEEP_S": "1",
            "LENSMESH_GATEWAY_STALE_S": "2",
            # Few enough for a test to reach.
            "LENSMESH_VISION_GALLERY_LOGOS_MAX": "4",
            "LENSMESH_GATEWAY_DRY_RUN_FEATURES_MAX": "20",
            "LENSMESH_PERCOLATOR_EXPIRE_S": "0.5",
            "LENSMESH_WEBHOOK_BACKOFF_FIRST_S": "0.1",
            "LENSMESH_WEBHOOK_BACKOFF_MAX_S": "0.5",
            "LENSMESH_WEBHOOK_BREAKER_FIRST_S": "0.1",
            "LENSMESH_WEBHOOK_BREAKER_MAX_S": "0.5",
        },
    }
    return MeshConfig(**(given | changes))


@pytest.fixture(scope="session")
async def mesh(tmp_path_factory: pytest.TempPathFactory, photos: PhotoHost) -> AsyncIterator[Mesh]:
    """A running mesh."""
    directory = tmp_path_factory.mktemp("mesh")
    with (directory / "mesh.log").open("w") as log:
        mesh = Mesh(mesh_config(directory / "data", photos), lambda name, line: print(name, line, file=log, flush=True))
        await mesh.start()
        yield mesh
        await mesh.stop()


def api_of(mesh: Mesh, api_key: str | None = None, namespace: str | None = None) -> Api:
    """A client of a mesh; close its parts after use."""
    headers = {"Authorization": f"Bearer {api_key or mesh.api_key}"}
    if namespace:
        headers["X-Namespace"] = namespace
    return Api(
        http=httpx.AsyncClient(base_url=mesh.rest_url, headers=headers, timeout=60),
        channel=grpc.aio.insecure_channel(mesh.grpc_address),
        metadata=tuple((name.lower(), value) for name, value in headers.items()),
    )


@pytest.fixture(scope="session")
async def api(mesh: Mesh) -> AsyncIterator[Api]:
    """A client with the development key."""
    client = api_of(mesh)
    yield client
    await client.http.aclose()
    await client.channel.close()


@pytest.fixture
async def tenant(mesh: Mesh, api: Api, request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    """A client with a key for a fresh namespace of this test's own."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**10}-{time.time_ns() % 10**9}"
    indexes = ["image", "multimodal", "text", "keyword"]
    made = await api.http.post("/namespaces", json={"namespace_name": name, "vector_indexes": indexes})
    assert made.status_code == 200, made.text
    key = await api.http.post(f"/organizations/users/{name}@example.org/api-keys", json={"namespaces": [name]})
    assert key.status_code == 200, key.text
    client = api_of(mesh, key.json()["api_key"])
    yield client
    await client.http.aclose()
    await client.channel.close()


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[tuple[Process, str]]:
    """A nats-server of a test's own, and its URL."""
    port = triton.free_port(set())
    process = Process(servers.nats_server(tmp_path, port, "token"), lambda name, line: None)
    await process.start()
    await process.wait_ready()
    yield process, f"nats://token@127.0.0.1:{port}"
    await process.stop()


@pytest.fixture
async def bus(nats_server: tuple[Process, str]) -> AsyncIterator[Bus]:
    """A connection to it."""
    connected = await topology.connect(nats_server[1], "test", stream_replicas=1, settings=load(BusSettings))
    yield connected
    await connected.close()
