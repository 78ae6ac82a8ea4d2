"""Exact matching of new vectors against stored queries. Knows neither protobuf nor NATS.

`core` puts it together: `first_pass` rules out, `exact_rows` and `postings` score, `scopes` and `conditions` filter,
and `payloads` come back with what is found.
"""

from services.percolator.engine.core import Engine
from services.percolator.engine.first_pass import IntegerProduct
from services.percolator.engine.payloads import Payloads
from services.percolator.engine.types import (
    NEVER_NS,
    Asset,
    Dense,
    Found,
    Matched,
    Probe,
    Query,
    Space,
    Sparse,
    Stats,
    StoredQuery,
)

__all__ = [
    "NEVER_NS",
    "Asset",
    "Dense",
    "Engine",
    "Found",
    "IntegerProduct",
    "Matched",
    "Payloads",
    "Probe",
    "Query",
    "Space",
    "Sparse",
    "Stats",
    "StoredQuery",
]
