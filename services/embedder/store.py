"""Assets, features and vectors as rows: a Milvus collection a namespace for documents, and one an index and model
version.

Every collection name and row id comes from the tenant, so no query can reach another namespace.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from lensmesh.v1 import asset_pb2, common_pb2, embedder_pb2, feature_pb2

from services.embedder import rows
from services.embedder.documents import Documents
from services.embedder.generations import Generations
from services.embedder.milvus import Milvus, Row, Schema
from services.embedder.vectors import KEYWORD, Index, Vectors
from services.mesh.errors import InvalidArgument, NotFound
from services.mesh.json_names import enum_names
from services.mesh.tenancy import Tenant, derived_uuid

# Rows of one query or search, by Milvus' own limit on a window of results.
QUERY_LIMIT_MAX = 16_384
# Ids are random, so that their first hex digit cuts a collection into parts of about equal size.
HEX = "0123456789abcdef"
# Rows of one listing, some 300 bytes each while it is being sorted.
_SELECTED_MAX = 500_000
# Vectors of one feature in one index: 16 that a request asks for, and those of a read text and a description; or those
# of its faces.
_FEATURE_VECTORS_MAX = 64
# Vectors read by one query: as many rows as that returns.
_VECTORS_READ_MAX = 1_000

MessageT = TypeVar("MessageT", bound=Message)


class Store:
    """What the embedder keeps."""

    def __init__(
        self,
        milvus: Milvus,
        documents: Documents,
        vectors: Vectors,
        generations: Generations,
    ) -> None:
        self._milvus = milvus
        self._documents = documents
        self._vectors = vectors
        self._generations = generations
        # By asset id; forgotten when nobody holds or waits for it. Other replicas of this service are not kept out.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def turn(self, asset_id: str) -> asyncio.Lock:
        """Held by whoever reads an asset or its features and writes them again, so that none undoes another."""
        return self._turns.setdefault(asset_id, asyncio.Lock())

    async def write(
        self,
        tenant: Tenant,
        feature: feature_pb2.Feature,
        vectors: Sequence[embedder_pb2.NamedVector],
        asset: asset_pb2.Asset | None = None,
    ) -> None:
        """Write a feature with these vectors of it, and its asset if given; writing the same again changes nothing."""
        metadata = MessageToDict(feature.metadata)
        document = await self._documents.encode(tenant, feature)
        documents = [rows.feature_row(feature, document, metadata)]
        if asset:
            document = await self._documents.encode(tenant, asset)
            documents.append(rows.asset_row(asset, document, metadata))
        await asyncio.gather(
            self._milvus.upsert(rows.documents_collection(tenant), rows.DOCUMENT_SCHEMA, documents),
            *(self.write_vector(tenant, feature, each, metadata) for each in vectors),
        )

    async def write_asset(self, tenant: Tenant, asset: asset_pb2.Asset) -> None:
        """Write an asset alone."""
        row = rows.asset_row(asset, await self._documents.encode(tenant, asset), MessageToDict(asset.metadata))
        await self._milvus.upsert(rows.documents_collection(tenant), rows.DOCUMENT_SCHEMA, [row])

    async def read_asset(self, tenant: Tenant, asset_id: str) -> asset_pb2.Asset:
        """Read an asset.

        Raises:
            NotFound: there is none in this namespace.
        """
        found = await self.assets_by_id(tenant, [asset_id])
        if asset_id not in found:
            raise NotFound(f"no asset {asset_id!r} in this namespace")
        return found[asset_id]

    async def read_features(
        self, tenant: Tenant, asset_id: str, *, include_vectors: bool = False
    ) -> list[feature_pb2.Feature]:
        """The features of an asset, oldest first, with the vectors that searches see."""
        features = [self._shown(tenant, each) for each in await self.whole_features(tenant, asset_id)]
        if include_vectors:
            await self._fill_vectors(tenant, features)
        return features

    async def whole_features(self, tenant: Tenant, asset_id: str) -> list[feature_pb2.Feature]:
        """The features of an asset, oldest first, with the vectors of every generation."""
        chosen = f"{rows.equals('asset_id', asset_id)} and {rows.equals('kind', rows.FEATURE)}"
        found = await self._milvus.query(
            rows.documents_collection(tenant), chosen, ["id", "document"], limit=QUERY_LIMIT_MAX
        )
        features = [await self._documents.decode(row["document"], feature_pb2.Feature) for row in found]
        return sorted(features, key=lambda each: (each.created_at.ToNanoseconds(), each.feature_id))

    async def features_by_id(
        self, tenant: Tenant, ids: Sequence[str], *, include_vectors: bool = False
    ) -> dict[str, feature_pb2.Feature]:
        """Features by their ids, with the vectors that searches see; missing ones are left out."""
        found = await self._by_id(tenant, rows.FEATURE, ids, feature_pb2.Feature)
        for feature in found.values():
            self._shown(tenant, feature)
        if include_vectors:
            await self._fill_vectors(tenant, list(found.values()))
        return found

    async def assets_by_id(self, tenant: Tenant, ids: Sequence[str]) -> dict[str, asset_pb2.Asset]:
        """Assets by their ids; missing ones are left out."""
        return await self._by_id(tenant, rows.ASSET, ids, asset_pb2.Asset)

    async def fields_by_id(self, tenant: Tenant, ids: Sequence[str]) -> dict[str, Row]:
        """What features may be sorted and grouped by, by their ids; missing ones are left out."""
        fields = ["id", "asset_id", "collection_id", "modality", "created_at", "updated_at", "metadata"]
        found = await self._milvus.query(
            rows.documents_collection(tenant), rows.among("id", ids), fields, limit=QUERY_LIMIT_MAX
        )
        return {row["id"]: row for row in found}

    async def feature_ids(self, tenant: Tenant, prefix: str) -> list[str]:
        """The ids of all features that begin with some hex digits."""
        return sorted([row["id"] async for part in self.parts(tenant, rows.FEATURE, "", [], prefix) for row in part])

    async def whole_feature(self, tenant: Tenant, feature_id: str) -> feature_pb2.Feature:
        """A feature with the vectors of every generation.

        Raises:
            NotFound: there is none in this namespace.
        """
        found = await self._by_id(tenant, rows.FEATURE, [feature_id], feature_pb2.Feature)
        if feature_id not in found:
            raise NotFound(f"no feature {feature_id!r} in this namespace")
        return found[feature_id]

    def _shown(self, tenant: Tenant, feature: feature_pb2.Feature) -> feature_pb2.Feature:
        seen = [
            each
            for each in feature.vectors
            if each.model_version == self._generations.active(tenant, each.vector_index)
        ]
        del feature.vectors[:]
        feature.vectors.extend(seen)
        return feature

    async def drop_generation(self, tenant: Tenant, index: Index, version: str) -> None:
        """Remove an index's vectors of one model version."""
        await self._milvus.drop(rows.index_collection(tenant, index, version))

    async def whole_features_by_id(self, tenant: Tenant, ids: Sequence[str]) -> dict[str, feature_pb2.Feature]:
        """Features by their ids, with the vectors of every generation; missing ones are left out."""
        return await self._by_id(tenant, rows.FEATURE, ids, feature_pb2.Feature)

    async def asset_metadata(self, tenant: Tenant, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The metadata of assets by their ids; missing ones are left out."""
        if not ids:
            return {}
        found = await self._milvus.query(
            rows.documents_collection(tenant), rows.among("id", ids), ["id", "metadata"], limit=len(ids)
        )
        return {row["id"]: row["metadata"] for row in found}

    async def vectors_of_spaces(
        self, tenant: Tenant, features: Sequence[feature_pb2.Feature], spaces: Collection[tuple[int, str]]
    ) -> dict[tuple[str, int, str], list[Any]]:
        """The stored vectors of some indexes and model versions, by feature, index and version."""
        wanted: dict[tuple[int, str], list[str]] = defaultdict(list)
        for feature in features:
            for each in feature.vectors:
                if (each.vector_index, each.model_version) in spaces:
                    row_id = _vector_id(
                        tenant, feature.feature_id, each.vector_index, each.field_name, each.model_version
                    )
                    wanted[(each.vector_index, each.model_version)].append(row_id)
        stored: dict[tuple[str, int, str], list[Any]] = defaultdict(list)
        for (index, version), ids in wanted.items():
            name = rows.index_collection(tenant, common_pb2.VectorIndex.ValueType(index), version)
            for start in range(0, len(ids), _VECTORS_READ_MAX):
                some = ids[start : start + _VECTORS_READ_MAX]
                for row in await self._milvus.query(name, rows.among("id", some), ["id", "feature_id", "vector"]):
                    stored[(row["feature_id"], index, version)].append(row["vector"])
        return stored

    async def read_feature(
        self, tenant: Tenant, feature_id: str
    ) -> tuple[feature_pb2.Feature, list[embedder_pb2.NamedVector]]:
        """A feature with all of its vectors.

        Raises:
            NotFound: there is none in this namespace, or a vector of it is missing.
        """
        features = await self.features_by_id(tenant, [feature_id])
        if feature_id not in features:
            raise NotFound(f"no feature {feature_id!r} in this namespace")
        feature = features[feature_id]
        stored = await self._vectors_of(tenant, [feature])
        return feature, [
            _named(each, stored.get((feature_id, each.vector_index, each.field_name))) for each in feature.vectors
        ]

    async def _fill_vectors(self, tenant: Tenant, features: Sequence[feature_pb2.Feature]) -> None:
        """Put the vectors that searches see into the features."""
        stored = await self._vectors_of(tenant, features)
        for feature in features:
            for info in feature.vectors:
                value = stored.get((feature.feature_id, info.vector_index, info.field_name))
                if value is not None:
                    # Two indexes may use one name.
                    name = info.field_name
                    if name in feature.vector_values:
                        name = f"{enum_names(common_pb2.VectorIndex.DESCRIPTOR)[info.vector_index]}:{name}"
                    feature.vector_values[name].CopyFrom(rows.from_milvus(info.vector_index, value))

    async def _vectors_of(
        self, tenant: Tenant, features: Sequence[feature_pb2.Feature]
    ) -> Mapping[tuple[str, int, str], Any]:
        """The stored vectors by feature, index and field name."""
        by_index: dict[Index, list[str]] = defaultdict(list)
        for feature in features:
            for index in {each.vector_index for each in feature.vectors}:
                by_index[index].append(feature.feature_id)
        stored: dict[tuple[str, int, str], Any] = {}
        for index, ids in by_index.items():
            found = await self._milvus.query(
                rows.index_collection(tenant, index, self._generations.active(tenant, index)),
                rows.among("feature_id", ids),
                ["id", "feature_id", "field_name", "vector"],
                limit=min(_FEATURE_VECTORS_MAX * len(ids), QUERY_LIMIT_MAX),
            )
            stored |= {(row["feature_id"], index, row["field_name"]): row["vector"] for row in found}
        return stored

    async def _by_id(
        self, tenant: Tenant, kind: str, ids: Sequence[str], message: type[MessageT]
    ) -> dict[str, MessageT]:
        if not ids:
            return {}
        for each in ids:
            # What can't be an id of ours is not there; Milvus would refuse some of it as a literal.
            tenant.key(each)
        # By the primary key alone: any further condition makes Lite go through all rows.
        found = await self._milvus.query(
            rows.documents_collection(tenant), rows.among("id", ids), ["id", "kind", "document"], limit=len(ids)
        )
        of_kind = [row for row in found if row["kind"] == kind]
        return {row["id"]: await self._documents.decode(row["document"], message) for row in of_kind}

    async def count_assets(self, tenant: Tenant) -> int:
        """How many assets a namespace holds."""
        return await self._milvus.count(rows.documents_collection(tenant), rows.equals("kind", rows.ASSET))

    async def selected(self, tenant: Tenant, kind: str, expression: str, fields: Sequence[str]) -> list[Row]:
        """All documents' rows of a kind that an expression selects, with some of their fields.

        Raises:
            InvalidArgument: they are more than one listing may go through.
        """
        found: list[Row] = []
        async for part in self.parts(tenant, kind, expression, fields):
            found += part
            if len(found) > _SELECTED_MAX:
                raise InvalidArgument.field(
                    "filters", f"select more than {_SELECTED_MAX} rows; choose fewer collections", "rows.max"
                )
        return found

    async def parts(
        self, tenant: Tenant, kind: str, expression: str, fields: Sequence[str], prefix: str = ""
    ) -> AsyncIterator[list[Row]]:
        """The same part by part, each row once; of any kind if it is empty, of ids that begin with some hex digits."""
        chosen = rows.every(
            (
                rows.equals("kind", kind) if kind else "",
                expression,
                f"id like {rows.quoted(prefix + '%')}" if prefix else "",
            )
        )
        found = await self._milvus.query(
            rows.documents_collection(tenant), chosen, ["id", *fields], limit=QUERY_LIMIT_MAX
        )
        if len(found) < QUERY_LIMIT_MAX:
            yield found
            return
        for digit in HEX:
            async for part in self.parts(tenant, kind, expression, fields, prefix + digit):
                yield part

    async def drop_features(
        self, tenant: Tenant, asset_id: str, *, keep: str | None = None, only: str | None = None
    ) -> None:
        """Remove an asset's features and vectors: all but the one to keep, or only the given one."""
        of_asset = rows.equals("asset_id", asset_id)
        indexes = [(name, of_asset, "feature_id") for name in self.index_collections(tenant)]
        features = (rows.documents_collection(tenant), f"{of_asset} and {rows.equals('kind', rows.FEATURE)}", "id")
        for name, expression, column in (features, *indexes):
            if keep is not None:
                expression += f" and {column} != {rows.quoted(keep)}"
            if only is not None:
                expression += f" and {rows.equals(column, only)}"
            await self._milvus.delete(name, expression)

    async def drop_asset(self, tenant: Tenant, asset_id: str) -> None:
        """Remove an asset's row; its features are removed by `drop_features`."""
        await self._milvus.delete(rows.documents_collection(tenant), rows.equals("id", asset_id))

    async def write_vector(
        self,
        tenant: Tenant,
        feature: feature_pb2.Feature,
        named: embedder_pb2.NamedVector,
        metadata: dict[str, Any],
    ) -> None:
        index, version = named.embedded.vector_index, named.embedded.model_version
        if index == KEYWORD and not named.embedded.vector.indices:
            # A text without words has no row: Milvus refuses empty sparse vectors.
            return
        schema = Schema(strings=rows.VECTOR_STRINGS, dim=self._vectors.dim(index, version))
        row: Row = {
            "id": _vector_id(tenant, feature.feature_id, index, named.field_name, version),
            "feature_id": feature.feature_id,
            "asset_id": feature.asset_id,
            "collection_id": feature.collection_id,
            "modality": feature.modality,
            "field_name": named.field_name,
            "metadata": metadata,
            "vector": rows.milvus_vector(named.embedded),
        }
        await self._milvus.upsert(rows.index_collection(tenant, index, version), schema, [row])

    def index_collections(self, tenant: Tenant) -> list[str]:
        """The Milvus collections that vectors of this namespace may be in."""
        return [
            rows.index_collection(tenant, index, version)
            for index in self._generations.indexes
            for version in sorted(self._generations.alive(tenant, index))
        ]


def _vector_id(tenant: Tenant, feature_id: str, index: int, field_name: str, version: str) -> str:
    return derived_uuid(tenant.namespace_id, feature_id, str(index), field_name, version)


def _named(info: feature_pb2.VectorInfo, value: Any) -> embedder_pb2.NamedVector:
    # A keyword vector without words has no row.
    if value is None and info.vector_index != KEYWORD:
        raise NotFound(f"the vector {info.field_name!r} is missing")
    embedded = embedder_pb2.EmbeddedVector(
        vector_index=info.vector_index,
        model_version=info.model_version,
        vector=rows.from_milvus(info.vector_index, value),
    )
    return embedder_pb2.NamedVector(field_name=info.field_name, embedded=embedded, input=info.input)
