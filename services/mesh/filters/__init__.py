"""Filters on documents: what they mean, and how far a store can be asked to apply them.

Which rows a store returns, and fetching more when a filter was not exact, is the store's owner's part.
"""

from services.mesh.filters.condition import (
    DOCUMENT_FIELDS,
    MATCH_ALL,
    METADATA,
    AllOf,
    AnyOf,
    Condition,
    Leaf,
    NoneOf,
    Operator,
    Scalar,
)
from services.mesh.filters.evaluate import matches, value_at, words
from services.mesh.filters.milvus import Compiled, compile
from services.mesh.filters.read import FilterLimits, from_proto

__all__ = [
    "DOCUMENT_FIELDS",
    "MATCH_ALL",
    "METADATA",
    "AllOf",
    "AnyOf",
    "Compiled",
    "Condition",
    "FilterLimits",
    "Leaf",
    "NoneOf",
    "Operator",
    "Scalar",
    "compile",
    "from_proto",
    "matches",
    "value_at",
    "words",
]
