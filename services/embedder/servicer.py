"""The gRPC door of the embedder: a translator without logic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from lensmesh.v1 import asset_pb2, embedder_pb2, embedder_pb2_grpc

from services.embedder.generations import Generations
from services.embedder.reembed import Reembed
from services.embedder.search import search
from services.embedder.store import Store
from services.embedder.vectors import Vectors
from services.mesh.tenancy import Tenant


class EmbedderServicer(embedder_pb2_grpc.EmbedderServiceServicer):
    """Serves lensmesh.v1.EmbedderService."""

    def __init__(self, vectors: Vectors, generations: Generations, store: Store, reembed: Reembed) -> None:
        self._vectors = vectors
        self._generations = generations
        self._store = store
        self._reembed = reembed

    async def EmbedInputs(
        self, request: embedder_pb2.EmbedInputsRequest, context: Any
    ) -> embedder_pb2.EmbedInputsResponse:
        """Vectors of queries."""
        tenant = Tenant(request.namespace_id)
        chosen = self._generations.lasting if request.lasting else self._generations.active
        made = await asyncio.gather(*(self._embed(each, chosen(tenant, each.vector_index)) for each in request.inputs))
        return embedder_pb2.EmbedInputsResponse(vectors=made)

    async def _embed(self, given: embedder_pb2.EmbedInput, version: str) -> embedder_pb2.EmbeddedVector:
        kind = given.WhichOneof("input")
        if kind == "text":
            return await self._vectors.of_text(given.vector_index, given.text, version, query=True)
        if kind == "image":
            return await self._vectors.of_image(given.vector_index, given.image, version)
        return self._vectors.given(given.vector_index, given.vector, version)

    async def SearchVectors(
        self, request: embedder_pb2.SearchVectorsRequest, context: Any
    ) -> embedder_pb2.SearchVectorsResponse:
        """Search."""
        features, total = await search(self._store, request)
        return embedder_pb2.SearchVectorsResponse(features=features, total=total)

    async def ReadAsset(self, request: embedder_pb2.ReadAssetRequest, context: Any) -> embedder_pb2.ReadAssetResponse:
        """Read an asset."""
        tenant = Tenant(request.namespace_id)
        asset = await self._store.read_asset(tenant, request.asset_id)
        features = await self._store.read_features(tenant, request.asset_id) if request.include_features else []
        return embedder_pb2.ReadAssetResponse(asset=asset, features=features)

    async def SearchNearDuplicates(
        self, request: embedder_pb2.SearchNearDuplicatesRequest, context: Any
    ) -> embedder_pb2.SearchNearDuplicatesResponse:
        """Find the assets that look like a given one."""
        tenant = Tenant(request.namespace_id)
        asset = await self._store.read_asset(tenant, request.asset_id)
        found = await self._store.near_duplicates(
            tenant, asset, request.collection_ids, request.max_distance, request.limit
        )
        results = [asset_pb2.NearDuplicate(asset=each, distance=distance) for each, distance in found]
        return embedder_pb2.SearchNearDuplicatesResponse(results=results)

    async def ReadFeatureVectors(
        self, request: embedder_pb2.ReadFeatureVectorsRequest, context: Any
    ) -> embedder_pb2.ReadFeatureVectorsResponse:
        """Read a feature with its vectors."""
        feature, vectors = await self._store.read_feature(Tenant(request.namespace_id), request.feature_id)
        return embedder_pb2.ReadFeatureVectorsResponse(feature=feature, vectors=vectors)

    async def CountAssets(
        self, request: embedder_pb2.CountAssetsRequest, context: Any
    ) -> embedder_pb2.CountAssetsResponse:
        """Count the assets of collections."""
        tenant = Tenant(request.namespace_id)
        counts = {each: await self._store.count_assets(tenant, each) for each in request.collection_ids}
        return embedder_pb2.CountAssetsResponse(counts=counts)

    async def DescribeIndexes(
        self, request: embedder_pb2.DescribeIndexesRequest, context: Any
    ) -> embedder_pb2.DescribeIndexesResponse:
        """Say what each index holds."""
        return embedder_pb2.DescribeIndexesResponse(
            vector_indexes=self._generations.kinds(Tenant(request.namespace_id))
        )

    async def BuildGeneration(
        self, request: embedder_pb2.BuildGenerationRequest, context: Any
    ) -> AsyncIterator[embedder_pb2.BuildGenerationResponse]:
        """Make the vectors that an index lacks."""
        async for progress in self._reembed.build(Tenant(request.namespace_id), request.vector_index):
            yield embedder_pb2.BuildGenerationResponse(progress=progress)

    async def SwitchGeneration(
        self, request: embedder_pb2.SwitchGenerationRequest, context: Any
    ) -> embedder_pb2.SwitchGenerationResponse:
        """Search by the model in use now."""
        await self._reembed.switch(Tenant(request.namespace_id), request.vector_index)
        return embedder_pb2.SwitchGenerationResponse()
