"""The stored queries as they are kept: one record each in its partition's bucket, under namespace and id.

What matches, `engine` knows; which replica has which partition in memory, `cluster`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import numpy as np
import structlog
from lensmesh.v1 import common_pb2, embedder_pb2, engine_pb2, feature_pb2, percolator_pb2
from nats.js.errors import BadRequestError, KeyNotFoundError, KeyWrongLastSequenceError, NotFoundError
from nats.js.kv import KeyValue

from services.mesh.bus import topology
from services.mesh.bus.follow import scan
from services.mesh.bus.topology import Bus
from services.mesh.errors import NotFound
from services.mesh.filters import MATCH_ALL, from_proto
from services.mesh.tenancy import Tenant
from services.percolator.engine import NEVER_NS, Query, StoredQuery
from services.percolator.partitions import partition_of

log = structlog.get_logger()

# Records read or written at a time by one call.
_TOGETHER = 64
# A million records are read at a start, for each of which enumerations are looked up but once.
_KEYWORD = common_pb2.VECTOR_INDEX_KEYWORD
_FLOAT32 = np.dtype("<f4")
# NATS' own error code for a write on another revision than was expected.
_WRONG_LAST_SEQUENCE = 10071
_DELETED = {"KV-Operation": "DEL"}


def space_of(vector: embedder_pb2.EmbeddedVector) -> tuple[int, str]:
    """The space that a vector lives in."""
    return (vector.vector_index, vector.model_version)


def is_sparse(vector: embedder_pb2.EmbeddedVector) -> bool:
    """Whether a vector is a keyword one; it may be empty."""
    return vector.vector_index == _KEYWORD


def dense_of(vector: embedder_pb2.EmbeddedVector) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A dense vector's values, float32[D]."""
    return np.frombuffer(vector.vector.dense, _FLOAT32)


def sparse_of(vector: embedder_pb2.EmbeddedVector) -> dict[int, float]:
    """A sparse vector's weights by term id."""
    return dict(zip(vector.vector.indices, vector.vector.values, strict=True))


def to_domain(record: engine_pb2.StoredQueryRecord, partition: int | None = None) -> StoredQuery:
    """A record as the engine takes it; its partition need not be found out where it is known."""
    stored = record.stored_query
    created, percolator_id = stored.created_at, stored.percolator_id
    return StoredQuery(
        percolator_id=percolator_id,
        collection_ids=frozenset(stored.collection_ids),
        queries=tuple(map(_query, stored.queries, record.vectors)),
        min_score=stored.min_score,
        condition=from_proto(stored.filters) if stored.HasField("filters") else MATCH_ALL,
        enabled=stored.enabled,
        created_ns=created.seconds * 1_000_000_000 + created.nanos,
        # A time beyond 2262 fits into no 64 bits of nanoseconds.
        expires_ns=min(stored.expires_at.ToNanoseconds(), NEVER_NS) if stored.HasField("expires_at") else NEVER_NS,
        partition=partition_of(percolator_id) if partition is None else partition,
        payload=_payload(stored),
    )


def _payload(stored: percolator_pb2.StoredQuery) -> bytes:
    """What a match says of its stored query, as a part of a serialized `FoundQuery`."""
    if stored.HasField("metadata"):
        return engine_pb2.FoundQuery(name=stored.name, metadata=stored.metadata).SerializeToString()
    return engine_pb2.FoundQuery(name=stored.name).SerializeToString() if stored.name else b""


def _query(query: feature_pb2.SearchQuery, vector: embedder_pb2.EmbeddedVector) -> Query:
    condition = from_proto(query.filters) if query.HasField("filters") else None
    index = vector.vector_index
    space = (index, vector.model_version)
    if index == _KEYWORD:
        return Query(space, None, sparse_of(vector), condition)
    return Query(space, np.frombuffer(vector.vector.dense, _FLOAT32), None, condition)


def stream_of(partition: int) -> str:
    """The stream under a partition's bucket."""
    return topology.bucket_stream(topology.STORED_QUERIES[partition])


def subject_of(tenant: Tenant, percolator_id: str) -> str:
    """The subject of a stored query. Raises NotFound for what can't be an id."""
    return topology.bucket_subject(topology.STORED_QUERIES[partition_of(percolator_id)], tenant.key(percolator_id))


def parts_of(subject: str) -> tuple[str, str]:
    """Namespace and id of the subject of a record."""
    _, _, namespace_id, percolator_id = subject.split(".")
    return namespace_id, percolator_id


class Records:
    """Reads and writes records; who writes learns the revision, to wait for it to be matched."""

    def __init__(self, bus: Bus, buckets: Sequence[KeyValue]) -> None:
        self._bus = bus
        self._buckets = buckets

    @classmethod
    async def open(cls, bus: Bus) -> Records:
        """Open the buckets, and move into them what an older version had in one."""
        records = cls(bus, [await bus.bucket(each) for each in topology.STORED_QUERIES])
        await records._move_old()
        return records

    async def put(self, tenant: Tenant, record: engine_pb2.StoredQueryRecord) -> int:
        """Write a record, in the place of the one with its id; returns the revision."""
        bucket, key = self._place(tenant, record.stored_query.percolator_id)
        return await bucket.put(key, record.SerializeToString())

    async def replace(self, tenant: Tenant, record: engine_pb2.StoredQueryRecord) -> int:
        """Write a record in the place of itself; returns the revision.

        Raises:
            NotFound: it is not there any more.
        """
        bucket, key = self._place(tenant, record.stored_query.percolator_id)
        try:
            known = await bucket.get(key)
            return await bucket.update(key, record.SerializeToString(), known.revision)
        except (KeyNotFoundError, KeyWrongLastSequenceError):
            raise _no_query(record.stored_query.percolator_id) from None

    async def read(self, tenant: Tenant, percolator_id: str) -> engine_pb2.StoredQueryRecord:
        """Read a record.

        Raises:
            NotFound: there is none in this namespace.
        """
        return (await self._read(tenant, percolator_id))[0]

    async def read_all(self, tenant: Tenant, percolator_ids: Sequence[str]) -> list[engine_pb2.StoredQueryRecord]:
        """Read records in this order; those that are gone meanwhile are left out."""
        found: list[engine_pb2.StoredQueryRecord] = []
        for start in range(0, len(percolator_ids), _TOGETHER):
            some = percolator_ids[start : start + _TOGETHER]
            answers = await asyncio.gather(*(self.read(tenant, each) for each in some), return_exceptions=True)
            for answer in answers:
                if isinstance(answer, engine_pb2.StoredQueryRecord):
                    found.append(answer)
                elif not isinstance(answer, NotFound):
                    raise answer
        return found

    async def remove(self, tenant: Tenant, percolator_id: str, *, expired_ns: int | None = None) -> int:
        """Remove a record; returns the revision.

        Args:
            expired_ns: only one that expires until then, as it is at this moment.

        Raises:
            NotFound: there is none in this namespace, or it does not expire until then.
        """
        record, revision = await self._read(tenant, percolator_id)
        if expired_ns is not None and to_domain(record).expires_ns > expired_ns:
            raise _no_query(percolator_id)
        removed = await self._publish(tenant, percolator_id, b"", revision, _DELETED)
        if removed is None:
            raise _no_query(percolator_id)
        return removed

    async def all(self, tenant: Tenant) -> AsyncIterator[engine_pb2.StoredQueryRecord]:
        """Every record of a namespace, partition by partition, in each in the order of their last change."""
        for bucket in topology.STORED_QUERIES:
            subject = topology.bucket_subject(bucket, tenant.pattern(None))
            async for entry in scan(self._bus, topology.bucket_stream(bucket), [subject]):
                yield engine_pb2.StoredQueryRecord.FromString(entry.value)

    async def _read(self, tenant: Tenant, percolator_id: str) -> tuple[engine_pb2.StoredQueryRecord, int]:
        bucket, key = self._place(tenant, percolator_id)
        try:
            entry = await bucket.get(key)
        except KeyNotFoundError:
            raise _no_query(percolator_id) from None
        return engine_pb2.StoredQueryRecord.FromString(entry.value or b""), entry.revision or 0

    def _place(self, tenant: Tenant, percolator_id: str) -> tuple[KeyValue, str]:
        """The bucket of a stored query, and its key there. Raises NotFound for what can't be an id."""
        return self._buckets[partition_of(percolator_id)], tenant.key(percolator_id)

    async def _publish(
        self, tenant: Tenant, percolator_id: str, value: bytes, expected: int, headers: dict[str, str]
    ) -> int | None:
        """Write on a revision, 0 for none ever; returns the new one, or None where it is another by now."""
        headers = headers | {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        try:
            return (await self._bus.js.publish(subject_of(tenant, percolator_id), value, headers=headers)).seq
        except BadRequestError as error:
            if error.err_code != _WRONG_LAST_SEQUENCE:
                raise
            return None

    async def _move_old(self) -> None:
        stream = topology.bucket_stream(topology.STORED_QUERIES_BEFORE)
        try:
            await self._bus.js.stream_info(stream)
        except NotFoundError:
            return
        moved = 0
        async for entry in scan(self._bus, stream, []):
            record = engine_pb2.StoredQueryRecord.FromString(entry.value)
            # Keys of namespace and id alone are of a version that knew no other.
            record.stored_query.enabled |= entry.key.count(".") == 1
            name, value = record.stored_query.percolator_id, record.SerializeToString()
            # What is there or was there, another percolator has moved; it may have been changed since.
            moved += await self._publish(Tenant(record.namespace_id), name, value, 0, {}) is not None
        with contextlib.suppress(NotFoundError):
            await self._bus.js.delete_stream(stream)
        log.info("stored queries moved to the buckets of their partitions", count=moved)


def _no_query(percolator_id: str) -> NotFound:
    return NotFound(f"no stored query {percolator_id!r} in this namespace")
