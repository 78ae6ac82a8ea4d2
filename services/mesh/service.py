"""The frame of every service's process: settings, telemetry, the bus, a gRPC server, workers, readiness and drain.

A service gives its parts in a `Parts`; nothing in here knows what they do.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import structlog
import uvloop
from prometheus_client import start_http_server
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.mesh import telemetry
from services.mesh.bus import topology
from services.mesh.bus.topology import Bus, BusSettings
from services.mesh.cancelling import cancelled
from services.mesh.config import ConfigError, MeshSettings, load_or_exit
from services.mesh.rpc import RpcServer, RpcSettings

log = structlog.get_logger()

# New objects between two collections of the youngest ones; Python's own 700 is for programs that do little.
_GC_ALLOCATIONS = 20_000

Ping = Callable[[], Awaitable[None]]


class ServiceSettings(BaseSettings):
    """Where a process says how it is."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_", extra="ignore")

    metrics_port: int = Field(0, ge=0, le=65535, description="Port of /metrics; 0: none.")
    metrics_host: str = Field("127.0.0.1", description="Address of /metrics.")
    ready_check_s: float = Field(5, gt=0, description="Seconds between two rounds of readiness pings.")


class Runnable(Protocol):
    """Something that runs until it is stopped, such as a worker."""

    async def run(self) -> None: ...
    def stop(self) -> None: ...


@dataclass(slots=True)
class Parts:
    """What a service consists of."""

    rpc: RpcServer
    rpc_address: str
    # What the service needs, by name; each raises when it is not there.
    pings: dict[str, Ping]
    runnables: list[Runnable] = field(default_factory=list)
    # Called in order at shutdown, while calls are still taken.
    departures: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    # Called in order at shutdown, after the runnables have drained.
    closers: list[Callable[[], Awaitable[None]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frame:
    """What every service is given."""

    mesh: MeshSettings
    rpc: RpcSettings
    bus: Bus


Build = Callable[[Frame], Coroutine[Any, Any, Parts]]


def main(name: str, build: Build) -> None:
    """Run a service until SIGTERM or SIGINT. Wrong settings end it with code 2 and one clear message."""
    mesh = load_or_exit(MeshSettings)
    telemetry.set_up(name, mesh)
    try:
        uvloop.run(_run(name, mesh, build))
    except ConfigError as error:
        log.error(str(error))
        raise SystemExit(2) from None


async def _run(name: str, mesh: MeshSettings, build: Build) -> None:
    settings, rpc, bus_settings = load_or_exit(ServiceSettings), load_or_exit(RpcSettings), load_or_exit(BusSettings)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    bus = await _connect(name, mesh, bus_settings, stopping)
    if bus is None:
        return
    gc.set_threshold(_GC_ALLOCATIONS, 20, 20)
    stopped = asyncio.create_task(stopping.wait())
    building = asyncio.create_task(build(Frame(mesh, rpc, bus)))
    await asyncio.wait({building, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not building.done():
        await cancelled(building)
        # Nothing was promised to anybody, so there is nothing to wait for the server to take.
        await bus.client.close()
        log.info("stopped before it was ready", service=name)
        return
    parts = building.result()
    port = await parts.rpc.start(parts.rpc_address)
    if settings.metrics_port:
        start_http_server(settings.metrics_port, settings.metrics_host)
    running = [asyncio.create_task(each.run()) for each in parts.runnables]
    readiness = asyncio.create_task(_keep_readiness(parts, settings.ready_check_s))
    _calm_collector()
    log.info("started", service=name, grpc_port=port)
    # A runnable that ends by itself has failed: the process ends with it, and its supervisor starts it anew.
    await asyncio.wait({stopped, *running}, return_when=asyncio.FIRST_COMPLETED)
    failed = [task for task in running if task.done() and task.exception()]
    readiness.cancel()
    for depart in parts.departures:
        await depart()
    for each in parts.runnables:
        each.stop()
    await asyncio.gather(parts.rpc.stop(), *running, return_exceptions=True)
    for close in parts.closers:
        await close()
    await bus.close()
    for task in failed:
        raise SystemExit(f"{name} failed: {task.exception()!r}")
    log.info("stopped", service=name)


def _calm_collector() -> None:
    """Keep the garbage collector from walking through modules and settings again and again: they stay for good."""
    gc.collect()
    gc.freeze()


async def _connect(name: str, mesh: MeshSettings, settings: BusSettings, stopping: asyncio.Event) -> Bus | None:
    """Connect to NATS, trying until it answers; None when the process is told to stop meanwhile."""
    stopped = asyncio.create_task(stopping.wait())
    said = False
    while not stopping.is_set():
        connecting = asyncio.create_task(
            topology.connect(mesh.nats_url, name, stream_replicas=mesh.stream_replicas, settings=settings)
        )
        await asyncio.wait({connecting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            connecting.cancel()
            break
        error = connecting.exception()
        if error is None:
            stopped.cancel()
            return connecting.result()
        if not said:
            log.warning("waiting for nats", error=str(error) or type(error).__name__)
            said = True
        await asyncio.sleep(0.3)
    return None


async def ping_all(pings: dict[str, Ping]) -> dict[str, str | None]:
    """Ping everything at once: None for what answers, the reason for what does not."""

    async def one(ping: Ping) -> str | None:
        try:
            await asyncio.wait_for(ping(), timeout=3)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        except Exception as error:
            return str(error) or type(error).__name__
        return None

    reasons = await asyncio.gather(*(one(ping) for ping in pings.values()))
    return dict(zip(pings, reasons, strict=True))


async def _keep_readiness(parts: Parts, every_s: float) -> None:
    before: dict[str, Any] | None = None
    while True:
        state = await ping_all(parts.pings)
        ready = not any(state.values())
        if state != before:
            missing = {name: reason for name, reason in state.items() if reason}
            log.info("ready") if ready else log.warning("not ready", **missing)
            before = state
        await parts.rpc.set_ready(ready)
        await asyncio.sleep(every_s if ready else min(every_s, 0.3))
