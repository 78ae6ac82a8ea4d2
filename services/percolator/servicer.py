"""The gRPC door of the percolator: a translator without logic."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from lensmesh.v1 import engine_pb2, engine_pb2_grpc

from services.mesh.errors import Unimplemented
from services.mesh.tenancy import Tenant
from services.percolator.delivery_control import DeliveryControl
from services.percolator.matches import Matches
from services.percolator.registry import Registry, is_stale


class PercolatorEngineServicer(engine_pb2_grpc.PercolatorEngineServiceServicer):
    """Serves lensmesh.v1.PercolatorEngineService."""

    def __init__(self, registry: Registry, matches: Matches, deliveries: DeliveryControl) -> None:
        self._registry = registry
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

    async def ScanStoredQueries(
        self, request: engine_pb2.ScanStoredQueriesRequest, context: Any
    ) -> engine_pb2.ScanStoredQueriesResponse:
        """List stored queries."""
        records = self._registry.all(Tenant(request.namespace_id))
        if request.stale_index:
            records = [each for each in records if is_stale(each, request.stale_index, request.current_version)]
        page = records[request.offset : request.offset + request.limit]
        answer = engine_pb2.ScanStoredQueriesResponse(
            stored_queries=[each.stored_query for each in page], total=len(records)
        )
        await self._deliveries.show(Tenant(request.namespace_id), answer.stored_queries)
        return answer

    async def ReadStoredQuery(
        self, request: engine_pb2.ReadStoredQueryRequest, context: Any
    ) -> engine_pb2.ReadStoredQueryResponse:
        """Read a stored query."""
        record = self._registry.get(Tenant(request.namespace_id), request.percolator_id)
        answer = engine_pb2.ReadStoredQueryResponse(stored_query=record.stored_query, vectors=record.vectors)
        await self._deliveries.show(Tenant(request.namespace_id), [answer.stored_query])
        return answer

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

    async def PutStoredQueries(
        self, request: engine_pb2.PutStoredQueriesRequest, context: Any
    ) -> engine_pb2.PutStoredQueriesResponse:
        """Still to come."""
        raise Unimplemented("is not offered yet")

    async def PercolateAsset(
        self, request: engine_pb2.PercolateAssetRequest, context: Any
    ) -> engine_pb2.PercolateAssetResponse:
        """Still to come."""
        raise Unimplemented("is not offered yet")

    async def ScoreAssets(self, request: engine_pb2.ScoreAssetsRequest, context: Any) -> engine_pb2.ScoreAssetsResponse:
        """Still to come."""
        raise Unimplemented("is not offered yet")

    async def MatchPartitions(
        self, request: engine_pb2.MatchPartitionsRequest, context: Any
    ) -> engine_pb2.MatchPartitionsResponse:
        """Still to come."""
        raise Unimplemented("is not offered yet")

    async def ListPartitionKeys(
        self, request: engine_pb2.ListPartitionKeysRequest, context: Any
    ) -> engine_pb2.ListPartitionKeysResponse:
        """Still to come."""
        raise Unimplemented("is not offered yet")

    async def AwaitRevision(
        self, request: engine_pb2.AwaitRevisionRequest, context: Any
    ) -> engine_pb2.AwaitRevisionResponse:
        """Still to come."""
        raise Unimplemented("is not offered yet")

    async def ExportRecords(
        self, request: engine_pb2.ExportRecordsRequest, context: Any
    ) -> AsyncIterator[engine_pb2.ExportRecordsResponse]:
        """Still to come."""
        raise Unimplemented("is not offered yet")
        yield
