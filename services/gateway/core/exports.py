"""Sends every stored query as an import takes it: with its vectors, and its inline images in base64 again."""

from __future__ import annotations

from collections.abc import AsyncIterator

from lensmesh.v1 import engine_pb2, engine_pb2_grpc
from lensmesh.v1 import percolator_pb2 as api

from services.gateway.auth import Caller
from services.gateway.core.queries import Queries


class Exports:
    """Exports stored queries in constant memory: percolator sends parts as fast as the caller takes them."""

    def __init__(self, engine: engine_pb2_grpc.PercolatorEngineServiceAsyncStub, queries: Queries) -> None:
        self._engine = engine
        self._queries = queries

    async def run(
        self, caller: Caller, request: api.ExportStoredQueriesRequest
    ) -> AsyncIterator[api.ExportStoredQueriesResponse]:
        """All stored queries of the caller's namespace, in no particular order."""
        return self._run(caller)

    async def _run(self, caller: Caller) -> AsyncIterator[api.ExportStoredQueriesResponse]:
        parts = self._engine.ExportRecords(engine_pb2.ExportRecordsRequest(namespace_id=caller.tenant.namespace_id))
        try:
            async for part in parts:
                for record in part.records:
                    yield api.ExportStoredQueriesResponse(stored_query=await self._portable(caller, record))
        finally:
            # Whoever hangs up ends the reading.
            parts.cancel()

    async def _portable(self, caller: Caller, record: engine_pb2.StoredQueryRecord) -> api.PortableStoredQuery:
        stored = record.stored_query
        portable = api.PortableStoredQuery(
            percolator_id=stored.percolator_id,
            collection_ids=stored.collection_ids,
            queries=await self._queries.restored(caller, stored.queries),
            metadata=stored.metadata,
            min_score=stored.min_score,
            enabled=stored.enabled,
            created_at=stored.created_at,
            vectors=[
                api.ExportedVector(model_version=each.model_version, vector=each.vector) for each in record.vectors
            ],
        )
        if stored.name:
            portable.name = stored.name
        if stored.HasField("filters"):
            portable.filters.CopyFrom(stored.filters)
        if stored.HasField("expires_at"):
            portable.expires_at.CopyFrom(stored.expires_at)
        return portable
