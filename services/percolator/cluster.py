"""The replicas of the percolator: who is there, which partitions each has loaded, and which it should load.

Each says so itself in a bucket, once a second; there is no leader. A replica gives a partition up only when those that
should have it say that they have loaded it, so that while replicas come and go somebody always answers for each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
import nats.errors
import structlog
from lensmesh.v1 import engine_pb2, engine_pb2_grpc
from nats.js.errors import Error as JetStreamError
from nats.js.kv import KeyValue

from services.mesh.bus import topology
from services.mesh.bus.follow import follow, scan
from services.mesh.bus.topology import Bus
from services.mesh.cancelling import cancelled
from services.mesh.errors import Unavailable
from services.mesh.rpc import RpcSettings, channel
from services.mesh.tenancy import derived_id
from services.percolator.config import PercolatorSettings
from services.percolator.partitions import PARTITIONS, partition_of, ranked, share
from services.percolator.shard import Shard

log = structlog.get_logger()

_STREAM = topology.bucket_stream(topology.PERCOLATORS)
_SUBJECT = topology.bucket_subject(topology.PERCOLATORS, ">")


@dataclass(slots=True)
class _Peer:
    """Another replica, as it last said of itself."""

    member: engine_pb2.PercolatorMember
    # On this process's clock.
    heard_at: float
    channel: grpc.aio.Channel
    stub: engine_pb2_grpc.PercolatorEngineServiceAsyncStub


class Cluster:
    """This replica's place among the others.

    Args:
        address: where the others reach this one; its name, too.
    """

    def __init__(
        self, bus: Bus, bucket: KeyValue, shard: Shard, address: str, settings: PercolatorSettings, rpc: RpcSettings
    ) -> None:
        self._bus = bus
        self._bucket = bucket
        self._shard = shard
        self._settings = settings
        self._rpc = rpc
        self.me = derived_id("percolator", address)
        self._member = engine_pb2.PercolatorMember(member_id=self.me, address=address)
        self._peers: dict[str, _Peer] = {}
        self._moved = asyncio.Condition()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: set[asyncio.Task[None]] = set()

    @classmethod
    async def join(
        cls, bus: Bus, shard: Shard, address: str, settings: PercolatorSettings, rpc: RpcSettings
    ) -> Cluster:
        """Say that this replica is there, and load its part. It is asked for nothing before that is loaded."""
        cluster = cls(bus, await bus.bucket(topology.PERCOLATORS), shard, address, settings, rpc)
        async for entry in scan(bus, _STREAM, [_SUBJECT]):
            cluster._hear(engine_pb2.PercolatorMember.FromString(entry.value))
        cluster._tasks = [asyncio.create_task(each()) for each in (cluster._listen, cluster._beat)]
        try:
            while missing := cluster._share() - shard.partitions:
                await cluster._load(missing)
        except BaseException:
            await cancelled(*cluster._tasks)
            await cluster.close()
            await shard.close()
            raise
        return cluster

    async def run(self) -> None:
        """Load and give up partitions as replicas come and go, until `stop`."""
        tasks = [*self._tasks, asyncio.create_task(self._move()), asyncio.create_task(self._stopping.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for ended in await cancelled(*tasks):
            if isinstance(ended, Exception):
                raise ended

    def stop(self) -> None:
        """Say no more."""
        self._stopping.set()

    async def close(self) -> None:
        """Ask the others no more."""
        for closing in self._closing:
            closing.cancel()
        for peer in self._peers.values():
            await peer.channel.close(None)

    async def leave(self) -> None:
        """Answer for what this replica has until others have it; then be gone."""
        self._member.leaving = True
        until = time.monotonic() + self._settings.leave_s_max
        while time.monotonic() < until:
            await self._say()
            staying = [peer.member.partitions for peer in self._alive().values() if not peer.member.leaving]
            if not staying or self._shard.partitions <= {each for partitions in staying for each in partitions}:
                break
            await self.changed(self._settings.heartbeat_s)
        self._stopping.set()
        try:
            await self._bucket.delete(self.me)
        except (nats.errors.Error, JetStreamError, OSError) as error:
            log.debug("leave not said", error=str(error) or type(error).__name__)

    def owns(self, percolator_id: str) -> bool:
        """Whether this replica, of those that have the stored query, is the one to act on it."""
        staying = [self.me, *(name for name, peer in self._alive().items() if not peer.member.leaving)]
        return ranked(partition_of(percolator_id), staying)[0] == self.me

    def holders(self, partition: int) -> list[engine_pb2_grpc.PercolatorEngineServiceAsyncStub]:
        """The other replicas that have a partition in memory."""
        return [peer.stub for peer in self._alive().values() if partition in peer.member.partitions]

    def cover(self, avoid: frozenset[str] = frozenset()) -> tuple[frozenset[int], dict[str, frozenset[int]]]:
        """Who is to be asked so that every partition is asked once: those of this replica, and those of others.

        Args:
            avoid: replicas that did not answer just now.

        Raises:
            Unavailable: nobody has loaded one of the partitions.
        """
        own = self._shard.partitions
        left, others = set(range(PARTITIONS)) - own, dict[str, frozenset[int]]()
        for name, peer in sorted(self._alive().items()):
            taken = left & set(peer.member.partitions)
            if taken and name not in avoid:
                others[name] = frozenset(taken)
                left -= taken
        if left:
            raise Unavailable(f"{len(left)} of {PARTITIONS} partitions of stored queries are being loaded; try again")
        return own, others

    def stub(self, name: str) -> engine_pb2_grpc.PercolatorEngineServiceAsyncStub:
        """A replica that `cover` named."""
        return self._peers[name].stub

    async def changed(self, timeout_s: float) -> None:
        """Wait until something about the replicas has changed, or some time has passed."""
        try:
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait()
        except TimeoutError:
            return

    async def ping(self) -> None:
        """Raise unless every partition is loaded somewhere."""
        self.cover()

    def _alive(self) -> Mapping[str, _Peer]:
        since = time.monotonic() - self._settings.gone_s
        return {name: peer for name, peer in self._peers.items() if peer.heard_at > since}

    def _share(self) -> frozenset[int]:
        staying = [name for name, peer in self._alive().items() if not peer.member.leaving]
        return share(self.me, [self.me, *staying], self._settings.copies)

    def _hear(self, member: engine_pb2.PercolatorMember) -> None:
        if member.member_id == self.me:
            return
        known = self._peers.get(member.member_id)
        if known is None:
            target = channel(member.address, self._rpc)
            stub = engine_pb2_grpc.PercolatorEngineServiceStub(target)
            self._peers[member.member_id] = _Peer(member, time.monotonic(), target, stub)
            log.info("percolator heard of", address=member.address, partitions=len(member.partitions))
        else:
            known.member, known.heard_at = member, time.monotonic()

    async def _listen(self) -> None:
        async for entry in follow(self._bus, _STREAM, [_SUBJECT]):
            if entry is None:
                continue
            if not entry.deleted:
                self._hear(engine_pb2.PercolatorMember.FromString(entry.value))
            elif peer := self._peers.pop(entry.key, None):
                # Calls under way may still be answered; to close at once would cancel whoever waits for them.
                closing = asyncio.create_task(peer.channel.close(self._settings.ask_s_max))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            async with self._moved:
                self._moved.notify_all()

    async def _beat(self) -> None:
        while True:
            await self._say()
            await asyncio.sleep(self._settings.heartbeat_s)

    async def _say(self) -> None:
        self._member.partitions[:] = sorted(self._shard.partitions)
        try:
            await self._bucket.put(self.me, self._member.SerializeToString())
        except (nats.errors.Error, JetStreamError, OSError) as error:
            log.debug("sign of life not sent", error=str(error) or type(error).__name__)

    async def _move(self) -> None:
        """Load what this replica should have; give up what others should, once they have it."""
        while True:
            # Who does not hear of changes any more ends, and is started anew.
            self._shard.check()
            wanted = self._share()
            if missing := wanted - self._shard.partitions:
                await self._load(missing)
                await self._say()
                continue
            surplus = {each for each in self._shard.partitions - wanted if self._is_with_others(each)}
            if surplus:
                await self._shard.drop(surplus)
                await self._say()
            await self.changed(self._settings.heartbeat_s)

    async def _load(self, partitions: frozenset[int]) -> None:
        """Load partitions, but for those that become another's meanwhile: replicas may start together."""
        loading = asyncio.create_task(self._shard.load(partitions))
        try:
            while not loading.done():
                await asyncio.wait({loading}, timeout=self._settings.heartbeat_s)
                await self._shard.drop(self._shard.loading - self._share())
            await loading
        finally:
            loading.cancel()

    def _is_with_others(self, partition: int) -> bool:
        """Whether all that should have a partition say that they have it."""
        alive = self._alive()
        staying = [name for name, peer in alive.items() if not peer.member.leaving]
        if not self._member.leaving:
            staying.append(self.me)
        should = ranked(partition, staying)[: self._settings.copies]
        return bool(should) and all(name != self.me and partition in alive[name].member.partitions for name in should)
