"""The stored queries of all replicas as one: written, read, listed and matched, whoever has them in memory.

How matching works, `engine` knows; who has what, `cluster`; what is kept, `records`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import grpc
import structlog
from lensmesh.v1 import engine_pb2

from services.mesh import telemetry
from services.mesh.errors import NotFound, Unavailable
from services.mesh.rpc import from_rpc_error
from services.mesh.tenancy import Tenant
from services.percolator.assets import found_queries, joined, probe_of
from services.percolator.cluster import Cluster
from services.percolator.config import PercolatorSettings
from services.percolator.engine import Space
from services.percolator.partitions import partition_of
from services.percolator.records import Records
from services.percolator.shard import Shard

log = structlog.get_logger()

# What is counted of each asset: as the fields of `Stats`.
_STAGES = ("stored", "candidates", "evaluated", "filtered", "matched")
# Stored queries that are removed at a time when a namespace is forgotten.
_TOGETHER = 64


class Registry:
    """Every stored query of every namespace."""

    def __init__(self, records: Records, shard: Shard, cluster: Cluster, settings: PercolatorSettings) -> None:
        self._records = records
        self._shard = shard
        self._cluster = cluster
        self._settings = settings

    async def ping(self) -> None:
        """Raise unless all stored queries are loaded somewhere, and those of this replica are followed."""
        await self._shard.ping()
        await self._cluster.ping()

    def owns(self, percolator_id: str) -> bool:
        """Whether this replica is the one to act on a stored query by itself."""
        return self._cluster.owns(percolator_id)

    async def put(self, tenant: Tenant, record: engine_pb2.StoredQueryRecord) -> None:
        """Store a query; returns when it is being matched."""
        await self._seen(record.stored_query.percolator_id, await self._records.put(tenant, record))

    async def put_all(self, tenant: Tenant, records: Sequence[engine_pb2.StoredQueryRecord]) -> None:
        """Store queries; returns when they are being matched."""
        revisions: dict[int, int] = {}
        for start in range(0, len(records), _TOGETHER):
            some = records[start : start + _TOGETHER]
            written = await asyncio.gather(*(self._records.put(tenant, each) for each in some))
            for record, revision in zip(some, written, strict=True):
                partition = partition_of(record.stored_query.percolator_id)
                revisions[partition] = max(revision, revisions.get(partition, 0))
        await asyncio.gather(*(self._seen_in(partition, revision) for partition, revision in revisions.items()))

    async def replace(self, tenant: Tenant, record: engine_pb2.StoredQueryRecord) -> None:
        """Store a query in the place of itself; returns when it is being matched.

        Raises:
            NotFound: it is not there any more.
        """
        await self._seen(record.stored_query.percolator_id, await self._records.replace(tenant, record))

    async def read(self, tenant: Tenant, percolator_id: str) -> engine_pb2.StoredQueryRecord:
        """Read a stored query.

        Raises:
            NotFound: there is none in this namespace.
        """
        return await self._records.read(tenant, percolator_id)

    async def read_all(self, tenant: Tenant, percolator_ids: Sequence[str]) -> list[engine_pb2.StoredQueryRecord]:
        """Those of some stored queries that there are."""
        return await self._records.read_all(tenant, [e for e in percolator_ids if not self._shard.lacks(tenant, e)])

    def all(self, tenant: Tenant) -> AsyncIterator[engine_pb2.StoredQueryRecord]:
        """Every stored query of a namespace, in no particular order."""
        return self._records.all(tenant)

    async def page(
        self, tenant: Tenant, offset: int, limit: int, stale: Space | None = None
    ) -> tuple[list[engine_pb2.StoredQueryRecord], int]:
        """Some stored queries, oldest first, and how many there are in all.

        Args:
            stale: only those with a vector in this index of another version of its model.

        Raises:
            Unavailable: some are not loaded anywhere at the moment.
        """
        keys, total = await self._keys(tenant, offset + limit, stale)
        return await self._records.read_all(tenant, [name for _, name in keys[offset : offset + limit]]), total

    async def remove(self, tenant: Tenant, percolator_id: str) -> None:
        """Remove a stored query; returns when it is matched no more.

        Raises:
            NotFound: there is none in this namespace.
        """
        await self._seen(percolator_id, await self._records.remove(tenant, percolator_id))

    async def forget(self, tenant: Tenant) -> None:
        """Remove all stored queries of a namespace."""
        while True:
            keys, _ = await self._keys(tenant, 16 * _TOGETHER, None)
            if not keys:
                return
            for start in range(0, len(keys), _TOGETHER):
                some = keys[start : start + _TOGETHER]
                removed = await asyncio.gather(*(self.remove(tenant, name) for _, name in some), return_exceptions=True)
                for each in removed:
                    if each is not None and not isinstance(each, NotFound):
                        raise each

    async def match(
        self, tenant: Tenant, assets: Sequence[engine_pb2.PercolatedAsset], *, wait_s: float = 0
    ) -> list[engine_pb2.FoundQueries]:
        """What each asset matches, among all stored queries of the namespace, wherever they are loaded.

        Args:
            wait_s: how long to wait for partitions that nobody has loaded, or whose replica does not answer.

        Raises:
            Unavailable: after that time, some are still not.
        """
        until, silent = time.monotonic() + wait_s, frozenset[str]()
        while True:
            try:
                return await self._gather(tenant, assets, silent)
            except _Silent as error:
                silent |= {error.name}
            except Unavailable:
                # Those that did not answer may do so again.
                silent = frozenset()
                if time.monotonic() >= until:
                    raise
                await self._cluster.changed(self._settings.heartbeat_s)

    async def match_here(
        self,
        tenant: Tenant,
        assets: Sequence[engine_pb2.PercolatedAsset],
        partitions: frozenset[int] | None = None,
    ) -> list[engine_pb2.FoundQueries]:
        """What each asset matches among the stored queries that this replica has loaded, or some partitions of them.

        Raises:
            Unavailable: one of the partitions is not loaded here.
        """
        started = time.perf_counter()
        matched = await self._shard.match(tenant, [probe_of(each) for each in assets], partitions)
        seconds = time.perf_counter() - started
        telemetry.PERCOLATE_SECONDS.observe(seconds)
        for stage in _STAGES:
            telemetry.PERCOLATED.labels(stage).inc(sum(getattr(each.stats, stage) for each in matched))
        ms = seconds * 1e3
        return [found_queries(each, ms) for each in matched]

    def keys_here(
        self, tenant: Tenant, limit: int, partitions: frozenset[int] | None, stale: Space | None
    ) -> tuple[list[tuple[int, str]], int]:
        """As `Shard.keys`."""
        return self._shard.keys(tenant, limit, partitions, stale)

    async def seen_here(self, partition: int, revision: int) -> None:
        """As `Shard.seen`."""
        await self._shard.seen(partition, revision)

    async def remove_expired(self) -> list[tuple[Tenant, str]]:
        """Remove the stored queries that have expired and that this replica acts on; returns them."""
        now_ns, removed = time.time_ns(), list[tuple[Tenant, str]]()
        for tenant, percolator_id in self._shard.expired(now_ns):
            if self.owns(percolator_id):
                try:
                    await self._records.remove(tenant, percolator_id, expired_ns=now_ns)
                    removed.append((tenant, percolator_id))
                except NotFound:
                    continue
        return removed

    async def _gather(
        self, tenant: Tenant, assets: Sequence[engine_pb2.PercolatedAsset], silent: frozenset[str]
    ) -> list[engine_pb2.FoundQueries]:
        own, others = self._cluster.cover(silent)
        asked = [self._ask(tenant, assets, name, partitions) for name, partitions in others.items()]
        parts = await asyncio.gather(self.match_here(tenant, assets, own), *asked)
        if len(parts) == 1:
            return parts[0]
        return [joined([part[position] for part in parts], asset.limit) for position, asset in enumerate(assets)]

    async def _ask(
        self, tenant: Tenant, assets: Sequence[engine_pb2.PercolatedAsset], name: str, partitions: frozenset[int]
    ) -> list[engine_pb2.FoundQueries]:
        request = engine_pb2.MatchPartitionsRequest(
            namespace_id=tenant.namespace_id, assets=assets, partitions=sorted(partitions)
        )
        try:
            answer = await self._cluster.stub(name).MatchPartitions(request, timeout=self._settings.ask_s_max)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, KeyError) as error:
            # It does not answer, is just being let go of, or is gone.
            raise _Silent(name) from error
        except asyncio.CancelledError as error:
            # A channel that is closed cancels its calls, which must not pass for a cancellation of this task.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _Silent(name) from error
        return list(answer.assets)

    async def _keys(self, tenant: Tenant, limit: int, stale: Space | None) -> tuple[list[tuple[int, str]], int]:
        own, others = self._cluster.cover()

        async def ask(name: str, partitions: frozenset[int]) -> tuple[list[tuple[int, str]], int]:
            request = engine_pb2.ListPartitionKeysRequest(
                namespace_id=tenant.namespace_id, partitions=sorted(partitions), limit=limit
            )
            if stale:
                request.stale_index, request.current_version = stale  # type: ignore[assignment]
            try:
                answer = await self._cluster.stub(name).ListPartitionKeys(request)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, "percolator") from error
            return list(zip(answer.created_ns, answer.percolator_ids, strict=True)), answer.total

        here = self.keys_here(tenant, limit, own, stale)
        parts = [here, *await asyncio.gather(*(ask(name, partitions) for name, partitions in others.items()))]
        if len(parts) == 1:
            return here
        return sorted(key for keys, _ in parts for key in keys)[:limit], sum(total for _, total in parts)

    async def _seen(self, percolator_id: str, revision: int) -> None:
        await self._seen_in(partition_of(percolator_id), revision)

    async def _seen_in(self, partition: int, revision: int) -> None:
        """Wait until whoever has a partition matches by a change to it."""
        request = engine_pb2.AwaitRevisionRequest(partition=partition, revision=revision)
        waiting = [stub.AwaitRevision(request) for stub in self._cluster.holders(partition)]
        if partition in self._shard.partitions:
            await self._shard.seen(partition, revision)
        for each in waiting:
            try:
                await each
            except grpc.aio.AioRpcError as error:
                # It may have given the partition up just now, or be gone; whoever loads it loads this, too.
                log.debug("replica not waited for", error=error.code().name)


class _Silent(Exception):
    """A replica did not answer."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Expiry:
    """Removes stored queries that have expired, until it is stopped."""

    def __init__(self, registry: Registry, forget: Callable[[Tenant, str], Awaitable[None]], every_s: float) -> None:
        """`forget` is called with each that was removed."""
        self._registry = registry
        self._forget = forget
        self._every_s = every_s
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Look again and again."""
        while not self._stopping.is_set():
            try:
                for tenant, percolator_id in await self._registry.remove_expired():
                    await self._forget(tenant, percolator_id)
                    log.info("expired stored query removed", percolator_id=percolator_id)
            except Exception as error:
                # They are matched no more, and are looked for again.
                log.warning("expired stored queries not removed", error=str(error) or type(error).__name__)
            try:
                await asyncio.wait_for(self._stopping.wait(), self._every_s)
            except TimeoutError:
                continue

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
