"""`make up` as a person uses it: endpoints, Ctrl-C, a second start, servers of one's own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runner.mesh import Mesh
from runner.servers import ROOT
from tests.conftest import TERMINAL, PhotoHost, api_of, mesh_config

START_S = 90.0


class Up:
    """A `make up` in its own process."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self._settings = {
            "LENSMESH_DATA_DIR": str(data_dir),
            "LENSMESH_REST_PORT": "0",
            "LENSMESH_GRPC_PORT": "0",
            "LENSMESH_MODEL_SET": "trivial",
        } | settings
        self.lines: list[str] = []

    async def start(self) -> None:
        """Start the command."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "runner.up",
            cwd=ROOT,
            env={**os.environ, **self._settings},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reading = asyncio.create_task(self._read())

    async def endpoints(self) -> dict[str, Any]:
        """endpoints.json, once everything is ready."""
        deadline = time.monotonic() + START_S
        path = self.data_dir / "endpoints.json"
        while not path.exists():
            assert self.process.returncode is None, "\n".join(self.lines[-20:])
            assert time.monotonic() < deadline, "\n".join(self.lines[-20:])
            await asyncio.sleep(0.05)
        return dict(json.loads(path.read_text()))

    async def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return await self.ended()

    async def ended(self) -> int:
        """The exit code."""
        code = await asyncio.wait_for(self.process.wait(), timeout=60)
        await self._reading
        return code

    async def _read(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            self.lines.append(line.decode(errors="replace").rstrip())


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.timeout(300)
async def test_ctrl_c_leaves_nothing_behind_and_the_next_start_goes_on(tmp_path: Path, photos: PhotoHost) -> None:
    """Stopped with tasks in flight, nothing is left running; after the next start every task ends DONE."""
    segments = set(Path("/dev/shm").iterdir())
    up = Up(tmp_path / "data", LENSMESH_FETCH_ALLOW=f"127.0.0.1:{photos.port}", LENSMESH_VISION_CONCURRENCY="1")
    await up.start()
    first = await up.endpoints()
    assert {"rest_url", "grpc_address", "api_key", "namespace", "pids"} <= set(first)
    assert 0o600 == (up.data_dir / "endpoints.json").stat().st_mode & 0o777
    api = api_of(_Attached(first))
    task_ids = [await api.index({"url": photos.picture_url(n), "collection_id": "c"}) for n in range(30)]
    await api.http.aclose()
    assert 0 == await up.interrupt(), "\n".join(up.lines[-20:])
    assert [] == [name for name, pid in first["pids"].items() if alive(pid)]
    assert segments >= set(Path("/dev/shm").iterdir())
    assert not (up.data_dir / "endpoints.json").exists()

    again = Up(up.data_dir, LENSMESH_FETCH_ALLOW=f"127.0.0.1:{photos.port}")
    await again.start()
    second = await again.endpoints()
    assert first["api_key"] == second["api_key"]
    api = api_of(_Attached(second))
    tasks = [await api.finished(task_id) for task_id in task_ids]
    assert {"DONE"} == {task["status"] for task in tasks}
    assert set(TERMINAL) >= {task["status"] for task in tasks}
    await api.http.aclose()
    assert 0 == await again.interrupt()


async def test_a_second_mesh_on_the_same_data_is_refused(mesh: Mesh) -> None:
    """The message says what to do, and the running mesh is not harmed."""
    up = Up(mesh.config.data_dir)
    await up.start()
    assert 1 == await up.ended()
    assert "set LENSMESH_DATA_DIR to another directory" in "\n".join(up.lines)
    assert (mesh.config.data_dir / "endpoints.json").exists()


async def test_wrong_settings_are_named_all_at_once(tmp_path: Path) -> None:
    """Two wrong ports are two lines, and the exit code is 1."""
    up = Up(tmp_path, LENSMESH_REST_PORT="no", LENSMESH_GRPC_PORT="70000")
    await up.start()
    assert 1 == await up.ended()
    text = "\n".join(up.lines)
    assert "LENSMESH_REST_PORT" in text
    assert "LENSMESH_GRPC_PORT" in text


async def test_servers_of_ones_own_are_used_instead_of_embedded_ones(
    mesh: Mesh, photos: PhotoHost, tmp_path: Path
) -> None:
    """A mesh pointed at running servers starts its services only, and works."""
    own = mesh.endpoints
    config = mesh_config(
        tmp_path,
        photos,
        nats_url=own["nats_url"],
        triton_address=own["triton_address"],
        milvus_uri=own["milvus_uri"],
    )
    second = Mesh(config, lambda name, line: None)
    await second.start()
    try:
        assert {"vision", "embedder", "percolator", "gateway"} == set(second.processes)
        api = api_of(second)
        task = await api.run({"url": photos.picture_url(77), "collection_id": "own-servers"})
        await api.http.aclose()
        assert "DONE" == task["status"]
    finally:
        await second.stop()


class _Attached:
    """What `api_of` needs of a mesh, from its endpoints.json."""

    def __init__(self, endpoints: dict[str, Any]) -> None:
        self.rest_url = endpoints["rest_url"]
        self.grpc_address = endpoints["grpc_address"]
        self.api_key = endpoints["api_key"]
