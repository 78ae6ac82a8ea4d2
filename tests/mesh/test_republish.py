"""Stored matches on a NATS subject of their own, against a real nats-server."""

from __future__ import annotations

import asyncio

import pytest
from lensmesh.v1 import match_pb2
from nats.aio.msg import Msg
from nats.js.api import KeyValueConfig, StorageType

from runner.process import Process
from services.mesh.bus import topology
from services.mesh.bus.topology import Bus, BusSettings
from services.mesh.config import load
from services.mesh.tenancy import Tenant
from services.percolator.matches import Matches

TENANT = Tenant("ns_test")


def a_match(number: int) -> match_pb2.Match:
    """A match of an asset of its own."""
    return match_pb2.Match(
        match_id=f"m{number}", percolator_id="p1", asset_id=f"a{number}", collection_id="col_1", score=0.5
    )


async def received(bus: Bus, subject: str, number: int, timeout_s: float = 10) -> Msg:
    """The message that storing a match brings to a subscriber of a subject."""
    subscription = await bus.client.subscribe(subject)
    await bus.client.flush()
    await (await Matches.open(bus)).store(TENANT, [a_match(number)])
    return await subscription.next_msg(timeout=timeout_s)


async def test_a_stored_match_is_published_under_its_ids(bus: Bus) -> None:
    """A subscriber of one stored query gets its matches as they are stored, the ids in the subject, and no other's."""
    message = await received(bus, "lensmesh.match.ns_test.*.p1.>", 1)
    assert "lensmesh.match.ns_test.col_1.p1.a1.m1" == message.subject
    assert a_match(1) == match_pb2.Match.FromString(message.data)
    await (await Matches.open(bus)).remove_one(TENANT, "m1")
    with pytest.raises(asyncio.TimeoutError):
        await received(bus, "lensmesh.match.ns_other.>", 2, timeout_s=0.2)


async def test_a_bucket_of_an_older_version_is_taught_to_publish(bus: Bus, nats_server: tuple[Process, str]) -> None:
    """A bucket that was made without it keeps what it holds, and publishes from the next start of a service on."""
    await bus.js.delete_key_value(topology.MATCHES)
    old = KeyValueConfig(bucket=topology.MATCHES, history=1, storage=StorageType.FILE, direct=True)
    await bus.js.create_key_value(old)
    await (await Matches.open(bus)).store(TENANT, [a_match(1)])
    before = (await bus.js.stream_info(topology.bucket_stream(topology.MATCHES))).config
    upgraded = await topology.connect(nats_server[1], "newer", stream_replicas=1, settings=load(BusSettings))
    try:
        after = (await bus.js.stream_info(topology.bucket_stream(topology.MATCHES))).config
        assert before == after.evolve(republish=before.republish)
        message = await received(upgraded, "lensmesh.match.>", 2)
        assert "lensmesh.match.ns_test.col_1.p1.a2.m2" == message.subject
        kept = await (await bus.bucket(topology.MATCHES)).get("ns_test.col_1.p1.a1.m1")
        assert a_match(1) == match_pb2.Match.FromString(kept.value or b"")
    finally:
        await upgraded.close()
