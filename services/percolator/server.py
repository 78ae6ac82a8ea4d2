"""Puts the percolator together."""

from __future__ import annotations

from lensmesh.v1 import engine_pb2_grpc

from services.mesh.bus.tasks import TaskStore
from services.mesh.bus.worker import Worker
from services.mesh.config import load
from services.mesh.rpc import RpcServer
from services.mesh.service import Frame, Parts
from services.percolator.cluster import Cluster
from services.percolator.config import PercolatorSettings, PercolatorWorkerSettings, WebhookSettings
from services.percolator.deliveries import Deliverer
from services.percolator.delivery_control import DeliveryControl
from services.percolator.delivery_records import DeliveryRecords
from services.percolator.matcher import Matcher
from services.percolator.matches import Matches
from services.percolator.records import Records
from services.percolator.registry import Expiry, Registry
from services.percolator.servicer import PercolatorEngineServicer
from services.percolator.shard import Shard
from services.percolator.webhook import Webhooks
from services.percolator.work import PercolatorWork


async def build(frame: Frame) -> Parts:
    """The service's parts. Returns when this replica's part of the stored queries is loaded: none is ever missed."""
    settings = load(PercolatorSettings)
    tasks = await TaskStore.open(frame.bus)
    records = await Records.open(frame.bus)
    shard = Shard(frame.bus, settings.vectors_dir)
    address = settings.advertise or frame.mesh.percolator_address
    cluster = await Cluster.join(frame.bus, shard, address, settings, frame.rpc)
    registry = Registry(records, shard, cluster, settings)
    matcher = Matcher(registry, settings.batch_assets_max, settings.whole_s_max)
    matches = await Matches.open(frame.bus)
    deliveries, webhook_settings = await DeliveryRecords.open(frame.bus), load(WebhookSettings)
    webhooks, control = Webhooks(webhook_settings), DeliveryControl(deliveries, registry)
    rpc = RpcServer(frame.rpc)
    rpc.add_servicer(
        engine_pb2_grpc.add_PercolatorEngineServiceServicer_to_server,
        PercolatorEngineServicer(registry, matcher, matches, control),
        "lensmesh.v1.PercolatorEngineService",
    )
    worker = Worker(frame.bus, tasks, PercolatorWork(matcher, matches), load(PercolatorWorkerSettings))
    return Parts(
        rpc=rpc,
        rpc_address=frame.mesh.percolator_address,
        pings={"nats": frame.bus.ping, "stored queries": registry.ping},
        runnables=[
            cluster,
            worker,
            Expiry(registry, control.forget, settings.expire_s),
            Deliverer(deliveries, registry, webhooks, webhook_settings),
        ],
        departures=[cluster.leave],
        closers=[webhooks.close, cluster.close, shard.close],
    )
