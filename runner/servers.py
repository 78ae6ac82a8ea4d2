"""How each process of the mesh is started and when it is ready: nats-server, Triton, Milvus Lite and the four services.

In which order they run together, `mesh` says.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from runner import triton
from runner.process import Spec

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("vision", "embedder", "percolator", "gateway")

_NATS_CONFIG = """\
listen: "127.0.0.1:{port}"
server_name: "lensmesh"
authorization {{ token: {token} }}
jetstream {{ store_dir: {store}, sync_interval: "1s" }}
max_payload: 1MB
max_pending: 64MB
"""


def nats_server(data_dir: Path, port: int, token: str) -> Spec:
    """NATS with JetStream on loopback; what it acknowledged is on disk within a second."""
    directory = data_dir / "nats"
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "nats.conf"
    config.touch(mode=0o600)
    store = json.dumps(str(directory / "store"))
    config.write_text(_NATS_CONFIG.format(port=port, token=json.dumps(token), store=store))

    async def ready() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        line = await reader.readline()
        writer.close()
        return line.startswith(b"INFO")

    # One core does more than a laptop's mesh needs; Go's scheduler spends a fifth of the time looking after a second.
    environment = _environment({"GOMAXPROCS": os.environ.get("GOMAXPROCS", "1")})
    return Spec("nats", (_binary("nats-server"), "-c", str(config)), environment, ready, ready_s_max=60)


def milvus_lite(data_dir: Path, port: int) -> Spec:
    """Milvus Lite as the one process that owns its directory; one worker, as more lose acknowledged rows."""
    directory = data_dir / "milvus"
    directory.mkdir(parents=True, exist_ok=True)
    argv = (_binary("milvus-lite"), "server", "--data-dir", str(directory), "--host", "127.0.0.1")

    async def ready() -> bool:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), timeout=2)
        return True

    return Spec("milvus", (*argv, "--port", str(port), "--max-workers", "1"), _environment({}), ready)


def triton_server(settings: triton.TritonSettings) -> tuple[Spec, triton.TritonProcess]:
    """The wheel's Triton. Raises TritonUnavailable."""
    process = triton.prepare(settings)

    async def ready() -> bool:
        return await triton.ready(process.grpc_address, process.models)

    spec = Spec(
        "triton",
        process.argv,
        process.env,
        ready,
        ready_s_max=120,
        stop_s_max=settings.exit_timeout_s + 5,
        clean_up=lambda: triton.clean_up(settings),
    )
    return spec, process


def service(name: str, address: str, settings: Mapping[str, str]) -> Spec:
    """One of the four services; ready when it says that it is serving."""

    async def ready() -> bool:
        async with grpc.aio.insecure_channel(address) as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    path = os.pathsep.join([str(ROOT), str(ROOT / "gen")])
    argv = (sys.executable, "-m", f"services.{name}")
    return Spec(name, argv, _environment({"PYTHONPATH": path, **settings}), ready, ready_s_max=60)


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The parent's environment, in which a person may have set limits, and on top what the runner decides."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", **settings}


def _binary(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise FileNotFoundError(f"{name} is not installed: run make setup")
    return found
