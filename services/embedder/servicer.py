"""The gRPC door of the embedder: a translator without logic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from lensmesh.v1 import asset_pb2, embedder_pb2, embedder_pb2_grpc

from services.embedder import rows
from services.embedder.changes import Changes
from services.embedder.generations import Generations
from services.embedder.listing import Listing
from services.embedder.nearest import Nearest
from services.embedder.preview import asset_vectors
from services.embedder.reembed import Reembed
from services.embedder.scan import Scan
from services.embedder.search import search
from services.embedder.store import Store
from services.embedder.vectors import Vectors
from services.mesh.errors import NotFound
from services.mesh.tenancy import Tenant


class EmbedderServicer(embedder_pb2_grpc.EmbedderServiceServicer):
    """Serves lensmesh.v1.EmbedderService."""

    def __init__(
        self,
        vectors: Vectors,
        generations: Generations,
        store: Store,
        nearest: Nearest,
        listing: Listing,
        changes: Changes,
        reembed: Reembed,
    ) -> None:
        self._vectors = vectors
        self._generations = generations
        self._store = store
        self._nearest = nearest
        self._listing = listing
        self._changes = changes
        self._reembed = reembed
        self._scan = Scan(store)

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

    async def EmbedAsset(
        self, request: embedder_pb2.EmbedAssetRequest, context: Any
    ) -> embedder_pb2.EmbedAssetResponse:
        """Vectors of an asset that is not stored."""
        made = await asset_vectors(self._vectors, self._generations, request)
        return embedder_pb2.EmbedAssetResponse(vectors=made)

    def ScanFeatureVectors(
        self, request: embedder_pb2.ScanFeatureVectorsRequest, context: Any
    ) -> AsyncIterator[embedder_pb2.ScanFeatureVectorsResponse]:
        """Send features with their vectors."""
        return self._scan.features(request)

    async def SearchVectors(
        self, request: embedder_pb2.SearchVectorsRequest, context: Any
    ) -> embedder_pb2.SearchVectorsResponse:
        """Search."""
        tenant = Tenant(request.namespace_id)

        async def embed(given: embedder_pb2.EmbedInput) -> embedder_pb2.EmbeddedVector:
            return await self._embed(given, self._generations.active(tenant, given.vector_index))

        return await search(self._store, self._nearest, embed, request)

    async def ReadAsset(self, request: embedder_pb2.ReadAssetRequest, context: Any) -> embedder_pb2.ReadAssetResponse:
        """Read an asset."""
        tenant = Tenant(request.namespace_id)
        asset = await self._store.read_asset(tenant, request.asset_id)
        features = []
        if request.include_features:
            features = await self._store.read_features(
                tenant, request.asset_id, include_vectors=request.include_vectors
            )
        return embedder_pb2.ReadAssetResponse(asset=asset, features=features)

    async def SearchNearDuplicates(
        self, request: embedder_pb2.SearchNearDuplicatesRequest, context: Any
    ) -> embedder_pb2.SearchNearDuplicatesResponse:
        """Find the assets that look like a given one."""
        tenant = Tenant(request.namespace_id)
        asset = await self._store.read_asset(tenant, request.asset_id)
        found = await self._nearest.duplicates(
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
        answer = embedder_pb2.CountAssetsResponse()
        if not request.collection_ids:
            answer.counts[""] = await self._store.count_assets(tenant)
        for each in request.collection_ids:
            here = rows.equals("collection_id", each)
            async for assets in self._store.parts(tenant, rows.ASSET, here, ["size_bytes"]):
                answer.counts[each] += len(assets)
                answer.size_bytes[each] += sum(row["size_bytes"] for row in assets)
        return answer

    async def ScanDocuments(
        self, request: embedder_pb2.ScanDocumentsRequest, context: Any
    ) -> embedder_pb2.ScanDocumentsResponse:
        """List assets or features."""
        return await self._listing.page(Tenant(request.namespace_id), request)

    async def ReadFeature(
        self, request: embedder_pb2.ReadFeatureRequest, context: Any
    ) -> embedder_pb2.ReadFeatureResponse:
        """Read a feature."""
        tenant, feature_id = Tenant(request.namespace_id), request.feature_id
        found = await self._store.features_by_id(tenant, [feature_id], include_vectors=request.include_vectors)
        if feature_id not in found:
            raise NotFound(f"no feature {feature_id!r} in this namespace")
        return embedder_pb2.ReadFeatureResponse(feature=found[feature_id])

    async def WriteAssetMetadata(
        self, request: embedder_pb2.WriteAssetMetadataRequest, context: Any
    ) -> embedder_pb2.WriteAssetMetadataResponse:
        """Change an asset's metadata."""
        asset = await self._changes.write_asset_metadata(
            Tenant(request.namespace_id),
            request.asset_id,
            request.metadata,
            merge=request.merge,
            propagate=request.propagate,
        )
        return embedder_pb2.WriteAssetMetadataResponse(asset=asset)

    async def WriteFeatureMetadata(
        self, request: embedder_pb2.WriteFeatureMetadataRequest, context: Any
    ) -> embedder_pb2.WriteFeatureMetadataResponse:
        """Change a feature's metadata."""
        feature = await self._changes.write_feature_metadata(
            Tenant(request.namespace_id), request.feature_id, request.metadata
        )
        return embedder_pb2.WriteFeatureMetadataResponse(feature=feature)

    async def RemoveAsset(
        self, request: embedder_pb2.RemoveAssetRequest, context: Any
    ) -> embedder_pb2.RemoveAssetResponse:
        """Remove an asset."""
        asset = await self._changes.remove_asset(Tenant(request.namespace_id), request.asset_id)
        return embedder_pb2.RemoveAssetResponse(asset=asset)

    async def RemoveFeature(
        self, request: embedder_pb2.RemoveFeatureRequest, context: Any
    ) -> embedder_pb2.RemoveFeatureResponse:
        """Remove a feature."""
        await self._changes.remove_feature(Tenant(request.namespace_id), request.feature_id)
        return embedder_pb2.RemoveFeatureResponse()

    async def RemoveCollection(
        self, request: embedder_pb2.RemoveCollectionRequest, context: Any
    ) -> embedder_pb2.RemoveCollectionResponse:
        """Remove what a collection holds."""
        assets = await self._changes.remove_collection(Tenant(request.namespace_id), request.collection_id)
        return embedder_pb2.RemoveCollectionResponse(assets=assets)

    async def DropNamespace(
        self, request: embedder_pb2.DropNamespaceRequest, context: Any
    ) -> embedder_pb2.DropNamespaceResponse:
        """Remove what a namespace holds."""
        await self._changes.drop_namespace(Tenant(request.namespace_id))
        return embedder_pb2.DropNamespaceResponse()

    async def DescribeIndexes(
        self, request: embedder_pb2.DescribeIndexesRequest, context: Any
    ) -> embedder_pb2.DescribeIndexesResponse:
        """Say what each index holds."""
        tenant = Tenant(request.namespace_id)
        return embedder_pb2.DescribeIndexesResponse(
            vector_indexes=self._generations.kinds(tenant), lasting=self._generations.lasting_kinds(tenant)
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
