"""Embeds a namespace anew: the assets' vectors by embedder, the stored queries' here, then the switch.

How one index's vectors are made and switched, embedder knows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
from lensmesh.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc, engine_pb2, engine_pb2_grpc, percolator_pb2
from lensmesh.v1 import namespace_pb2 as api
from lensmesh.v1.feature_pb2 import QUERY_TYPE_VECTOR

from services.gateway.auth import Caller
from services.gateway.core.queries import Queries
from services.mesh.bus.tasks import now
from services.mesh.errors import InvalidArgument, LensmeshError, NotFound
from services.mesh.rpc import from_rpc_error

# Stored queries read at a time.
_PAGE = 100
_CLOCK_S = 60


class Reembed:
    """Runs while its caller listens; started again, it goes on where it was."""

    def __init__(
        self,
        embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub,
        engine: engine_pb2_grpc.PercolatorEngineServiceAsyncStub,
        queries: Queries,
    ) -> None:
        self._embedder = embedder
        self._engine = engine
        self._queries = queries

    async def run(self, caller: Caller, request: api.ReembedRequest) -> AsyncIterator[api.ReembedResponse]:
        """Embed the caller's namespace anew, one index after the other."""
        indexes = list(request.vector_indexes) or list(caller.namespace.vector_indexes)
        for position, index in enumerate(indexes):
            if index not in caller.namespace.vector_indexes:
                raise InvalidArgument.field(
                    f"vector_indexes.{position}", "is not an index of this namespace", "namespace.index"
                )
        return self._run(caller, indexes, accept_failures=request.accept_failures)

    async def _run(
        self, caller: Caller, indexes: list[common_pb2.VectorIndex.ValueType], *, accept_failures: bool
    ) -> AsyncIterator[api.ReembedResponse]:
        for index in indexes:
            # Clocks of several gateways differ a little.
            began = now().ToSeconds() - _CLOCK_S
            asked = embedder_pb2.BuildGenerationRequest(namespace_id=caller.tenant.namespace_id, vector_index=index)
            progress = api.ReembedProgress(vector_index=index)
            building = self._embedder.BuildGeneration(asked)
            try:
                async for answer in building:
                    progress = answer.progress
                    yield api.ReembedResponse(progress=progress)
            finally:
                # Whoever hangs up ends the work; started again, it goes on.
                building.cancel()
            if progress.phase == api.REEMBED_PHASE_UNCHANGED:
                continue
            progress.phase = api.REEMBED_PHASE_STORED_QUERIES
            async for told in self._stored_queries(caller, index, progress, since_s=0):
                yield told
            if progress.failed and not accept_failures:
                progress.phase = api.REEMBED_PHASE_NOT_SWITCHED
            else:
                await self._embedder.SwitchGeneration(
                    embedder_pb2.SwitchGenerationRequest(namespace_id=caller.tenant.namespace_id, vector_index=index)
                )
                # One whose vectors were made before the build began may have been stored after it was passed by.
                async for _ in self._stored_queries(caller, index, api.ReembedProgress(), since_s=began):
                    pass
                progress.phase = api.REEMBED_PHASE_SWITCHED
            yield api.ReembedResponse(progress=progress)

    async def _stored_queries(
        self,
        caller: Caller,
        index: common_pb2.VectorIndex.ValueType,
        progress: api.ReembedProgress,
        *,
        since_s: int,
    ) -> AsyncIterator[api.ReembedResponse]:
        """Give the stored queries that look into this index, stored since that second, their new vectors."""
        offset, total = 0, 1
        while offset < total:
            page = await self._engine.ScanStoredQueries(
                engine_pb2.ScanStoredQueriesRequest(namespace_id=caller.tenant.namespace_id, offset=offset, limit=_PAGE)
            )
            for stored in page.stored_queries:
                looks = any(query.vector_index == index for query in stored.queries)
                if looks and stored.created_at.ToSeconds() >= since_s:
                    await self._stored_query(caller, index, stored, progress)
            offset, total = offset + _PAGE, page.total
            progress.share = min(offset / total, 1.0) if total else 1.0
            yield api.ReembedResponse(progress=progress)

    async def _stored_query(
        self,
        caller: Caller,
        index: common_pb2.VectorIndex.ValueType,
        stored: percolator_pb2.StoredQuery,
        progress: api.ReembedProgress,
    ) -> None:
        try:
            if any(query.vector_index == index and query.type == QUERY_TYPE_VECTOR for query in stored.queries):
                raise InvalidArgument.field("queries", "a vector that was given can't be made anew", "query.vector")
            vectors = await self._queries.vectors(caller, stored.queries, stored=True)
            record = engine_pb2.StoredQueryRecord(
                namespace_id=caller.tenant.namespace_id, stored_query=stored, vectors=vectors
            )
            await self._engine.PutStoredQuery(engine_pb2.PutStoredQueryRequest(record=record, replace=True))
        except (LensmeshError, grpc.aio.AioRpcError) as error:
            known = from_rpc_error(error, "percolator") if isinstance(error, grpc.aio.AioRpcError) else error
            if isinstance(known, NotFound):
                return  # Deleted meanwhile.
            progress.failed += 1
            progress.last_error = f"stored query {stored.percolator_id}: {known.message}"
        else:
            progress.made += 1
