"""The features of collections with their vectors of some models, in parts that fit into a message, each read once.

Everything but the list of ids is read by primary key: any other condition makes Milvus Lite go through all rows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

from google.protobuf.json_format import ParseDict
from lensmesh.v1 import embedder_pb2, feature_pb2

from services.embedder import rows
from services.embedder.milvus import Row
from services.embedder.store import Store
from services.mesh.tenancy import Tenant

# Features read at a time: with three vectors of 768 numbers each, some 5 MB.
_FEATURES_A_PART = 500
# Bytes of features in a message; metadata have up to 60 kB each.
_MESSAGE_BYTES_MAX = 8_000_000

_Space = tuple[int, str]


class Scan:
    """Reads features for somebody who compares their vectors."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def features(
        self, request: embedder_pb2.ScanFeatureVectorsRequest
    ) -> AsyncIterator[embedder_pb2.ScanFeatureVectorsResponse]:
        """The features, in no particular order; the last message says whether there are more."""
        tenant = Tenant(request.namespace_id)
        spaces = {(each.vector_index, each.model_version) for each in request.spaces}
        answer = embedder_pb2.ScanFeatureVectorsResponse()
        size, left = 0, request.limit
        async for part in self._ids(tenant, request.collection_ids):
            chosen, more = part[:left], len(part) > left
            left -= len(chosen)
            for start in range(0, len(chosen), _FEATURES_A_PART):
                for feature in await self._read(tenant, chosen[start : start + _FEATURES_A_PART], spaces):
                    size += feature.ByteSize()
                    if size > _MESSAGE_BYTES_MAX and answer.features:
                        yield answer
                        answer, size = embedder_pb2.ScanFeatureVectorsResponse(), feature.ByteSize()
                    answer.features.append(feature)
            if more:
                answer.truncated = True
                break
        yield answer

    async def _ids(self, tenant: Tenant, collection_ids: Sequence[str]) -> AsyncIterator[list[str]]:
        selected = rows.among("collection_id", list(collection_ids))
        async for part in self._store.parts(tenant, rows.FEATURE, selected, []):
            yield sorted(row["id"] for row in part)

    async def _read(
        self, tenant: Tenant, feature_ids: Sequence[str], spaces: Collection[_Space]
    ) -> list[embedder_pb2.ScannedFeature]:
        features = await self._store.whole_features_by_id(tenant, feature_ids)
        metadata = await self._store.asset_metadata(tenant, sorted({each.asset_id for each in features.values()}))
        vectors = await self._store.vectors_of_spaces(tenant, list(features.values()), spaces)
        return [
            _scanned(each, metadata[each.asset_id], vectors)
            for each in features.values()
            # The asset was deleted meanwhile.
            if each.asset_id in metadata
        ]


def _scanned(
    feature: feature_pb2.Feature, metadata: Row, vectors: dict[tuple[str, int, str], list[object]]
) -> embedder_pb2.ScannedFeature:
    scanned = embedder_pb2.ScannedFeature(
        asset_id=feature.asset_id,
        feature_id=feature.feature_id,
        collection_id=feature.collection_id,
        modality=feature.modality,
    )
    ParseDict(metadata, scanned.metadata)
    for index, version in sorted({(each.vector_index, each.model_version) for each in feature.vectors}):
        for value in vectors.get((feature.feature_id, index, version), ()):
            scanned.vectors.add(
                vector_index=index,
                model_version=version,
                vector=rows.from_milvus(index, value),
            )
    return scanned
