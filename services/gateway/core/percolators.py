"""Stores queries and reads matches; the percolator service owns both."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

from lensmesh.v1 import engine_pb2, engine_pb2_grpc, match_pb2, percolator_pb2

from services.gateway.auth import Caller
from services.gateway.config import GatewaySettings
from services.gateway.core.collections import Collections
from services.gateway.core.deliveries import Deliveries
from services.gateway.core.files import Files
from services.gateway.core.paging import page_of, pagination
from services.gateway.core.queries import Queries
from services.gateway.core.stored import check, check_vectors, full, most, record_of
from services.mesh.filters import from_proto


class Percolators:
    """The stored queries and matches of the caller's namespace."""

    def __init__(
        self,
        engine: engine_pb2_grpc.PercolatorEngineServiceAsyncStub,
        queries: Queries,
        collections: Collections,
        files: Files,
        deliveries: Deliveries,
        settings: GatewaySettings,
    ) -> None:
        self._files = files
        self._deliveries = deliveries
        self._settings = settings
        self._engine = engine
        self._queries = queries
        self._collections = collections

    async def create(
        self, caller: Caller, request: percolator_pb2.CreateStoredQueryRequest
    ) -> percolator_pb2.CreateStoredQueryResponse:
        """Store a query: when this returns, new assets are matched against it."""
        await self._check_room(caller)
        record = await self._record(caller, request, str(uuid.uuid4()))
        await self._engine.PutStoredQuery(engine_pb2.PutStoredQueryRequest(record=record))
        return percolator_pb2.CreateStoredQueryResponse(percolator_id=record.stored_query.percolator_id)

    async def replace(
        self, caller: Caller, request: percolator_pb2.ReplaceStoredQueryRequest
    ) -> percolator_pb2.ReplaceStoredQueryResponse:
        """Replace a stored query: when this returns, new assets are matched against the new one."""
        known = await self._read(caller, request.percolator_id)
        record = await self._record(caller, request, request.percolator_id)
        record.stored_query.created_at.CopyFrom(known.stored_query.created_at)
        await self._engine.PutStoredQuery(engine_pb2.PutStoredQueryRequest(record=record, replace=True))
        return percolator_pb2.ReplaceStoredQueryResponse(stored_query=record.stored_query)

    async def update(
        self, caller: Caller, request: percolator_pb2.UpdateStoredQueryRequest
    ) -> percolator_pb2.UpdateStoredQueryResponse:
        """Change a stored query: when this returns, new assets are matched, or not, as it says."""
        known = await self._read(caller, request.percolator_id)
        stored = known.stored_query
        if request.HasField("enabled"):
            stored.enabled = request.enabled
            record = engine_pb2.StoredQueryRecord(
                namespace_id=caller.tenant.namespace_id, stored_query=stored, vectors=known.vectors
            )
            # Its webhook, shown without its secret, goes on as it was.
            record.stored_query.ClearField("stats")
            await self._engine.PutStoredQuery(engine_pb2.PutStoredQueryRequest(record=record, replace=True))
        return percolator_pb2.UpdateStoredQueryResponse(stored_query=stored)

    async def list(
        self, caller: Caller, request: percolator_pb2.ListStoredQueriesRequest
    ) -> percolator_pb2.ListStoredQueriesResponse:
        """List stored queries, oldest first."""
        offset, size = page_of(request.page, request.page_size)
        answer = await self._engine.ScanStoredQueries(
            engine_pb2.ScanStoredQueriesRequest(namespace_id=caller.tenant.namespace_id, offset=offset, limit=size)
        )
        return percolator_pb2.ListStoredQueriesResponse(
            results=answer.stored_queries, pagination=pagination(answer.total, offset, size)
        )

    async def get(
        self, caller: Caller, request: percolator_pb2.GetStoredQueryRequest
    ) -> percolator_pb2.GetStoredQueryResponse:
        """Read a stored query."""
        answer = await self._read(caller, request.percolator_id)
        if request.include_vectors:
            answer.stored_query.vectors.extend(each.vector for each in answer.vectors)
        return percolator_pb2.GetStoredQueryResponse(stored_query=answer.stored_query)

    async def delete(
        self, caller: Caller, request: percolator_pb2.DeleteStoredQueryRequest
    ) -> percolator_pb2.DeleteStoredQueryResponse:
        """Delete a stored query: when this returns, it is matched no more."""
        await self._engine.RemoveStoredQuery(
            engine_pb2.RemoveStoredQueryRequest(
                namespace_id=caller.tenant.namespace_id, percolator_id=request.percolator_id
            )
        )
        return percolator_pb2.DeleteStoredQueryResponse(percolator_id=request.percolator_id, deleted=True)

    async def matches(self, caller: Caller, request: match_pb2.ListMatchesRequest) -> match_pb2.ListMatchesResponse:
        """List matches, newest first."""
        from_proto(request.filters)
        offset, size = page_of(request.page, request.page_size)
        query = match_pb2.ListMatchesRequest()
        query.CopyFrom(request)
        query.collection_ids[:] = self._collections.find_all(caller.tenant, list(request.collection_ids))
        answer = await self._engine.ScanMatches(
            engine_pb2.ScanMatchesRequest(
                namespace_id=caller.tenant.namespace_id, query=query, offset=offset, limit=size
            )
        )
        return match_pb2.ListMatchesResponse(results=answer.matches, pagination=pagination(answer.total, offset, size))

    async def delete_match(
        self, caller: Caller, request: match_pb2.DeleteMatchRequest
    ) -> match_pb2.DeleteMatchResponse:
        """Delete a match."""
        await self._engine.RemoveMatches(
            engine_pb2.RemoveMatchesRequest(namespace_id=caller.tenant.namespace_id, match_id=request.match_id)
        )
        return match_pb2.DeleteMatchResponse(match_id=request.match_id, deleted=True)

    async def watch(
        self, caller: Caller, request: match_pb2.WatchMatchesRequest
    ) -> AsyncIterator[match_pb2.WatchMatchesResponse]:
        """Matches as they are made, from a cursor on."""
        following = engine_pb2.FollowMatchesRequest(
            namespace_id=caller.tenant.namespace_id,
            cursor=request.cursor,
            percolator_id=request.percolator_id,
        )
        return self._watch(following)

    async def _watch(self, following: engine_pb2.FollowMatchesRequest) -> AsyncIterator[match_pb2.WatchMatchesResponse]:
        async for answer in self._engine.FollowMatches(following):
            yield match_pb2.WatchMatchesResponse(match=answer.match, cursor=answer.cursor)

    async def _read(self, caller: Caller, percolator_id: str) -> engine_pb2.ReadStoredQueryResponse:
        return await self._engine.ReadStoredQuery(
            engine_pb2.ReadStoredQueryRequest(namespace_id=caller.tenant.namespace_id, percolator_id=percolator_id)
        )

    async def _check_room(self, caller: Caller) -> None:
        limit = most(caller, self._settings)
        answer = await self._engine.ScanStoredQueries(
            engine_pb2.ScanStoredQueriesRequest(namespace_id=caller.tenant.namespace_id)
        )
        if answer.total >= limit:
            raise full(answer.total, limit)

    async def _record(
        self,
        caller: Caller,
        request: percolator_pb2.CreateStoredQueryRequest | percolator_pb2.ReplaceStoredQueryRequest,
        percolator_id: str,
    ) -> engine_pb2.StoredQueryRecord:
        """A stored query with its vectors, checked."""
        self._deliveries.check(request)
        check(request, self._files)
        vectors = await self._queries.vectors(caller, request.queries, stored=True)
        check_vectors(request.queries, vectors)
        collection_ids = await asyncio.gather(
            *(
                self._collections.find_or_create(caller, name, f"collection_ids.{position}")
                for position, name in enumerate(request.collection_ids)
            )
        )
        kept = await self._queries.kept(caller, request.queries)
        record = record_of(caller, request, percolator_id, collection_ids, kept, vectors)
        self._deliveries.put(record, request)
        return record
