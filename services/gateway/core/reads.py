"""Searches features and reads assets."""

from __future__ import annotations

from lensmesh.v1 import asset_pb2, embedder_pb2, embedder_pb2_grpc, feature_pb2

from services.gateway.auth import Caller
from services.gateway.core.namespaces import Collections
from services.gateway.core.paging import PAGE_SIZE_DEFAULT, search_pagination
from services.gateway.core.queries import Queries
from services.mesh.filters import from_proto

# Candidates of one query when it does not say how many.
LIMIT_DEFAULT = 100
# Bits of 64: a picture resized or recompressed differs in at most about 6, two different ones in 24 or more.
MAX_DISTANCE_DEFAULT = 10
NEAR_DUPLICATES_DEFAULT = 20


class Reads:
    """What the caller's namespace holds."""

    def __init__(
        self, embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub, queries: Queries, collections: Collections
    ) -> None:
        self._embedder = embedder
        self._queries = queries
        self._collections = collections

    async def search(
        self, caller: Caller, request: feature_pb2.SearchFeaturesRequest
    ) -> feature_pb2.SearchFeaturesResponse:
        """Search one or several indexes."""
        collection_ids = self._collections.find_all(caller.tenant, list(request.collection_ids))
        from_proto(request.filters)
        for position, query in enumerate(request.queries):
            from_proto(query.filters, path=("body", "queries", position, "filters"))
        vectors = await self._queries.vectors(caller, request.queries)
        size = request.page_size or PAGE_SIZE_DEFAULT
        answer = await self._embedder.SearchVectors(
            embedder_pb2.SearchVectorsRequest(
                namespace_id=caller.tenant.namespace_id,
                collection_ids=collection_ids,
                queries=[
                    embedder_pb2.VectorQuery(
                        query=vector,
                        filters=query.filters if query.HasField("filters") else None,
                        limit=query.settings.limit or LIMIT_DEFAULT,
                        min_score=query.settings.min_score,
                    )
                    for query, vector in zip(request.queries, vectors, strict=True)
                ],
                filters=request.filters if request.HasField("filters") else None,
                offset=request.offset_position,
                limit=size,
            )
        )
        return feature_pb2.SearchFeaturesResponse(
            results=answer.features, pagination=search_pagination(answer.total, request.offset_position, size)
        )

    async def get_asset(self, caller: Caller, request: asset_pb2.GetAssetRequest) -> asset_pb2.GetAssetResponse:
        """Read an asset."""
        answer = await self._embedder.ReadAsset(
            embedder_pb2.ReadAssetRequest(namespace_id=caller.tenant.namespace_id, asset_id=request.asset_id)
        )
        return asset_pb2.GetAssetResponse(asset=answer.asset)

    async def get_asset_features(
        self, caller: Caller, request: asset_pb2.GetAssetFeaturesRequest
    ) -> asset_pb2.GetAssetFeaturesResponse:
        """Read an asset with its features."""
        answer = await self._embedder.ReadAsset(
            embedder_pb2.ReadAssetRequest(
                namespace_id=caller.tenant.namespace_id, asset_id=request.asset_id, include_features=True
            )
        )
        features = asset_pb2.FeaturesByModality(image=answer.features)
        return asset_pb2.GetAssetFeaturesResponse(asset=answer.asset, features=features)

    async def find_near_duplicates(
        self, caller: Caller, request: asset_pb2.FindNearDuplicatesRequest
    ) -> asset_pb2.FindNearDuplicatesResponse:
        """Find the assets that look like a given one."""
        collection_ids = self._collections.find_all(caller.tenant, list(request.collection_ids))
        max_distance = request.max_distance if request.HasField("max_distance") else MAX_DISTANCE_DEFAULT
        answer = await self._embedder.SearchNearDuplicates(
            embedder_pb2.SearchNearDuplicatesRequest(
                namespace_id=caller.tenant.namespace_id,
                asset_id=request.asset_id,
                collection_ids=collection_ids,
                max_distance=max_distance,
                limit=request.limit or NEAR_DUPLICATES_DEFAULT,
            )
        )
        return asset_pb2.FindNearDuplicatesResponse(results=answer.results)
