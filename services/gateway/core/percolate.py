"""Matches something against the stored queries as if it were indexed, and stores nothing."""

from __future__ import annotations

import asyncio

from lensmesh.v1 import embedder_pb2, embedder_pb2_grpc, engine_pb2, engine_pb2_grpc, feature_pb2
from lensmesh.v1 import percolator_pb2 as api
from lensmesh.v1 import pipeline_pb2 as pipeline

from services.gateway.auth import Caller
from services.gateway.core.collections import Collections
from services.gateway.core.files import Files
from services.gateway.core.queries import Queries

# As `percolate.max_candidates` of an index request.
CANDIDATES_DEFAULT = 100


class Percolate:
    """Matches without indexing."""

    def __init__(
        self,
        engine: engine_pb2_grpc.PercolatorEngineServiceAsyncStub,
        embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub,
        queries: Queries,
        collections: Collections,
        files: Files,
    ) -> None:
        self._engine = engine
        self._embedder = embedder
        self._queries = queries
        self._collections = collections
        self._files = files

    async def run(self, caller: Caller, request: api.PercolateRequest) -> api.PercolateResponse:
        """The stored queries that an asset of these inputs would match."""
        tenant = caller.tenant
        collection_id = self._collections.find(tenant, request.collection_id, "collection_id")
        self._files.check_metadata(request.metadata)
        inputs = await asyncio.gather(
            *(self._queries.input(caller, _query(each), f"inputs.{n}") for n, each in enumerate(request.inputs))
        )
        embedded = await self._embedder.EmbedAsset(
            embedder_pb2.EmbedAssetRequest(namespace_id=tenant.namespace_id, inputs=inputs, metadata=request.metadata)
        )
        job = pipeline.PercolateJob(
            collection_id=collection_id,
            metadata=request.metadata,
            vectors=embedded.vectors,
            # As those that come by `/index/text`.
            modality="text" if all(each.type == feature_pb2.QUERY_TYPE_TEXT for each in request.inputs) else "image",
        )
        asset = engine_pb2.PercolatedAsset(job=job, limit=request.max_candidates or CANDIDATES_DEFAULT)
        if request.HasField("min_score"):
            asset.min_score = request.min_score
        found = await self._engine.PercolateAsset(
            engine_pb2.PercolateAssetRequest(namespace_id=tenant.namespace_id, asset=asset)
        )
        return api.PercolateResponse(matches=found.matches, stats=found.stats)


def _query(given: api.PercolateInput) -> feature_pb2.SearchQuery:
    return feature_pb2.SearchQuery(
        vector_index=given.vector_index, type=given.type, value=given.value, vector=given.vector
    )
