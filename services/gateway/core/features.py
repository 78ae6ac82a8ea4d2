"""The features of the caller's namespace: searched, listed, read, changed, deleted. The embedder owns them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from google.protobuf.json_format import MessageToDict
from lensmesh.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc, feature_pb2

from services.gateway.auth import Caller
from services.gateway.core.arrangement import arrangement
from services.gateway.core.collections import Collections
from services.gateway.core.files import Files
from services.gateway.core.links import Links
from services.gateway.core.paging import PAGE_SIZE_DEFAULT, search_pagination
from services.gateway.core.queries import Queries
from services.mesh.errors import InvalidArgument
from services.mesh.filters import from_proto
from services.mesh.json_names import enum_names

# Candidates of one query when it does not say how many.
LIMIT_DEFAULT = 100


class Features:
    """What was extracted from the assets of the caller's namespace."""

    def __init__(
        self,
        embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub,
        queries: Queries,
        collections: Collections,
        files: Files,
        links: Links,
    ) -> None:
        self._embedder = embedder
        self._queries = queries
        self._collections = collections
        self._files = files
        self._links = links

    async def search(
        self, caller: Caller, request: feature_pb2.SearchFeaturesRequest
    ) -> feature_pb2.SearchFeaturesResponse:
        """Search one or several indexes; without queries, list what the filters select."""
        tenant, filters = caller.tenant, request.filters if request.HasField("filters") else None
        collection_ids = self._collections.find_all(tenant, list(request.collection_ids))
        if filters is not None:
            from_proto(filters)
        for position, query in enumerate(request.queries):
            if query.HasField("filters"):
                from_proto(query.filters, path=("body", "queries", position, "filters"))
        _check_reranking(request)
        arranged = arrangement(
            request.sort if request.HasField("sort") else None,
            request.group_by if request.HasField("group_by") else None,
        )
        size = request.page_size or PAGE_SIZE_DEFAULT
        common = embedder_pb2.SearchVectorsRequest(
            namespace_id=tenant.namespace_id,
            collection_ids=collection_ids,
            filters=filters,
            offset=request.offset_position,
            limit=size,
            arrangement=arranged,
            include_vectors=request.include_vectors,
        )
        found = await (self._searched(caller, request, common) if request.queries else self._listed(common))
        if request.return_url:
            self._link(caller, [*found.features, *(each for group in found.groups for each in group.features)])
        return feature_pb2.SearchFeaturesResponse(
            results=found.features,
            groups=found.groups,
            pagination=search_pagination(found.total, request.offset_position, size),
        )

    async def list(self, caller: Caller, request: feature_pb2.ListFeaturesRequest) -> feature_pb2.ListFeaturesResponse:
        """List features, oldest first unless sorted, from a cursor on."""
        from_proto(request.filters)
        size = request.page_size or PAGE_SIZE_DEFAULT
        answer = await self._embedder.ScanDocuments(
            embedder_pb2.ScanDocumentsRequest(
                namespace_id=caller.tenant.namespace_id,
                kind=embedder_pb2.DOCUMENT_KIND_FEATURE,
                collection_ids=self._collections.find_all(caller.tenant, list(request.collection_ids)),
                filters=request.filters if request.HasField("filters") else None,
                arrangement=arrangement(request.sort if request.HasField("sort") else None, None),
                after_id=request.offset_feature_id,
                limit=size,
                include_vectors=request.include_vectors,
            )
        )
        if request.return_url:
            self._link(caller, answer.features)
        page = search_pagination(answer.total, answer.offset, size)
        page.ClearField("previous_page")
        page.ClearField("next_page")
        if answer.features and answer.offset + len(answer.features) < answer.total:
            page.next_page = answer.features[-1].feature_id
        return feature_pb2.ListFeaturesResponse(results=answer.features, pagination=page)

    async def get(self, caller: Caller, request: feature_pb2.GetFeatureRequest) -> feature_pb2.GetFeatureResponse:
        """Read a feature."""
        answer = await self._embedder.ReadFeature(
            embedder_pb2.ReadFeatureRequest(
                namespace_id=caller.tenant.namespace_id,
                feature_id=request.feature_id,
                include_vectors=request.include_vectors,
            )
        )
        if request.return_url:
            self._link(caller, [answer.feature])
        return feature_pb2.GetFeatureResponse(feature=answer.feature)

    async def update(
        self, caller: Caller, request: feature_pb2.UpdateFeatureRequest
    ) -> feature_pb2.UpdateFeatureResponse:
        """Replace a feature's metadata."""
        self._files.check_metadata(request.metadata)
        answer = await self._embedder.WriteFeatureMetadata(
            embedder_pb2.WriteFeatureMetadataRequest(
                namespace_id=caller.tenant.namespace_id, feature_id=request.feature_id, metadata=request.metadata
            )
        )
        return feature_pb2.UpdateFeatureResponse(feature=answer.feature)

    async def delete(
        self, caller: Caller, request: feature_pb2.DeleteFeatureRequest
    ) -> feature_pb2.DeleteFeatureResponse:
        """Delete a feature with its vectors."""
        await self._embedder.RemoveFeature(
            embedder_pb2.RemoveFeatureRequest(namespace_id=caller.tenant.namespace_id, feature_id=request.feature_id)
        )
        return feature_pb2.DeleteFeatureResponse(feature_id=request.feature_id, deleted=True)

    async def embed(self, caller: Caller, request: feature_pb2.EmbedFeatureRequest) -> feature_pb2.EmbedFeatureResponse:
        """Make one vector, and store nothing."""
        started = time.perf_counter()
        query = feature_pb2.SearchQuery(type=request.type, vector_index=request.vector_index, value=request.value)
        made = await self._queries.vector(caller, query, "")
        return feature_pb2.EmbedFeatureResponse(
            embedding=feature_pb2.Embedding(vector=made.vector),
            elapsed_time=round(time.perf_counter() - started, 4),
            model_version=made.model_version,
        )

    async def _searched(
        self, caller: Caller, request: feature_pb2.SearchFeaturesRequest, common: embedder_pb2.SearchVectorsRequest
    ) -> embedder_pb2.SearchVectorsResponse:
        inputs = await self._queries.inputs(caller, request.queries)
        for query, given in zip(request.queries, inputs, strict=True):
            common.queries.add(
                input=given,
                filters=_narrowed(query),
                limit=query.settings.limit or LIMIT_DEFAULT,
                min_score=query.settings.min_score,
            )
        return await self._embedder.SearchVectors(common)

    async def _listed(self, common: embedder_pb2.SearchVectorsRequest) -> embedder_pb2.SearchVectorsResponse:
        answer = await self._embedder.ScanDocuments(
            embedder_pb2.ScanDocumentsRequest(
                namespace_id=common.namespace_id,
                kind=embedder_pb2.DOCUMENT_KIND_FEATURE,
                collection_ids=common.collection_ids,
                filters=common.filters if common.HasField("filters") else None,
                arrangement=common.arrangement,
                offset=common.offset,
                limit=common.limit,
                include_vectors=common.include_vectors,
            )
        )
        return embedder_pb2.SearchVectorsResponse(
            features=answer.features, groups=answer.feature_groups, total=answer.total
        )

    def _link(self, caller: Caller, shown: Iterable[feature_pb2.Feature]) -> None:
        for each in shown:
            if each.modality == "image":
                each.preview_url = self._links.to(caller.tenant, each.asset_id)


def _check_reranking(request: feature_pb2.SearchFeaturesRequest) -> None:
    options = request.reranking_options
    if "enable_reranking" in options.fields and MessageToDict(options)["enable_reranking"]:
        raise InvalidArgument.field(
            "reranking_options.enable_reranking", "is not offered: no interactions are recorded here", "reranking"
        )


def _narrowed(query: feature_pb2.SearchQuery) -> common_pb2.Filter | None:
    """The query's filter, and its modality as one."""
    filters = query.filters if query.HasField("filters") else None
    if not query.settings.HasField("modality"):
        return filters
    both = common_pb2.Filter()
    name = enum_names(feature_pb2.Modality.DESCRIPTOR)[query.settings.modality]
    conditions = getattr(both, "and")
    conditions.add(key="modality", operator=common_pb2.FILTER_OPERATOR_EQ).value.string_value = name
    if filters is not None:
        conditions.add().CopyFrom(filters)
    return both
