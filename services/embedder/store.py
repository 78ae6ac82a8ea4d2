"""Assets, features and vectors as rows: a Milvus collection a namespace for documents, and one an index and model
version.

Every collection name and row id comes from the tenant, so no query can reach another namespace.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from lensmesh.v1 import asset_pb2, common_pb2, embedder_pb2, feature_pb2

from services.embedder import hashes, keywords
from services.embedder.config import MilvusSettings
from services.embedder.documents import Documents
from services.embedder.generations import Generations
from services.embedder.milvus import Milvus, Row, Schema
from services.embedder.vectors import KEYWORD, Index, Vectors, dense_array
from services.mesh.errors import InvalidArgument, NotFound
from services.mesh.filters import Condition, matches
from services.mesh.filters import compile as compile_filter
from services.mesh.json_names import enum_names
from services.mesh.tenancy import Tenant, derived_uuid

# Assets and features are written together, so they share a collection: an upsert costs the same whatever is in it.
# The number is that of the schema: rows of different schemas don't mix.
_DOCUMENTS = "documents_2"
_ASSET, _FEATURE = "asset", "feature"
_DOCUMENT_SCHEMA = Schema(strings=("kind", "asset_id", "collection_id"), dim=hashes.BITS, document=True, exact=True)
_VECTOR_STRINGS = ("feature_id", "asset_id", "collection_id", "field_name")
# Document fields that a filter may name and that rows of vectors have.
_FILTER_COLUMNS = ("feature_id", "asset_id", "collection_id")

# Candidates read beyond the limit when a filter can only be checked after the search.
_OVERSAMPLING = 10
_SEARCH_LIMIT_MAX = 10_000
# Vectors of one feature in one index: 16 that a request asks for, and those of a read text and a description; or those
# of its faces.
_FEATURE_VECTORS_MAX = 64
# Scores are compared after rounding, as the percolator's are: equal vectors in float32 meet a min_score of 1.0.
SCORE_DECIMALS = 6

# Rows of one query, by Milvus' own limit on a window of results.
_QUERY_LIMIT_MAX = 16_384

MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True, slots=True)
class Hit:
    """A feature found by one query."""

    feature_id: str
    score: float


class Store:
    """What the embedder keeps."""

    def __init__(
        self,
        milvus: Milvus,
        documents: Documents,
        vectors: Vectors,
        generations: Generations,
        settings: MilvusSettings,
    ) -> None:
        self._milvus = milvus
        self._documents = documents
        self._vectors = vectors
        self._generations = generations
        self._settings = settings
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
        documents = [_document_row(_FEATURE, feature.feature_id, feature, document, metadata)]
        if asset:
            document = await self._documents.encode(tenant, asset)
            documents.append(_document_row(_ASSET, asset.asset_id, asset, document, metadata))
        await asyncio.gather(
            self._milvus.upsert(tenant.milvus_collection(_DOCUMENTS), _DOCUMENT_SCHEMA, documents),
            *(self._write_vector(tenant, feature, each, metadata) for each in vectors),
        )

    async def read_asset(self, tenant: Tenant, asset_id: str) -> asset_pb2.Asset:
        """Read an asset.

        Raises:
            NotFound: there is none in this namespace.
        """
        tenant.key(asset_id)
        chosen = f"{_equals('id', asset_id)} and {_equals('kind', _ASSET)}"
        rows = await self._milvus.query(tenant.milvus_collection(_DOCUMENTS), chosen, ["id", "document"])
        if not rows:
            raise NotFound(f"no asset {asset_id!r} in this namespace")
        return await self._documents.decode(rows[0]["document"], asset_pb2.Asset)

    async def read_features(self, tenant: Tenant, asset_id: str) -> list[feature_pb2.Feature]:
        """The features of an asset, oldest first, with the vectors that searches see."""
        return [self._shown(tenant, each) for each in await self._read_features(tenant, asset_id)]

    async def _read_features(self, tenant: Tenant, asset_id: str) -> list[feature_pb2.Feature]:
        chosen = f"{_equals('asset_id', asset_id)} and {_equals('kind', _FEATURE)}"
        rows = await self._milvus.query(tenant.milvus_collection(_DOCUMENTS), chosen, ["id", "document"])
        features = [await self._documents.decode(row["document"], feature_pb2.Feature) for row in rows]
        return sorted(features, key=lambda each: (each.created_at.ToNanoseconds(), each.feature_id))

    async def features_by_id(self, tenant: Tenant, ids: Sequence[str]) -> dict[str, feature_pb2.Feature]:
        """Features by their ids, with the vectors that searches see; missing ones are left out."""
        found = await self._by_id(tenant, _FEATURE, ids, feature_pb2.Feature)
        return {feature_id: self._shown(tenant, feature) for feature_id, feature in found.items()}

    async def feature_ids(self, tenant: Tenant, prefix: str) -> list[str]:
        """The ids of all features that begin with some hex digits."""
        chosen = f"{_equals('kind', _FEATURE)} and id like {_quoted(prefix + '%')}"
        rows = await self._milvus.query(tenant.milvus_collection(_DOCUMENTS), chosen, ["id"], limit=_QUERY_LIMIT_MAX)
        return sorted(row["id"] for row in rows)

    async def whole_feature(self, tenant: Tenant, feature_id: str) -> feature_pb2.Feature:
        """A feature with the vectors of every generation.

        Raises:
            NotFound: there is none in this namespace.
        """
        found = await self._by_id(tenant, _FEATURE, [feature_id], feature_pb2.Feature)
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
        await self._milvus.drop(_index_collection(tenant, index, version))

    async def read_feature(
        self, tenant: Tenant, feature_id: str
    ) -> tuple[feature_pb2.Feature, list[embedder_pb2.NamedVector]]:
        """A feature with all of its vectors.

        Raises:
            NotFound: there is none in this namespace, or a vector of it is missing.
        """
        tenant.key(feature_id)
        features = await self.features_by_id(tenant, [feature_id])
        if feature_id not in features:
            raise NotFound(f"no feature {feature_id!r} in this namespace")
        feature = features[feature_id]
        stored: dict[tuple[int, str], Any] = {}
        for index in {each.vector_index for each in feature.vectors}:
            name = _index_collection(tenant, index, self._generations.active(tenant, index))
            rows = await self._milvus.query(
                name, _equals("feature_id", feature_id), ["id", "field_name", "vector"], limit=_FEATURE_VECTORS_MAX
            )
            stored |= {(index, row["field_name"]): row["vector"] for row in rows}
        return feature, [_named(each, stored.get((each.vector_index, each.field_name))) for each in feature.vectors]

    async def near_duplicates(
        self, tenant: Tenant, asset: asset_pb2.Asset, collection_ids: Sequence[str], max_distance: int, limit: int
    ) -> list[tuple[asset_pb2.Asset, int]]:
        """Other assets whose perceptual hash differs in at most `max_distance` bits, nearest first, then by id.

        Args:
            collection_ids: where to look; none: in the whole namespace.

        Raises:
            InvalidArgument: the asset has no hash.
        """
        if not asset.perceptual_hash:
            raise InvalidArgument.field("asset_id", "has no perceptual hash; index the image again", "asset.hash")
        scope = f"{_equals('kind', _ASSET)} and id != {_quoted(asset.asset_id)}"
        if collection_ids:
            scope += f" and {_in('collection_id', collection_ids)}"
        vector, wanted = hashes.vector(asset.perceptual_hash), limit + 1
        while True:
            rows = await self._milvus.search(
                tenant.milvus_collection(_DOCUMENTS),
                vector,
                metric="COSINE",
                limit=wanted,
                expression=scope,
                fields=["id"],
            )
            found = [(hashes.distance(float(row["distance"])), str(row["id"])) for row in rows]
            near = sorted({each for each in found if each[0] <= max_distance})
            # Among equally near ones the store chooses as it likes: all of them are needed to choose by id.
            if len(near) < wanted or near[limit - 1][0] < near[-1][0] or wanted == _SEARCH_LIMIT_MAX:
                break
            wanted = min(wanted * _OVERSAMPLING, _SEARCH_LIMIT_MAX)
        assets = await self._by_id(tenant, _ASSET, [asset_id for _, asset_id in near[:limit]], asset_pb2.Asset)
        # One that vanished meanwhile is left out, and so is one without a hash, whose distance means nothing.
        shown = [(assets[each], distance) for distance, each in near[:limit] if each in assets]
        return [(each, distance) for each, distance in shown if each.perceptual_hash]

    async def _by_id(
        self, tenant: Tenant, kind: str, ids: Sequence[str], message: type[MessageT]
    ) -> dict[str, MessageT]:
        if not ids:
            return {}
        chosen = f"{_in('id', ids)} and {_equals('kind', kind)}"
        rows = await self._milvus.query(tenant.milvus_collection(_DOCUMENTS), chosen, ["id", "document"])
        return {row["id"]: await self._documents.decode(row["document"], message) for row in rows}

    async def count_assets(self, tenant: Tenant, collection_id: str) -> int:
        """How many assets a collection holds."""
        chosen = f"{_equals('collection_id', collection_id)} and {_equals('kind', _ASSET)}"
        return await self._milvus.count(tenant.milvus_collection(_DOCUMENTS), chosen)

    async def drop_features(
        self, tenant: Tenant, asset_id: str, *, keep: str | None = None, only: str | None = None
    ) -> None:
        """Remove an asset's features and vectors: all but the one to keep, or only the given one."""
        of_asset = _equals("asset_id", asset_id)
        indexes = [(name, of_asset, "feature_id") for name in self._index_collections(tenant)]
        features = (tenant.milvus_collection(_DOCUMENTS), f"{of_asset} and {_equals('kind', _FEATURE)}", "id")
        for name, expression, column in (features, *indexes):
            if keep is not None:
                expression += f" and {column} != {_quoted(keep)}"
            if only is not None:
                expression += f" and {_equals(column, only)}"
            await self._milvus.delete(name, expression)

    async def drop_asset(self, tenant: Tenant, asset_id: str) -> None:
        """Remove an asset's row; its features are removed by `drop_features`."""
        await self._milvus.delete(tenant.milvus_collection(_DOCUMENTS), _equals("id", asset_id))

    async def rewrite_metadata(self, tenant: Tenant, asset_id: str, metadata: Struct) -> None:
        """Give all features and vectors of an asset new metadata, and its metadata's words new vectors."""
        value = MessageToDict(metadata)
        words = keywords.words_of(value)
        for feature in await self._read_features(tenant, asset_id):
            feature.metadata.CopyFrom(metadata)
            for info in list(feature.vectors):
                if info.field_name == keywords.METADATA and words:
                    info.input.text = words
                elif info.field_name == keywords.METADATA:
                    feature.vectors.remove(info)
            document = await self._documents.encode(tenant, feature)
            row = _document_row(_FEATURE, feature.feature_id, feature, document, value)
            await self._milvus.upsert(tenant.milvus_collection(_DOCUMENTS), _DOCUMENT_SCHEMA, [row])
        for name in self._index_collections(tenant):
            rows = await self._milvus.query(
                name,
                _equals("asset_id", asset_id),
                ["id", *_VECTOR_STRINGS, "vector"],
                limit=self._settings.update_features_max,
            )
            # Milvus refuses a vector without words, so the row goes.
            silent = [row for row in rows if row["field_name"] == keywords.METADATA and not words]
            if silent:
                await self._milvus.delete(name, _in("id", [row["id"] for row in silent]))
            kept = [_with_metadata(row, value, words) for row in rows if row not in silent]
            if kept:
                await self._milvus.upsert(name, None, kept)

    async def search(
        self,
        tenant: Tenant,
        query: embedder_pb2.EmbeddedVector,
        collection_ids: Sequence[str],
        condition: Condition,
        limit: int,
    ) -> list[Hit]:
        """The best features of one query, best first, each once, with scores of 0..1."""
        if query.vector_index == KEYWORD and not query.vector.indices:
            return []
        version = query.model_version or self._generations.active(tenant, query.vector_index)
        name = _index_collection(tenant, query.vector_index, version)
        compiled = compile_filter(condition, columns=_FILTER_COLUMNS)
        scope = _in("collection_id", collection_ids)
        expression = f"{scope} and ({compiled.expression})" if compiled.expression else scope
        wanted = limit if compiled.exact else min(limit * _OVERSAMPLING, _SEARCH_LIMIT_MAX)
        sparse = query.vector_index == KEYWORD
        rows = await self._milvus.search(
            name,
            _milvus_vector(query),
            metric="IP" if sparse else "COSINE",
            limit=wanted,
            expression=expression,
            fields=["feature_id"] if compiled.exact else [*_FILTER_COLUMNS, "metadata"],
        )
        best: dict[str, float] = {}
        for row in rows:
            entity = row["entity"]
            if not compiled.exact and not matches(condition, {"modality": "image", **entity}):
                continue
            score = round(min(max(float(row["distance"]), 0.0), 1.0), SCORE_DECIMALS)
            best[entity["feature_id"]] = max(score, best.get(entity["feature_id"], 0.0))
        hits = [Hit(feature_id, score) for feature_id, score in best.items()]
        return sorted(hits, key=lambda hit: (-hit.score, hit.feature_id))[:limit]

    async def _write_vector(
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
        schema = Schema(strings=_VECTOR_STRINGS, dim=self._vectors.dim(index, version))
        row: Row = {
            "id": derived_uuid(tenant.namespace_id, feature.feature_id, str(index), named.field_name, version),
            "feature_id": feature.feature_id,
            "asset_id": feature.asset_id,
            "collection_id": feature.collection_id,
            "field_name": named.field_name,
            "metadata": metadata,
            "vector": _milvus_vector(named.embedded),
        }
        await self._milvus.upsert(_index_collection(tenant, index, version), schema, [row])

    def _index_collections(self, tenant: Tenant) -> list[str]:
        """The Milvus collections that vectors of this namespace may be in."""
        return [
            _index_collection(tenant, index, version)
            for index in self._generations.indexes
            for version in sorted(self._generations.alive(tenant, index))
        ]


def _index_collection(tenant: Tenant, index: Index, version: str) -> str:
    kind = enum_names(common_pb2.VectorIndex.DESCRIPTOR)[index]
    return tenant.milvus_collection(f"{kind}_{re.sub(r'[^A-Za-z0-9]', '_', version)}")


def _named(info: feature_pb2.VectorInfo, value: Any) -> embedder_pb2.NamedVector:
    # A keyword vector without words has no row.
    if value is None and info.vector_index != KEYWORD:
        raise NotFound(f"the vector {info.field_name!r} is missing")
    embedded = embedder_pb2.EmbeddedVector(
        vector_index=info.vector_index,
        model_version=info.model_version,
        vector=_from_milvus(info.vector_index, value),
    )
    return embedder_pb2.NamedVector(field_name=info.field_name, embedded=embedded, input=info.input)


def _with_metadata(row: Row, metadata: dict[str, Any], words: str) -> Row:
    changed = row | {"metadata": metadata}
    if row["field_name"] == keywords.METADATA:
        vector = keywords.encode_document(words)
        changed["vector"] = dict(zip(vector.indices, vector.values, strict=True))
    return changed


def _document_row(
    kind: str, row_id: str, of: asset_pb2.Asset | feature_pb2.Feature, document: str, metadata: dict[str, Any]
) -> Row:
    return {
        "id": row_id,
        "kind": kind,
        "asset_id": of.asset_id,
        "collection_id": of.collection_id,
        "document": document,
        "metadata": metadata,
        "vector": hashes.vector(of.perceptual_hash) if isinstance(of, asset_pb2.Asset) else hashes.NO_VECTOR,
    }


def _milvus_vector(embedded: embedder_pb2.EmbeddedVector) -> Any:
    if embedded.vector_index == KEYWORD:
        return dict(zip(embedded.vector.indices, embedded.vector.values, strict=True))
    return dense_array(embedded.vector).tolist()


def _from_milvus(index: int, value: Any) -> common_pb2.Vector:
    if index != KEYWORD:
        return common_pb2.Vector(dense=np.array(value, dtype="<f4").tobytes())
    terms = sorted((value or {}).items())
    return common_pb2.Vector(indices=[int(term) for term, _ in terms], values=[weight for _, weight in terms])


def _quoted(value: str) -> str:
    # Ids are tokens by the tenant's rule; quoting is for the day when one is not.
    return json.dumps(value)


def _equals(column: str, value: str) -> str:
    return f"{column} == {_quoted(value)}"


def _in(column: str, values: Sequence[str]) -> str:
    return f"{column} in [{', '.join(_quoted(value) for value in values)}]"
