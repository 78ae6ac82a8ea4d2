"""The assets of the caller's namespace: read, listed, changed, deleted. The embedder owns them."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.struct_pb2 import Struct
from lensmesh.v1 import asset_pb2, embedder_pb2, embedder_pb2_grpc, engine_pb2, engine_pb2_grpc, feature_pb2

from services.gateway.auth import Caller
from services.gateway.core.arrangement import arrangement
from services.gateway.core.collections import Collections
from services.gateway.core.files import Files
from services.gateway.core.links import Links
from services.gateway.core.paging import page_of, pagination
from services.mesh.filters import from_proto

# Bits of 64: a picture resized or recompressed differs in at most about 6, two different ones in 24 or more.
MAX_DISTANCE_DEFAULT = 10
NEAR_DUPLICATES_DEFAULT = 20


class Assets:
    """What the caller's namespace holds."""

    def __init__(
        self,
        embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub,
        percolator: engine_pb2_grpc.PercolatorEngineServiceAsyncStub,
        collections: Collections,
        files: Files,
        links: Links,
    ) -> None:
        self._embedder = embedder
        self._percolator = percolator
        self._collections = collections
        self._files = files
        self._links = links

    async def get(self, caller: Caller, request: asset_pb2.GetAssetRequest) -> asset_pb2.GetAssetResponse:
        """Read an asset."""
        answer = await self._embedder.ReadAsset(
            embedder_pb2.ReadAssetRequest(namespace_id=caller.tenant.namespace_id, asset_id=request.asset_id)
        )
        if request.return_url:
            self._link(caller, [answer.asset])
        return asset_pb2.GetAssetResponse(asset=answer.asset)

    async def get_features(
        self, caller: Caller, request: asset_pb2.GetAssetFeaturesRequest
    ) -> asset_pb2.GetAssetFeaturesResponse:
        """Read an asset with its features."""
        answer = await self._embedder.ReadAsset(
            embedder_pb2.ReadAssetRequest(
                namespace_id=caller.tenant.namespace_id,
                asset_id=request.asset_id,
                include_features=True,
                include_vectors=request.include_vectors,
            )
        )
        if request.return_url:
            self._link(caller, [answer.asset, *answer.features])
        features = asset_pb2.FeaturesByModality(
            image=[each for each in answer.features if each.modality == "image"],
            text=[each for each in answer.features if each.modality == "text"],
        )
        return asset_pb2.GetAssetFeaturesResponse(asset=answer.asset, features=features)

    async def list(self, caller: Caller, request: asset_pb2.ListAssetsRequest) -> asset_pb2.ListAssetsResponse:
        """List assets, newest first unless sorted."""
        offset, size = page_of(request.page, request.page_size)
        scan = self._scan(caller, request, offset, size)
        scan.arrangement.CopyFrom(
            arrangement(
                request.sort if request.HasField("sort") else None,
                request.group_by if request.HasField("group_by") else None,
            )
        )
        answer = await self._embedder.ScanDocuments(scan)
        if request.return_url:
            self._link(caller, [*answer.assets, *(each for group in answer.asset_groups for each in group.assets)])
        return asset_pb2.ListAssetsResponse(
            results=answer.assets, groups=answer.asset_groups, pagination=pagination(answer.total, offset, size)
        )

    async def search(self, caller: Caller, request: asset_pb2.SearchAssetsRequest) -> asset_pb2.SearchAssetsResponse:
        """Find assets by the words of their metadata."""
        offset, size = page_of(request.page, request.page_size)
        scan = self._scan(caller, request, offset, size)
        scan.arrangement.CopyFrom(arrangement(request.sort if request.HasField("sort") else None, None))
        if request.HasField("query"):
            scan.words.CopyFrom(request.query)
        answer = await self._embedder.ScanDocuments(scan)
        if request.return_url:
            self._link(caller, answer.assets)
        return asset_pb2.SearchAssetsResponse(results=answer.assets, pagination=pagination(answer.total, offset, size))

    async def replace(self, caller: Caller, request: asset_pb2.ReplaceAssetRequest) -> asset_pb2.ReplaceAssetResponse:
        """Replace an asset's metadata."""
        propagate = request.propagate_features or not request.HasField("propagate_features")
        asset = await self._write(caller, request.asset_id, request.metadata, merge=False, propagate=propagate)
        return asset_pb2.ReplaceAssetResponse(asset=asset)

    async def update(self, caller: Caller, request: asset_pb2.UpdateAssetRequest) -> asset_pb2.UpdateAssetResponse:
        """Merge metadata into an asset's."""
        propagate = request.propagate_features or not request.HasField("propagate_features")
        asset = await self._write(caller, request.asset_id, request.metadata, merge=True, propagate=propagate)
        return asset_pb2.UpdateAssetResponse(asset=asset)

    async def delete(self, caller: Caller, request: asset_pb2.DeleteAssetRequest) -> asset_pb2.DeleteAssetResponse:
        """Delete an asset: when this returns, no search, listing or stored match shows it."""
        namespace_id, asset_id = caller.tenant.namespace_id, request.asset_id
        await self._embedder.ReadAsset(embedder_pb2.ReadAssetRequest(namespace_id=namespace_id, asset_id=asset_id))
        # The asset itself last: should anything fail before, deleting it can be called again.
        await self._percolator.RemoveMatches(
            engine_pb2.RemoveMatchesRequest(namespace_id=namespace_id, asset_id=asset_id)
        )
        await self._embedder.RemoveAsset(embedder_pb2.RemoveAssetRequest(namespace_id=namespace_id, asset_id=asset_id))
        return asset_pb2.DeleteAssetResponse(asset_id=asset_id, deleted=True)

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

    def _scan(
        self,
        caller: Caller,
        request: asset_pb2.ListAssetsRequest | asset_pb2.SearchAssetsRequest,
        offset: int,
        size: int,
    ) -> embedder_pb2.ScanDocumentsRequest:
        from_proto(request.filters)
        return embedder_pb2.ScanDocumentsRequest(
            namespace_id=caller.tenant.namespace_id,
            kind=embedder_pb2.DOCUMENT_KIND_ASSET,
            collection_ids=self._collections.find_all(caller.tenant, list(request.collection_ids)),
            filters=request.filters if request.HasField("filters") else None,
            offset=offset,
            limit=size,
        )

    async def _write(
        self, caller: Caller, asset_id: str, metadata: Struct, *, merge: bool, propagate: bool
    ) -> asset_pb2.Asset:
        self._files.check_metadata(metadata)
        answer = await self._embedder.WriteAssetMetadata(
            embedder_pb2.WriteAssetMetadataRequest(
                namespace_id=caller.tenant.namespace_id,
                asset_id=asset_id,
                metadata=metadata,
                merge=merge,
                propagate=propagate,
            )
        )
        return answer.asset

    def _link(self, caller: Caller, shown: Iterable[asset_pb2.Asset | feature_pb2.Feature]) -> None:
        for each in shown:
            if each.modality == "image":
                each.preview_url = self._links.to(caller.tenant, each.asset_id)
