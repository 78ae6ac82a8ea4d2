"""Puts the gateway together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from lensmesh.v1 import embedder_pb2_grpc, engine_pb2_grpc, vision_pb2_grpc

from services.gateway.config import DoorSettings, GatewaySettings
from services.gateway.core.core import Stubs, build_core
from services.gateway.rest.app import build_app
from services.gateway.rest.server import RestServer
from services.gateway.rpc_door import add_operations
from services.gateway.sweeper import Sweeper
from services.mesh.blobs import NatsBlobStore
from services.mesh.bus.tasks import TaskStore
from services.mesh.config import load
from services.mesh.rpc import RpcServer, channel, health_ping
from services.mesh.service import Frame, Parts, Ping


async def build(frame: Frame) -> Parts:
    """The service's parts."""
    settings, doors = load(GatewaySettings), load(DoorSettings)
    addresses = {
        "vision": frame.mesh.vision_address,
        "embedder": frame.mesh.embedder_address,
        "percolator": frame.mesh.percolator_address,
    }
    channels = {name: channel(address, frame.rpc) for name, address in addresses.items()}
    stubs = Stubs(
        vision=vision_pb2_grpc.VisionServiceStub(channels["vision"]),
        embedder=embedder_pb2_grpc.EmbedderServiceStub(channels["embedder"]),
        percolator=engine_pb2_grpc.PercolatorEngineServiceStub(channels["percolator"]),
    )
    tasks = await TaskStore.open(frame.bus)
    core = await build_core(frame.bus, tasks, await NatsBlobStore.open(frame.bus), stubs, settings)
    # Without the other services the gateway still takes images in and reads tasks; /readyz names what is missing.
    needed: dict[str, Ping] = {"nats": frame.bus.ping, "directory": core.directory.ping}
    pings = dict(needed)
    closers: list[Callable[[], Awaitable[None]]] = [core.close]
    for name, target in channels.items():
        pings[name] = partial(health_ping, target)
        closers.append(partial(target.close, None))
    rpc = RpcServer(frame.rpc)
    add_operations(rpc, core, settings)
    return Parts(
        rpc=rpc,
        rpc_address=f"{doors.grpc_host}:{doors.grpc_port}",
        pings=needed,
        runnables=[
            RestServer(build_app(core, pings, settings), doors),
            Sweeper(frame.bus, tasks, settings),
            core.usage,
        ],
        closers=closers,
    )
