"""What the rows in Milvus look like, and expressions that select them; nothing here talks to Milvus.

A namespace has one Milvus collection of documents (assets and features), and one of vectors for each index and model
version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from lensmesh.v1 import asset_pb2, common_pb2, embedder_pb2, feature_pb2

from services.embedder import hashes
from services.embedder.milvus import Row, Schema
from services.embedder.vectors import KEYWORD, Index
from services.mesh.json_names import enum_names
from services.mesh.tenancy import Tenant

ASSET, FEATURE = "asset", "feature"
# The number of the schemas below, part of every collection's name: rows of different schemas don't mix.
_SCHEMA = 3
# Assets and features are written together, so they share a collection: an upsert costs the same whatever is in it.
DOCUMENT_SCHEMA = Schema(
    strings=("kind", "asset_id", "collection_id", "modality", "created_at", "updated_at"),
    texts=("images", "document"),
    integers=("size_bytes",),
    dim=hashes.BITS,
    exact=True,
)
VECTOR_STRINGS = ("feature_id", "asset_id", "collection_id", "modality", "field_name")
# Document fields that a filter may name and that rows of vectors have.
FILTER_COLUMNS = ("feature_id", "asset_id", "collection_id", "modality")
# The images of a feature: 16 inputs and the asset's own, 64 digits each, far below a VARCHAR's 65,535 bytes.
_IMAGE_SEPARATOR = " "


def documents_collection(tenant: Tenant) -> str:
    """The Milvus collection of a namespace's assets and features."""
    return tenant.milvus_collection(f"documents_{_SCHEMA}")


def index_collection(tenant: Tenant, index: Index, version: str) -> str:
    """The Milvus collection of an index's vectors of one model version."""
    kind = enum_names(common_pb2.VectorIndex.DESCRIPTOR)[index]
    return tenant.milvus_collection(f"{kind}_{_SCHEMA}_{re.sub(r'[^A-Za-z0-9]', '_', version)}")


def asset_row(asset: asset_pb2.Asset, document: str, metadata: dict[str, Any]) -> Row:
    """The row of an asset; `document` is the asset itself, as `documents` writes it."""
    return _document_row(ASSET, asset.asset_id, asset, document, metadata) | {
        "updated_at": sortable(asset.updated_at),
        "images": asset.file_hash,
        "size_bytes": asset.size_bytes,
        "vector": hashes.vector(asset.perceptual_hash),
    }


def feature_row(feature: feature_pb2.Feature, document: str, metadata: dict[str, Any]) -> Row:
    """The row of a feature."""
    return _document_row(FEATURE, feature.feature_id, feature, document, metadata) | {
        "updated_at": sortable(feature.created_at),
        "images": _IMAGE_SEPARATOR.join(images_of(feature)),
        "size_bytes": 0,
        "vector": hashes.NO_VECTOR,
    }


def images_of(feature: feature_pb2.Feature) -> list[str]:
    """The hashes of the images that a feature's vectors were made of."""
    return sorted({each.input.image_sha256 for each in feature.vectors if each.input.image_sha256})


def sortable(stamp: Timestamp) -> str:
    """A time as a text that sorts as times do."""
    return f"{stamp.seconds:012d}.{stamp.nanos // 1000:06d}"


def _document_row(
    kind: str, row_id: str, of: asset_pb2.Asset | feature_pb2.Feature, document: str, metadata: dict[str, Any]
) -> Row:
    return {
        "id": row_id,
        "kind": kind,
        "asset_id": of.asset_id,
        "collection_id": of.collection_id,
        "modality": of.modality,
        "created_at": sortable(of.created_at),
        "document": document,
        "metadata": metadata,
    }


def milvus_vector(embedded: embedder_pb2.EmbeddedVector) -> Any:
    """A vector as Milvus takes it: float[D], or weights by term id."""
    if embedded.vector_index == KEYWORD:
        return dict(zip(embedded.vector.indices, embedded.vector.values, strict=True))
    return np.frombuffer(embedded.vector.dense, dtype="<f4").tolist()


def from_milvus(index: int, value: Any) -> common_pb2.Vector:
    """A vector as Milvus gives it; None is a keyword vector without words, which has no row."""
    if index != KEYWORD:
        return common_pb2.Vector(dense=np.array(value, dtype="<f4").tobytes())
    terms = sorted((value or {}).items())
    return common_pb2.Vector(indices=[int(term) for term, _ in terms], values=[weight for _, weight in terms])


def quoted(value: str) -> str:
    """A text as a literal of Milvus' language."""
    # Ids are tokens by the tenant's rule; quoting is for the day when one is not.
    return json.dumps(value)


def equals(column: str, value: str) -> str:
    """Selects the rows with a value."""
    return f"{column} == {quoted(value)}"


def among(column: str, values: Sequence[str]) -> str:
    """Selects the rows with one of some values."""
    return f"{column} in [{', '.join(quoted(value) for value in values)}]"


def every(conditions: Iterable[str]) -> str:
    """Selects the rows that all conditions select; empty ones are left out."""
    return " and ".join(f"({each})" for each in conditions if each)
