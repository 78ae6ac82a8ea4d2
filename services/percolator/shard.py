"""The stored queries that this replica has in memory: loaded from the buckets of partitions, and kept up to date.

Matching lets others run every few milliseconds, changes among them: in a thread of its own it would wait for Python's
lock hundreds of times a batch whenever the process has other work.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog
from lensmesh.v1 import engine_pb2

from services.mesh import telemetry
from services.mesh.bus.follow import Entry, follow_batches
from services.mesh.bus.topology import Bus
from services.mesh.cancelling import cancelled
from services.mesh.errors import LensmeshError, Unavailable
from services.mesh.tenancy import Tenant
from services.percolator.engine import Engine, IntegerProduct, Matched, Payloads, Probe, Space, StoredQuery
from services.percolator.partitions import PARTITIONS, partition_of
from services.percolator.records import parts_of, stream_of, to_domain

log = structlog.get_logger()

# How long a writer waits to see its own write matched.
_SEEN_S_MAX = 5.0
# How long matching goes on before others may run, and for how many turns of the loop: in each, nats-py reads 32 KB.
_STRETCH_S = 0.002
_TURNS = 8
# More changes wait until a matching has ended: it scores each of them exactly, for each asset.
_MEANWHILE_MAX = 1_000
# While the last batch of one partition is applied, the first of the next one is on its way.
_LOADING_MAX = 2
# Between two lines of progress while loading.
_SAY_S = 10.0


class Shard:
    """The engines of all namespaces, of the partitions that were loaded."""

    def __init__(self, bus: Bus, directory: Path | None) -> None:
        self._bus = bus
        self._directory = directory
        self._product = IntegerProduct()
        self._payloads = Payloads(directory)
        self._engines: dict[str, Engine] = {}
        # Held by who is matching, and by who loads or drops what is matched against.
        self._turn = asyncio.Lock()
        # Changes that have arrived: whoever comes first applies all of them.
        self._arrived: list[tuple[_Follower, Sequence[Entry]]] = []
        # Who follows each partition, and up to which revision its changes are being matched.
        self._followers: dict[int, _Follower] = {}
        self._loaded: set[int] = set()
        # Changes since the last matching began.
        self._meanwhile = 0
        self._loading = asyncio.Semaphore(_LOADING_MAX)
        self._said_at = 0.0

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that are loaded: all of their stored queries are matched."""
        return frozenset(self._loaded)

    @property
    def loading(self) -> frozenset[int]:
        """The partitions that are being loaded."""
        return frozenset(self._followers.keys() - self._loaded)

    async def load(self, partitions: Iterable[int]) -> None:
        """Load partitions, and go on following them; returns when they are loaded."""
        followers = {
            each: _Follower(self._bus, each, self._apply) for each in partitions if each not in self._followers
        }
        if followers:
            self._followers |= followers
            self._said_at = time.monotonic()
            await asyncio.gather(*map(self._load, followers.values()))
            log.info("stored queries loaded", partitions=len(self._loaded), count=self.count)

    async def drop(self, partitions: Iterable[int]) -> None:
        """Forget partitions."""
        dropped = frozenset(partitions) & self._followers.keys()
        followers = [self._followers.pop(each) for each in dropped]
        self._loaded -= dropped
        await asyncio.gather(*(each.stop() for each in followers))
        for partition in dropped:
            # One at a time: of a million stored queries, each takes a tenth of a second.
            await asyncio.sleep(0)
            async with self._turn:
                if partition not in self._followers:
                    self._forget(partition)

    async def close(self) -> None:
        """Follow no more."""
        await asyncio.gather(*(each.stop() for each in self._followers.values()))
        for engine in self._engines.values():
            engine.close()
        self._payloads.close()

    def check(self) -> None:
        """Raise what ended the following of a partition: what changes from then on would be missed."""
        for follower in self._followers.values():
            follower.check()

    async def ping(self) -> None:
        """Raise unless every partition that was asked for is loaded and followed."""
        self.check()
        if missing := len(self._followers) - len(self._loaded):
            raise Unavailable(f"{missing} of {PARTITIONS} partitions of stored queries are being loaded")

    async def match(
        self, tenant: Tenant, probes: Sequence[Probe], partitions: frozenset[int] | None = None
    ) -> list[Matched]:
        """Match assets against the loaded stored queries, or against those of some partitions.

        Raises:
            Unavailable: one of the partitions is not loaded.
        """
        async with self._turn:
            engine, self._meanwhile = self._engine(tenant), 0
            with contextlib.closing(engine.steps(probes, self._asked(partitions))) as steps:
                rested = time.perf_counter()
                while True:
                    try:
                        next(steps)
                    except StopIteration as end:
                        matched: list[Matched] = end.value
                        break
                    if time.perf_counter() - rested > _STRETCH_S:
                        for _ in range(_TURNS):
                            await asyncio.sleep(0)
                        rested = time.perf_counter()
            self._let_go(tenant.namespace_id)
            return matched

    def keys(
        self,
        tenant: Tenant,
        limit: int,
        partitions: frozenset[int] | None = None,
        stale: Space | None = None,
    ) -> tuple[list[tuple[int, str]], int]:
        """As `Engine.keys`.

        Raises:
            Unavailable: one of the partitions is not loaded.
        """
        return self._engine(tenant).keys(limit, partitions=self._asked(partitions), stale=stale)

    def expired(self, now_ns: int) -> list[tuple[Tenant, str]]:
        """The loaded stored queries that have expired."""
        return [(Tenant(name), each) for name, engine in self._engines.items() for each in engine.expired(now_ns)]

    @property
    def count(self) -> int:
        """How many stored queries are loaded."""
        return sum(len(each) for each in self._engines.values())

    def lacks(self, tenant: Tenant, percolator_id: str) -> bool:
        """Whether there is no such stored query: known only of loaded partitions."""
        return partition_of(percolator_id) in self._loaded and percolator_id not in self._engine(tenant)

    async def seen(self, partition: int, revision: int) -> None:
        """Wait until changes of a partition up to a revision are being matched.

        Raises:
            Unavailable: they are not within a few seconds, or the partition is not loaded here.
        """
        follower = self._followers.get(partition)
        if follower is None:
            raise Unavailable("the partition of this stored query is not loaded here; try again")
        await follower.seen(revision)

    def _asked(self, partitions: frozenset[int] | None) -> list[int]:
        """The partitions to look into, of all that the engines may have: some are being loaded, or dropped."""
        wanted = frozenset(self._followers) if partitions is None else partitions
        if missing := wanted - self._loaded:
            raise Unavailable(f"{len(missing)} of {PARTITIONS} partitions of stored queries are not loaded here yet")
        return sorted(wanted)

    def _engine(self, tenant: Tenant) -> Engine:
        known = self._engines.get(tenant.namespace_id)
        if known is None:
            known = self._engines[tenant.namespace_id] = Engine(self._product, self._directory, self._payloads)
        return known

    async def _load(self, follower: _Follower) -> None:
        async with self._loading:
            if not self._is_followed(follower):
                return
            await follower.start()
        if self._is_followed(follower):
            self._loaded.add(follower.partition)
        if self.loading and time.monotonic() - self._said_at > _SAY_S:
            self._said_at = time.monotonic()
            log.info("loading stored queries", count=self.count, partitions_left=len(self.loading))

    def _is_followed(self, follower: _Follower) -> bool:
        """Whether what a follower brings is still wanted."""
        return self._followers.get(follower.partition) is follower

    async def _apply(self, follower: _Follower, entries: Sequence[Entry]) -> None:
        """Bring changes into the engines, even while matching is under way, unless they are many or being loaded."""
        too_many = self._meanwhile >= _MEANWHILE_MAX and self._turn.locked()
        if too_many or follower.partition not in self._loaded:
            async with self._turn:
                self._bring([(follower, entries)])
            return
        self._arrived.append((follower, entries))
        # One turn of the loop later there are more, and together they cost less.
        await asyncio.sleep(0)
        arrived, self._arrived = self._arrived, []
        self._meanwhile += sum(len(some) for _, some in arrived)
        self._bring(arrived)

    def _bring(self, arrived: Sequence[tuple[_Follower, Sequence[Entry]]]) -> None:
        # The last one of each key counts.
        latest = {
            each.subject: (who.partition, each) for who, some in arrived if self._is_followed(who) for each in some
        }
        if latest:
            self._change([_Change.of(*each) for each in latest.values()])
            telemetry.STORED_QUERIES.set(self.count)

    def _change(self, changes: Sequence[_Change]) -> None:
        put: dict[str, list[StoredQuery]] = defaultdict(list)
        gone: set[str] = set()
        for change in changes:
            try:
                if change.entry.deleted:
                    self._engine(Tenant(change.namespace_id)).remove(change.percolator_id)
                    gone.add(change.namespace_id)
                else:
                    record = engine_pb2.StoredQueryRecord.FromString(change.entry.value)
                    put[change.namespace_id].append(to_domain(record, change.partition))
            except (LensmeshError, ValueError) as error:
                # One record that can't be read must not keep the others from being matched.
                log.error("stored query left out", percolator_id=change.percolator_id, error=str(error))
        for namespace_id, queries in put.items():
            self._put(self._engine(Tenant(namespace_id)), queries)
        for namespace_id in gone:
            self._let_go(namespace_id)

    def _forget(self, partition: int) -> None:
        for namespace_id, engine in list(self._engines.items()):
            engine.remove_partition(partition)
            self._let_go(namespace_id)

    def _let_go(self, namespace_id: str) -> None:
        """Forget the engine of a namespace without stored queries, and its file with it, unless it is matching."""
        engine = self._engines.get(namespace_id)
        if engine is not None and not len(engine) and not engine.is_matching:
            del self._engines[namespace_id]
            engine.close()

    def _put(self, engine: Engine, queries: Sequence[StoredQuery]) -> None:
        try:
            engine.put(queries)
        except ValueError as error:
            if len(queries) == 1:
                log.error("stored query left out", percolator_id=queries[0].percolator_id, error=str(error))
                return
            for each in queries:
                self._put(engine, [each])


class _Change(NamedTuple):
    """What was written or removed, and where."""

    namespace_id: str
    partition: int
    percolator_id: str
    entry: Entry

    @classmethod
    def of(cls, partition: int, entry: Entry) -> _Change:
        namespace_id, percolator_id = parts_of(entry.subject)
        return cls(namespace_id, partition, percolator_id, entry)


class _Follower:
    """Follows the records of a partition, and hands on what comes in batches, one after the other."""

    def __init__(
        self, bus: Bus, partition: int, apply: Callable[[_Follower, Sequence[Entry]], Awaitable[None]]
    ) -> None:
        self.partition = partition
        self._bus = bus
        self._apply = apply
        self._revision = 0
        self._moved = asyncio.Condition()
        self._loaded = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def check(self) -> None:
        if self._task is not None and self._task.done():
            self._task.result()
            raise RuntimeError("the stored queries are not followed any more")

    async def start(self) -> None:
        """Start following; returns when what was there is applied, or nothing of it is wanted any more."""
        self._task = asyncio.create_task(self._follow())
        loaded = asyncio.create_task(self._loaded.wait())
        await asyncio.wait({self._task, loaded}, return_when=asyncio.FIRST_COMPLETED)
        loaded.cancel()
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    async def stop(self) -> None:
        if self._task:
            await cancelled(self._task)

    async def seen(self, revision: int) -> None:
        try:
            async with asyncio.timeout(_SEEN_S_MAX), self._moved:
                await self._moved.wait_for(lambda: self._revision >= revision)
        except TimeoutError:
            raise Unavailable("the write is stored, but not yet visible; try again") from None

    async def _follow(self) -> None:
        applying: asyncio.Task[None] | None = None
        async for entries in follow_batches(self._bus, stream_of(self.partition), ()):
            # One batch is applied while the next one comes in.
            if applying:
                await applying
            applying = asyncio.create_task(self._applied(entries))
            if not entries or not entries[-1].pending:
                await applying
                self._loaded.set()

    async def _applied(self, entries: Sequence[Entry]) -> None:
        if entries:
            await self._apply(self, entries)
            async with self._moved:
                self._revision = entries[-1].sequence
                self._moved.notify_all()
