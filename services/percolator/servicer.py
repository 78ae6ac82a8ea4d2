"""The gRPC door of the percolator: a translator without logic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from lensmesh.v1 import engine_pb2, engine_pb2_grpc

from services.mesh.errors import InvalidArgument
from services.mesh.tenancy import Tenant
from services.percolator.assets import scored
from services.percolator.delivery_control import DeliveryControl
from services.percolator.matcher import Matcher
from services.percolator.matches import Matches
from services.percolator.registry import Registry

# With a few vectors each, a message stays below ten megabytes.
_RECORDS_A_MESSAGE = 200
# Deliveries that are looked after at a time when many stored queries come at once.
_TOGETHER = 64


class PercolatorEngineServicer(engine_pb2_grpc.PercolatorEngineServiceServicer):
    """Serves lensmesh.v1.PercolatorEngineService."""

    def __init__(self, registry: Registry, matcher: Matcher, matches: Matches, deliveries: DeliveryControl) -> None:
        self._registry = registry
        self._matcher = matcher
        self._matches = matches
        self._deliveries = deliveries

    async def PutStoredQuery(
        self, request: engine_pb2.PutStoredQueryRequest, context: Any
    ) -> engine_pb2.PutStoredQueryResponse:
        """Store a query."""
        tenant = Tenant(request.record.namespace_id)
        await self._deliveries.prepare(request.record)
        if request.replace:
            await self._registry.replace(tenant, request.record)
        else:
            await self._registry.put(tenant, request.record)
        return engine_pb2.PutStoredQueryResponse()

    async def PutStoredQueries(
        self, request: engine_pb2.PutStoredQueriesRequest, context: Any
    ) -> engine_pb2.PutStoredQueriesResponse:
        """Store queries."""
        tenants = {each.namespace_id for each in request.records}
        if len(tenants) > 1:
            raise InvalidArgument.field("records", "are of more than one tenant", "one_tenant")
        for start in range(0, len(request.records), _TOGETHER):
            # Imports take no webhook away, so that those without one have nothing to be prepared.
            brought = request.records[start : start + _TOGETHER]
            some = [each for each in brought if each.stored_query.HasField("delivery")]
            await asyncio.gather(*(self._deliveries.prepare(each) for each in some))
        await self._registry.put_all(Tenant(tenants.pop()), request.records)
        return engine_pb2.PutStoredQueriesResponse()

    async def ExportRecords(
        self, request: engine_pb2.ExportRecordsRequest, context: Any
    ) -> AsyncIterator[engine_pb2.ExportRecordsResponse]:
        """Send all stored queries."""
        answer = engine_pb2.ExportRecordsResponse()
        async for record in self._registry.all(Tenant(request.namespace_id)):
            answer.records.append(record)
            if len(answer.records) == _RECORDS_A_MESSAGE:
                yield answer
                answer = engine_pb2.ExportRecordsResponse()
        if answer.records:
            yield answer

    async def ScanStoredQueries(
        self, request: engine_pb2.ScanStoredQueriesRequest, context: Any
    ) -> engine_pb2.ScanStoredQueriesResponse:
        """List stored queries."""
        tenant = Tenant(request.namespace_id)
        stale = (int(request.stale_index), request.current_version) if request.stale_index else None
        records, total = await self._registry.page(tenant, request.offset, request.limit, stale)
        answer = engine_pb2.ScanStoredQueriesResponse(
            stored_queries=[each.stored_query for each in records], total=total
        )
        await self._deliveries.show(tenant, answer.stored_queries)
        return answer

    async def ReadStoredQuery(
        self, request: engine_pb2.ReadStoredQueryRequest, context: Any
    ) -> engine_pb2.ReadStoredQueryResponse:
        """Read a stored query."""
        tenant = Tenant(request.namespace_id)
        record = await self._registry.read(tenant, request.percolator_id)
        answer = engine_pb2.ReadStoredQueryResponse(stored_query=record.stored_query, vectors=record.vectors)
        answer.stored_query.stats.CopyFrom(await self._matches.stats(tenant, request.percolator_id))
        await self._deliveries.show(tenant, [answer.stored_query])
        return answer

    async def FindStoredQueries(
        self, request: engine_pb2.FindStoredQueriesRequest, context: Any
    ) -> engine_pb2.FindStoredQueriesResponse:
        """Say which there are."""
        answer = engine_pb2.FindStoredQueriesResponse()
        for record in await self._registry.read_all(Tenant(request.namespace_id), request.percolator_ids):
            stored = record.stored_query
            known = answer.known[stored.percolator_id]
            known.created_at.CopyFrom(stored.created_at)
            if stored.HasField("delivery"):
                known.delivery.CopyFrom(stored.delivery)
        return answer

    async def PercolateAsset(
        self, request: engine_pb2.PercolateAssetRequest, context: Any
    ) -> engine_pb2.PercolateAssetResponse:
        """Match one asset."""
        found = await self._matcher.match(Tenant(request.namespace_id), request.asset)
        answer = engine_pb2.PercolateAssetResponse(stats=found.stats)
        for each in found.found:
            match = answer.matches.add(
                percolator_id=each.percolator_id, name=each.name, score=each.score, metadata=each.metadata
            )
            for index, score in zip(each.vector_indexes, each.query_scores, strict=True):
                match.query_scores.add(vector_index=index, score=score)
        return answer

    async def ScoreAssets(self, request: engine_pb2.ScoreAssetsRequest, context: Any) -> engine_pb2.ScoreAssetsResponse:
        """Score assets by one stored query."""
        record = await self._registry.read(Tenant(request.namespace_id), request.percolator_id)
        return engine_pb2.ScoreAssetsResponse(scores=await asyncio.to_thread(scored, record, request.assets))

    async def MatchPartitions(
        self, request: engine_pb2.MatchPartitionsRequest, context: Any
    ) -> engine_pb2.MatchPartitionsResponse:
        """Match assets for another replica."""
        assets = await self._registry.match_here(
            Tenant(request.namespace_id), request.assets, frozenset(request.partitions)
        )
        return engine_pb2.MatchPartitionsResponse(assets=assets)

    async def ListPartitionKeys(
        self, request: engine_pb2.ListPartitionKeysRequest, context: Any
    ) -> engine_pb2.ListPartitionKeysResponse:
        """List keys for another replica."""
        stale = (int(request.stale_index), request.current_version) if request.stale_index else None
        keys, total = self._registry.keys_here(
            Tenant(request.namespace_id), request.limit, frozenset(request.partitions), stale
        )
        return engine_pb2.ListPartitionKeysResponse(
            percolator_ids=[name for _, name in keys], created_ns=[created for created, _ in keys], total=total
        )

    async def AwaitRevision(
        self, request: engine_pb2.AwaitRevisionRequest, context: Any
    ) -> engine_pb2.AwaitRevisionResponse:
        """Wait for a change, for another replica."""
        await self._registry.seen_here(request.partition, request.revision)
        return engine_pb2.AwaitRevisionResponse()

    async def RemoveStoredQuery(
        self, request: engine_pb2.RemoveStoredQueryRequest, context: Any
    ) -> engine_pb2.RemoveStoredQueryResponse:
        """Remove a stored query."""
        await self._registry.remove(Tenant(request.namespace_id), request.percolator_id)
        await self._deliveries.forget(Tenant(request.namespace_id), request.percolator_id)
        return engine_pb2.RemoveStoredQueryResponse()

    async def ScanMatches(self, request: engine_pb2.ScanMatchesRequest, context: Any) -> engine_pb2.ScanMatchesResponse:
        """List matches."""
        tenant = Tenant(request.namespace_id)
        matches, total = await self._matches.page(tenant, request.query, request.offset, request.limit)
        return engine_pb2.ScanMatchesResponse(matches=matches, total=total)

    async def RemoveMatches(
        self, request: engine_pb2.RemoveMatchesRequest, context: Any
    ) -> engine_pb2.RemoveMatchesResponse:
        """Remove matches."""
        tenant = Tenant(request.namespace_id)
        if request.WhichOneof("which") == "match_id":
            await self._matches.remove_one(tenant, request.match_id)
            return engine_pb2.RemoveMatchesResponse(removed=1)
        removed = await self._matches.remove(tenant, request.collection_id or None, request.asset_id or None)
        return engine_pb2.RemoveMatchesResponse(removed=removed)

    async def ForgetNamespace(
        self, request: engine_pb2.PercolatorEngineServiceForgetNamespaceRequest, context: Any
    ) -> engine_pb2.PercolatorEngineServiceForgetNamespaceResponse:
        """Remove all stored queries and matches."""
        tenant = Tenant(request.namespace_id)
        await self._registry.forget(tenant)
        await self._deliveries.forget_all(tenant)
        await self._matches.remove(tenant, None, None)
        return engine_pb2.PercolatorEngineServiceForgetNamespaceResponse()

    async def QueueDeliveries(
        self, request: engine_pb2.QueueDeliveriesRequest, context: Any
    ) -> engine_pb2.QueueDeliveriesResponse:
        """Send matches again."""
        since = request.since if request.HasField("since") else None
        queued = await self._deliveries.queue(Tenant(request.namespace_id), request.percolator_id, since)
        return engine_pb2.QueueDeliveriesResponse(queued=queued)

    async def FollowMatches(
        self, request: engine_pb2.FollowMatchesRequest, context: Any
    ) -> AsyncIterator[engine_pb2.FollowMatchesResponse]:
        """Follow matches."""
        tenant = Tenant(request.namespace_id)
        async for match, cursor in self._matches.follow(tenant, request.cursor, request.percolator_id or None):
            yield engine_pb2.FollowMatchesResponse(match=match, cursor=cursor)
