"""The whole mesh on one machine: starts everything in order, keeps it running, and stops it in reverse.

Servers that the settings point at elsewhere are not started.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from runner import servers, triton
from runner.canary import Canary, Event, canary_settings, role_models
from runner.process import Process, Say, StartFailed

NAMESPACE = "default"
# The services drain before what they stand on goes away.
STOP_ORDER = ("gateway", "vision", "embedder", "percolator", "milvus", "triton", "nats")


@dataclass(frozen=True)
class MeshConfig:
    """What to run and where. A port of 0 means any free one."""

    data_dir: Path
    rest_port: int = 8080
    grpc_port: int = 9090
    model_set: str = "lite"
    fetch_allow: str = ""
    # Servers of one's own; empty: the embedded one is started.
    nats_url: str = ""
    triton_address: str = ""
    milvus_uri: str = ""
    log_format: str = "text"
    # Further settings of the services, by environment variable.
    settings: dict[str, str] = field(default_factory=dict)


class Mesh:
    """A running mesh."""

    def __init__(self, config: MeshConfig, say: Say, progress: Callable[[str], None] = lambda text: None) -> None:
        self.config = config
        self.processes: dict[str, Process] = {}
        self._say = say
        self._progress = progress
        self._lock: IO[str] | None = None
        self._canary: asyncio.Task[None] | None = None
        self._taken: set[int] = set()
        self.api_key = ""
        self._addresses: dict[str, str] = {}

    @property
    def rest_url(self) -> str:
        """The REST door."""
        return f"http://{self._addresses['rest']}"

    @property
    def grpc_address(self) -> str:
        """The gRPC door."""
        return self._addresses["gateway"]

    @property
    def endpoints(self) -> dict[str, Any]:
        """What harnesses need to attach."""
        return {
            "rest_url": self.rest_url,
            "grpc_address": self.grpc_address,
            "api_key": self.api_key,
            "namespace": NAMESPACE,
            "pids": {name: process.pid for name, process in self.processes.items()},
            "nats_url": self._addresses["nats"],
            "triton_address": self._addresses["triton"],
            "milvus_uri": self._addresses["milvus"],
        }

    async def start(self) -> None:
        """Start everything in order: nats, triton, milvus, services.

        Raises:
            StartFailed: something did not become ready, or the data directory is in use.
            TritonUnavailable: this machine can't run the embedded Triton.
        """
        self._own_data_dir()
        try:
            await self._start_nats()
            await self._start_triton()
            await self._start_milvus()
            await self._start_services()
            # All of them load side by side; they are ready in this order.
            for name, process in self.processes.items():
                self._progress(f"waiting for {name}")
                await process.wait_ready()
            self._start_canary()
        except BaseException:
            await self.stop()
            raise
        self.write_endpoints()

    async def stop(self) -> None:
        """Stop everything, the doors first; leaves no process and no shared memory behind."""
        (self.config.data_dir / "endpoints.json").unlink(missing_ok=True)
        if self._canary:
            self._canary.cancel()
            await asyncio.gather(self._canary, return_exceptions=True)
        services = [self.processes[name] for name in STOP_ORDER[:4] if name in self.processes]
        # The gateway first, so that nothing new comes in; then the workers together.
        for group in (services[:1], services[1:]):
            await asyncio.gather(*(process.stop() for process in group))
        for name in STOP_ORDER[4:]:
            if name in self.processes:
                await self.processes[name].stop()
        if self._lock:
            self._lock.close()

    async def wait_ready(self) -> None:
        """Wait until everything is ready again, after something was killed."""
        for process in self.processes.values():
            await process.wait_ready()
        self.write_endpoints()

    def write_endpoints(self) -> None:
        """Write endpoints.json, readable by its owner alone: it holds a key."""
        path = self.config.data_dir / "endpoints.json"
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(self.endpoints, indent=2) + "\n")
        fresh.replace(path)

    def _own_data_dir(self) -> None:
        directory = self.config.data_dir
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = (directory / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartFailed(
                f"another mesh is using {directory}; stop it, or set LENSMESH_DATA_DIR to another directory"
            ) from None
        secret = directory / "development-key"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_text(f"lm_dev_{secrets.token_urlsafe(32)}")
        self.api_key = secret.read_text().strip()

    async def _run(self, process: Process) -> None:
        self.processes[process.spec.name] = process
        await process.start()

    async def _start_nats(self) -> None:
        self._addresses["nats"] = self.config.nats_url
        if not self.config.nats_url:
            port, token = self._port(), secrets.token_hex(16)
            self._addresses["nats"] = f"nats://{token}@127.0.0.1:{port}"
            await self._run(Process(servers.nats_server(self.config.data_dir, port, token), self._say))

    async def _start_milvus(self) -> None:
        self._addresses["milvus"] = self.config.milvus_uri
        if not self.config.milvus_uri:
            port = self._port()
            self._addresses["milvus"] = f"http://127.0.0.1:{port}"
            await self._run(Process(servers.milvus_lite(self.config.data_dir, port), self._say))

    async def _start_triton(self) -> None:
        self._addresses["triton"] = self.config.triton_address
        if self.config.triton_address:
            return
        model_set = self._model_set()
        settings = triton.TritonSettings(
            state_dir=self.config.data_dir / "triton",
            # An absolute path, of a set of one's own, stays as it is.
            repository_dir=servers.ROOT / "models" / model_set["repository"],
            models=role_models(model_set),
            grpc_port=self._port(),
            http_port=self._port(),
            metrics_port=self._port(),
        )
        spec, process = await asyncio.to_thread(servers.triton_server, settings)
        self._addresses["triton"] = process.grpc_address
        await self._run(Process(spec, self._say))

    def _start_canary(self) -> None:
        if "triton" in self.processes:
            # Reasons of single failures are noise while Triton restarts; events are what counts.
            logging.getLogger("runner.canary").setLevel(logging.ERROR)
            model_set = self._model_set()
            canary = Canary(
                self._addresses["triton"],
                role_models(model_set),
                settings=canary_settings(model_set),
                report=self._canary_says,
            )
            self._canary = asyncio.create_task(canary.run())

    async def _start_services(self) -> None:
        for name in ("vision", "embedder", "percolator"):
            self._addresses[name] = f"127.0.0.1:{self._port()}"
        rest, grpc = self.config.rest_port or self._port(), self.config.grpc_port or self._port()
        self._addresses |= {"gateway": f"127.0.0.1:{grpc}", "rest": f"127.0.0.1:{rest}"}
        common = self._settings() | {"LENSMESH_REST_PORT": str(rest), "LENSMESH_GRPC_PORT": str(grpc)}
        # The key goes to the gateway alone.
        settings = dict.fromkeys(servers.SERVICES, common)
        settings["gateway"] = common | {"LENSMESH_GATEWAY_BOOTSTRAP_KEY": self.api_key}
        for name in servers.SERVICES:
            await self._run(Process(servers.service(name, self._addresses[name], settings[name]), self._say))

    def _settings(self) -> dict[str, str]:
        settings = {
            "LENSMESH_NATS_URL": self._addresses["nats"],
            "LENSMESH_TRITON_ADDRESS": self._addresses["triton"],
            "LENSMESH_MILVUS_URI": self._addresses["milvus"],
            "LENSMESH_MODEL_SET": self.config.model_set,
            "LENSMESH_FETCH_ALLOW": self.config.fetch_allow,
            "LENSMESH_LOG_FORMAT": self.config.log_format,
        }
        if not self.config.milvus_uri:
            # Milvus Lite searches what is not flushed much more slowly; a cluster flushes by itself.
            settings["LENSMESH_MILVUS_FLUSH_S"] = "2"
        for name in ("vision", "embedder", "percolator"):
            settings[f"LENSMESH_{name.upper()}_ADDRESS"] = self._addresses[name]
        return settings | self.config.settings

    def _model_set(self) -> dict[str, Any]:
        name, sets = self.config.model_set, servers.ROOT / "models" / "sets"
        path = Path(name) if name.endswith(".json") else sets / f"{name}.json"
        if not path.exists():
            known = ", ".join(sorted(each.stem for each in sets.glob("*.json")))
            raise StartFailed(f"LENSMESH_MODEL_SET: no model set {self.config.model_set!r}; there are: {known}")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def _port(self) -> int:
        port = triton.free_port(self._taken)
        self._taken.add(port)
        return port

    def _canary_says(self, model: str, event: Event) -> None:
        if event != "alive":
            self._say("triton", f"model {model}: {event}")


def from_environment() -> MeshConfig:
    """The configuration of `make up`. Raises StartFailed with every mistake."""
    mistakes, ports = [], {}
    for name, default in (("LENSMESH_REST_PORT", 8080), ("LENSMESH_GRPC_PORT", 9090)):
        text = os.environ.get(name, "") or str(default)
        ports[name] = int(text) if text.isdigit() and int(text) < 65536 else -1
        if ports[name] < 0:
            mistakes.append(f"{name}: must be a port, 0 (any free one) to 65535, not {text!r}")
    if mistakes:
        raise StartFailed("wrong settings:\n  " + "\n  ".join(mistakes))
    return MeshConfig(
        data_dir=Path(os.environ.get("LENSMESH_DATA_DIR") or servers.ROOT / ".lensmesh").expanduser().resolve(),
        rest_port=ports["LENSMESH_REST_PORT"],
        grpc_port=ports["LENSMESH_GRPC_PORT"],
        model_set=os.environ.get("LENSMESH_MODEL_SET") or "lite",
        fetch_allow=os.environ.get("LENSMESH_FETCH_ALLOW", ""),
        nats_url=os.environ.get("LENSMESH_NATS_URL", ""),
        triton_address=os.environ.get("LENSMESH_TRITON_ADDRESS", ""),
        milvus_uri=os.environ.get("LENSMESH_MILVUS_URI", ""),
        log_format=os.environ.get("LENSMESH_LOG_FORMAT") or "text",
    )
