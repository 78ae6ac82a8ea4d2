"""What a stored query must be like, and the record that is kept of it, whether one is made or many are imported.

Where its vectors come from, `queries` and `imports` know.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp
from lensmesh.v1 import common_pb2, embedder_pb2, engine_pb2, feature_pb2, percolator_pb2

from services.gateway.auth import Caller
from services.gateway.config import GatewaySettings
from services.gateway.core.files import Files
from services.mesh.bus.tasks import now
from services.mesh.errors import InvalidArgument, PayloadTooLarge, QuotaExceeded
from services.mesh.filters import from_proto

# The threshold of a stored query that does not say its own.
MIN_SCORE_DEFAULT = 0.5
# Bytes of a record with its vectors: NATS takes 1 MB.
RECORD_BYTES_MAX = 950_000
# 9999-12-31T23:59:59Z, the last second that RFC 3339 can say.
_SECONDS_MAX = 253_402_300_799

Wanted: TypeAlias = (
    percolator_pb2.CreateStoredQueryRequest
    | percolator_pb2.ReplaceStoredQueryRequest
    | percolator_pb2.PortableStoredQuery
)


def check(wanted: Wanted, files: Files) -> None:
    """Check what the contract's rules can't say.

    Raises:
        InvalidArgument: a filter can't be read, the metadata are too large, or it has expired.
    """
    files.check_metadata(wanted.metadata)
    from_proto(wanted.filters)
    for position, query in enumerate(wanted.queries):
        from_proto(query.filters, path=("body", "queries", position, "filters"))
    if wanted.HasField("expires_at"):
        _check_expiry(wanted.expires_at)


def check_vectors(queries: Sequence[feature_pb2.SearchQuery], vectors: Sequence[embedder_pb2.EmbeddedVector]) -> None:
    """Raise InvalidArgument where a query could never match anything, as it has no words."""
    for position, (query, made) in enumerate(zip(queries, vectors, strict=True)):
        if query.vector_index == common_pb2.VECTOR_INDEX_KEYWORD and not made.vector.indices:
            raise InvalidArgument.field(f"queries.{position}.value", "needs at least one word", "query.words")


def record_of(
    caller: Caller,
    wanted: Wanted,
    percolator_id: str,
    collection_ids: Iterable[str],
    kept: Sequence[feature_pb2.SearchQuery],
    vectors: Sequence[embedder_pb2.EmbeddedVector],
) -> engine_pb2.StoredQueryRecord:
    """The record, stored now.

    Args:
        kept: the queries as records keep them.

    Raises:
        PayloadTooLarge: it is larger than a record may be.
    """
    stored = percolator_pb2.StoredQuery(
        percolator_id=percolator_id,
        collection_ids=dict.fromkeys(collection_ids),
        queries=kept,
        metadata=wanted.metadata,
        min_score=wanted.min_score if wanted.HasField("min_score") else MIN_SCORE_DEFAULT,
        name=wanted.name,
        created_at=now(),
        enabled=wanted.enabled if wanted.HasField("enabled") else True,
    )
    if wanted.HasField("expires_at"):
        stored.expires_at.CopyFrom(wanted.expires_at)
    if wanted.HasField("filters"):
        stored.filters.CopyFrom(wanted.filters)
    record = engine_pb2.StoredQueryRecord(namespace_id=caller.tenant.namespace_id, stored_query=stored, vectors=vectors)
    if record.ByteSize() > RECORD_BYTES_MAX:
        raise PayloadTooLarge(
            f"the stored query has {record.ByteSize()} bytes with its vectors; at most {RECORD_BYTES_MAX} are kept"
        )
    return record


def most(caller: Caller, settings: GatewaySettings) -> int:
    """How many stored queries the caller's namespace may have."""
    limits = caller.namespace.limits
    return limits.stored_queries_max if limits.HasField("stored_queries_max") else settings.stored_queries_max


def full(count: int, limit: int) -> QuotaExceeded:
    """The refusal of one more."""
    return QuotaExceeded(f"this namespace has {count} stored queries; at most {limit} are kept")


def _check_expiry(expires_at: Timestamp) -> None:
    # REST's are checked when they are read; a message may hold anything.
    if not (0 <= expires_at.nanos < 1_000_000_000 and expires_at.seconds <= _SECONDS_MAX):
        raise InvalidArgument.field("expires_at", "must be a time up to the year 9999", "timestamp.range")
    if expires_at.ToNanoseconds() <= time.time_ns():
        raise InvalidArgument.field("expires_at", "must be in the future", "timestamp.gt_now")
