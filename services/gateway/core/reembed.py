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
from services.mesh.errors import InvalidArgument, LensmeshError, Unavailable

# Stored queries read at a time.
_PAGE = 100


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
                # A run that broke off after the switch may have left some.
                async for _ in self._stored_queries(caller, progress):
                    yield api.ReembedResponse(progress=progress)
                continue
            progress.phase = api.REEMBED_PHASE_STORED_QUERIES
            async for _ in self._stored_queries(caller, progress):
                yield api.ReembedResponse(progress=progress)
            if progress.failed and not accept_failures:
                progress.phase = api.REEMBED_PHASE_NOT_SWITCHED
            else:
                await self._embedder.SwitchGeneration(
                    embedder_pb2.SwitchGenerationRequest(namespace_id=caller.tenant.namespace_id, vector_index=index)
                )
                # One whose vectors were made before the build began may have been stored after the others were done.
                late = api.ReembedProgress(vector_index=index, to_version=progress.to_version)
                async for _ in self._stored_queries(caller, late):
                    yield api.ReembedResponse(progress=progress)
                progress.made += late.made
                progress.phase = api.REEMBED_PHASE_SWITCHED
            yield api.ReembedResponse(progress=progress)

    async def _stored_queries(self, caller: Caller, progress: api.ReembedProgress) -> AsyncIterator[None]:
        """Give the stored queries that look into this index their new vectors; yields after each page of them."""
        done = failed = 0
        while True:
            # Those that are done are not stale any more; those that failed stand before the others.
            page = await self._engine.ScanStoredQueries(
                engine_pb2.ScanStoredQueriesRequest(
                    namespace_id=caller.tenant.namespace_id,
                    offset=failed,
                    limit=_PAGE,
                    stale_index=progress.vector_index,
                    current_version=progress.to_version,
                )
            )
            if not page.stored_queries:
                return
            for stored in page.stored_queries:
                failed += not await self._stored_query(caller, stored, progress)
            done += len(page.stored_queries)
            progress.share = min(done / (done + page.total - failed), 1.0)
            yield

    async def _stored_query(
        self, caller: Caller, stored: percolator_pb2.StoredQuery, progress: api.ReembedProgress
    ) -> bool:
        """Give one stored query its new vectors; False when that can't be done."""
        try:
            given = [query for query in stored.queries if query.vector_index == progress.vector_index]
            if any(query.type == QUERY_TYPE_VECTOR for query in given):
                raise InvalidArgument.field("queries", "a vector that was given can't be made anew", "query.vector")
            queries = await self._queries.restored(caller, stored.queries)
            vectors = await self._queries.vectors(caller, queries, stored=True)
        except LensmeshError as error:
            if isinstance(error, Unavailable):
                # The mesh's own trouble, which passes: the run ends, and is started again.
                raise
            progress.failed += 1
            progress.last_error = f"stored query {stored.percolator_id}: {error.message}"
            return False
        record = engine_pb2.StoredQueryRecord(
            namespace_id=caller.tenant.namespace_id, stored_query=stored, vectors=vectors
        )
        try:
            await self._engine.PutStoredQuery(engine_pb2.PutStoredQueryRequest(record=record, replace=True))
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
            return True  # Deleted meanwhile.
        progress.made += 1
        return True
