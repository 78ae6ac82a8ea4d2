"""Puts the percolator together."""

from __future__ import annotations

from lensmesh.v1 import engine_pb2_grpc

from services.mesh.bus.tasks import TaskStore
from services.mesh.bus.worker import Worker
from services.mesh.config import load
from services.mesh.rpc import RpcServer
from services.mesh.service import Frame, Parts
from services.percolator.config import PercolatorWorkerSettings, WebhookSettings
from services.percolator.deliveries import Deliverer
from services.percolator.delivery_control import DeliveryControl
from services.percolator.delivery_records import DeliveryRecords
from services.percolator.matches import Matches
from services.percolator.registry import Registry
from services.percolator.servicer import PercolatorEngineServicer
from services.percolator.webhook import Webhooks
from services.percolator.work import PercolatorWork


async def build(frame: Frame) -> Parts:
    """The service's parts. Returns when all stored queries are loaded: none is ever missed."""
    tasks = await TaskStore.open(frame.bus)
    registry = await Registry.open(frame.bus)
    matches = await Matches.open(frame.bus)
    deliveries, webhook_settings = await DeliveryRecords.open(frame.bus), load(WebhookSettings)
    webhooks = Webhooks(webhook_settings)
    rpc = RpcServer(frame.rpc)
    rpc.add_servicer(
        engine_pb2_grpc.add_PercolatorEngineServiceServicer_to_server,
        PercolatorEngineServicer(registry, matches, DeliveryControl(deliveries, registry)),
        "lensmesh.v1.PercolatorEngineService",
    )
    return Parts(
        rpc=rpc,
        rpc_address=frame.mesh.percolator_address,
        pings={"nats": frame.bus.ping, "stored queries": registry.ping},
        runnables=[
            Worker(frame.bus, tasks, PercolatorWork(registry, matches), load(PercolatorWorkerSettings)),
            Deliverer(deliveries, registry, webhooks, webhook_settings),
        ],
        closers=[webhooks.close, registry.close],
    )
