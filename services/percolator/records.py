"""The stored queries as they are kept: one record each in a bucket, under namespace, partition and id.

What matches, `engine` knows; which replica has which partition in memory, `cluster`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

import numpy as np
import structlog
from lensmesh.v1 import common_pb2, embedder_pb2, engine_pb2, feature_pb2, percolator_pb2
from nats.js.errors import BadRequestError, KeyNotFoundError, KeyWrongLastSequenceError
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

STREAM = topology.bucket_stream(topology.STORED_QUERIES)
# Records read or written at a time by one call.
_TOGETHER = 64
# A million records are read at a start, for each of which enumerations are looked up but once.
_KEYWORD = common_pb2.VECTOR_INDEX_KEYWORD
_FLOAT32 = np.dtype("<f4")
# NATS' own error code for a write on another revision than was expected.
_WRONG_LAST_SEQUENCE = 10071
# nats-server spends 70 microseconds on a message where there are several filters, and 8 where there is none: for more
# partitions than these it is cheaper to be sent everything.
_FILTERED_MAX = 8
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


def key_of(tenant: Tenant, percolator_id: str) -> str:
    """The key of a stored query. Raises NotFound for what can't be an id."""
    return tenant.key(_token(partition_of(percolator_id)), percolator_id)


def parts_of(subject: str) -> tuple[str, int, str]:
    """Namespace, partition and id of the subject of a record."""
    _, _, namespace_id, token, percolator_id = subject.split(".")
    return namespace_id, int(token[1:]), percolator_id


def subjects_of(partitions: Iterable[int]) -> list[str]:
    """The subjects of the records of some partitions, of all namespaces, and of more where there are many of them."""
    wanted = sorted(partitions)
    patterns = [f"*.{_token(each)}.*" for each in wanted] if len(wanted) <= _FILTERED_MAX else ["*.*.*"]
    return [topology.bucket_subject(topology.STORED_QUERIES, each) for each in patterns]


def _token(partition: int) -> str:
    return f"p{partition:02}"


class Records:
    """Reads and writes records; who writes learns the revision, to wait for it to be matched."""

    def __init__(self, bus: Bus, bucket: KeyValue) -> None:
        self._bus = bus
        self._bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> Records:
        """Open the bucket, and move what an older version left in it under the keys of this one."""
        records = cls(bus, await bus.bucket(topology.STORED_QUERIES))
        await records._move_old()
        return records

    async def put(self, tenant: Tenant, record: engine_pb2.StoredQueryRecord) -> int:
        """Write a record, in the place of the one with its id; returns the revision."""
        return await self._bucket.put(key_of(tenant, record.stored_query.percolator_id), record.SerializeToString())

    async def replace(self, tenant: Tenant, record: engine_pb2.StoredQueryRecord) -> int:
        """Write a record in the place of itself; returns the revision.

        Raises:
            NotFound: it is not there any more.
        """
        key = key_of(tenant, record.stored_query.percolator_id)
        try:
            known = await self._bucket.get(key)
            return await self._bucket.update(key, record.SerializeToString(), known.revision)
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
        headers = _DELETED | {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        subject = topology.bucket_subject(topology.STORED_QUERIES, key_of(tenant, percolator_id))
        try:
            return (await self._bus.js.publish(subject, b"", headers=headers)).seq
        except BadRequestError as error:
            if error.err_code != _WRONG_LAST_SEQUENCE:
                raise
            raise _no_query(percolator_id) from None

    async def all(self, tenant: Tenant) -> AsyncIterator[engine_pb2.StoredQueryRecord]:
        """Every record of a namespace, in the order of their last change."""
        subject = topology.bucket_subject(topology.STORED_QUERIES, tenant.pattern(None, None))
        async for entry in scan(self._bus, STREAM, [subject]):
            yield engine_pb2.StoredQueryRecord.FromString(entry.value)

    async def _read(self, tenant: Tenant, percolator_id: str) -> tuple[engine_pb2.StoredQueryRecord, int]:
        try:
            entry = await self._bucket.get(key_of(tenant, percolator_id))
        except KeyNotFoundError:
            raise _no_query(percolator_id) from None
        return engine_pb2.StoredQueryRecord.FromString(entry.value or b""), entry.revision or 0

    async def _move_old(self) -> None:
        subject = topology.bucket_subject(topology.STORED_QUERIES, "*.*")
        moved = 0
        async for entry in scan(self._bus, STREAM, [subject]):
            record = engine_pb2.StoredQueryRecord.FromString(entry.value)
            # That version knew no other.
            record.stored_query.enabled = True
            await self.put(Tenant(record.namespace_id), record)
            moved += 1
        if moved:
            await self._bus.js.purge_stream(STREAM, subject=subject)
            log.info("stored queries moved to their partitions", count=moved)


def _no_query(percolator_id: str) -> NotFound:
    return NotFound(f"no stored query {percolator_id!r} in this namespace")
