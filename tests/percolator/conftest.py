"""A deliverer with a real nats-server and a real receiver; only the stored queries are a test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver
from lensmesh.v1 import engine_pb2, match_pb2, percolator_pb2
from nats.js.errors import KeyNotFoundError

from runner import servers, triton
from runner.process import Process
from services.mesh.bus.tasks import now
from services.mesh.bus.topology import DEAD_LETTERS, DELIVERIES, Bus
from services.mesh.errors import NotFound
from services.mesh.outbound.guard import parse_endpoint
from services.mesh.tenancy import Tenant
from services.percolator.config import WebhookSettings
from services.percolator.deliveries import Deliverer
from services.percolator.delivery_control import DeliveryControl
from services.percolator.delivery_records import CHECKPOINT, DELIVERIES_STREAM, MATCHES_STREAM, DeliveryRecords
from services.percolator.matches import Matches
from services.percolator.webhook import Webhooks
from tests.webhook_receiver import SECRET, Receiver, receiver

TENANT = Tenant("ns_test")
# Short enough for a test to wait for.
SETTINGS: dict[str, Any] = {
    "call_seconds_max": 0.4,
    "attempts_max": 4,
    "backoff_first_s": 0.05,
    "backoff_max_s": 0.2,
    "breaker_failures": 50,
    "breaker_first_s": 0.3,
    "breaker_max_s": 0.6,
    "checkpoint_s": 0.1,
}


@dataclass
class Queries:
    """Stored queries by id, and those that this replica does not own."""

    kept: dict[str, engine_pb2.StoredQueryRecord] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)

    async def read(self, tenant: Tenant, percolator_id: str) -> engine_pb2.StoredQueryRecord:
        """A stored query."""
        if percolator_id not in self.kept:
            raise NotFound(f"no stored query {percolator_id!r}")
        return self.kept[percolator_id]

    def owns(self, percolator_id: str) -> bool:
        """Whether this replica delivers for it."""
        return percolator_id not in self.elsewhere


@dataclass
class Station:
    """One replica's deliveries, with what tests do to them."""

    bus: Bus
    receiver: Receiver
    records: DeliveryRecords
    matches: Matches
    queries: Queries
    settings: dict[str, Any] = field(default_factory=lambda: dict(SETTINGS))
    resolver: AbstractResolver | None = None
    running: list[tuple[asyncio.Task[None], Deliverer, Webhooks]] = field(default_factory=list)

    @property
    def control(self) -> DeliveryControl:
        """What the percolator's door asks."""
        return DeliveryControl(self.records, self.queries)

    async def store(
        self, percolator_id: str, url: str | None = None, cooldown_s: int = 0, secret: str = SECRET
    ) -> None:
        """Store a query with a webhook, or without one for an empty URL."""
        url = self.receiver.url() if url is None else url
        stored = percolator_pb2.StoredQuery(percolator_id=percolator_id)
        record = engine_pb2.StoredQueryRecord(namespace_id=TENANT.namespace_id, stored_query=stored)
        if url:
            status = percolator_pb2.DeliveryStatus(webhook_url=url, cooldown_s=cooldown_s)
            record.stored_query.delivery.CopyFrom(status)
            record.delivery_secret = secret
        await self.control.prepare(record)
        self.queries.kept[percolator_id] = record

    async def match(self, percolator_id: str, *numbers: int, **more: Any) -> list[str]:
        """Store matches one after the other; returns their ids."""
        ids = []
        for number in numbers:
            match = match_pb2.Match(
                match_id=f"{percolator_id}-m{number}",
                percolator_id=percolator_id,
                asset_id=f"a{number}",
                collection_id="col_1",
                score=0.75,
                created_at=now(),
            )
            match.metadata.update(more)
            await self.matches.store(TENANT, [match])
            ids.append(match.match_id)
        return ids

    async def status(self, percolator_id: str) -> percolator_pb2.DeliveryStatus:
        """How its deliveries stand, as they are shown."""
        shown = percolator_pb2.StoredQuery(percolator_id=percolator_id)
        shown.delivery.SetInParent()
        await self.control.show(TENANT, [shown])
        return shown.delivery

    async def until(self, percolator_id: str, within_s: float = 10, **wanted: Any) -> percolator_pb2.DeliveryStatus:
        """Wait until the status has these values."""
        async with asyncio.timeout(within_s):
            while True:
                status = await self.status(percolator_id)
                if all(getattr(status, name) == value for name, value in wanted.items()):
                    return status
                await asyncio.sleep(0.02)

    async def checkpoint(self) -> int:
        """The sequence from which a start would look at matches."""
        try:
            entry = await (await self.bus.bucket(DELIVERIES)).get(CHECKPOINT)
        except KeyNotFoundError:
            return 0
        return int(engine_pb2.DeliveryRecord.FromString(entry.value or b"").cursor)

    def start(self, queries: Queries | None = None) -> None:
        """Start a replica, with stored queries of its own if given."""
        allow = (parse_endpoint(self.receiver.endpoint),)
        settings = WebhookSettings(fetch_allow=allow, **self.settings)
        webhooks = Webhooks(settings, resolver=self.resolver)
        deliverer = Deliverer(self.records, queries or self.queries, webhooks, settings)
        self.running.append((asyncio.create_task(deliverer.run()), deliverer, webhooks))

    async def kill(self) -> None:
        """End the oldest replica with nothing finished, as far as that goes within a process."""
        task, deliverer, webhooks = self.running.pop(0)
        lanes = [lane.task for lane in deliverer._lanes.values() if lane.task]
        for each in (task, *lanes):
            each.cancel()
        await asyncio.gather(task, *lanes, return_exceptions=True)
        await webhooks.close()

    async def stop(self) -> None:
        """End all replicas in order."""
        for task, deliverer, webhooks in self.running:
            deliverer.stop()
            await task
            await webhooks.close()


@pytest.fixture(scope="module")
async def nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Process, str]]:
    """One nats-server for all of a module's tests, and its URL."""
    port = triton.free_port(set())
    process = Process(servers.nats_server(tmp_path_factory.mktemp("nats"), port, "token"), lambda name, line: None)
    await process.start()
    await process.wait_ready()
    yield process, f"nats://token@127.0.0.1:{port}"
    await process.stop()


@pytest.fixture
async def station(bus: Bus) -> AsyncIterator[Station]:
    """Not started yet, and nothing is left of other tests."""
    for stream in (MATCHES_STREAM, DELIVERIES_STREAM, DEAD_LETTERS):
        await bus.js.purge_stream(stream)
    async with receiver() as receiving:
        made = Station(bus, receiving, await DeliveryRecords.open(bus), await Matches.open(bus), Queries())
        yield made
        receiving.open.set()
        await made.stop()
