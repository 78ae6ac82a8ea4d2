"""The stored queries: durable in a bucket, and in memory as one engine a namespace, kept up to date by following it.

How matching works, `engine` knows.
"""

from __future__ import annotations

import numpy as np
import structlog
from lensmesh.v1 import common_pb2, embedder_pb2, engine_pb2, feature_pb2
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.mesh.bus import topology
from services.mesh.bus.mirror import Mirror
from services.mesh.bus.topology import Bus
from services.mesh.errors import LensmeshError, NotFound
from services.mesh.filters import from_proto
from services.mesh.tenancy import Tenant
from services.percolator.engine import Engine, Query, StoredQuery

log = structlog.get_logger()


def space_of(vector: embedder_pb2.EmbeddedVector) -> tuple[int, str]:
    """The space that a vector lives in."""
    return (vector.vector_index, vector.model_version)


def is_sparse(vector: embedder_pb2.EmbeddedVector) -> bool:
    """Whether a vector is a keyword one; it may be empty."""
    return vector.vector_index == common_pb2.VECTOR_INDEX_KEYWORD


def dense_of(vector: embedder_pb2.EmbeddedVector) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A dense vector's values, float32[D]."""
    return np.frombuffer(vector.vector.dense, dtype="<f4")


def sparse_of(vector: embedder_pb2.EmbeddedVector) -> dict[int, float]:
    """A sparse vector's weights by term id."""
    return dict(zip(vector.vector.indices, vector.vector.values, strict=True))


def to_domain(record: engine_pb2.StoredQueryRecord) -> StoredQuery:
    """A record as the engine takes it."""
    stored = record.stored_query
    return StoredQuery(
        percolator_id=stored.percolator_id,
        collection_ids=frozenset(stored.collection_ids),
        queries=tuple(_query(one, vector) for one, vector in zip(stored.queries, record.vectors, strict=True)),
        min_score=stored.min_score,
        condition=from_proto(stored.filters),
    )


def _query(query: feature_pb2.SearchQuery, vector: embedder_pb2.EmbeddedVector) -> Query:
    condition = from_proto(query.filters) if query.HasField("filters") else None
    if is_sparse(vector):
        return Query(space_of(vector), sparse=sparse_of(vector), condition=condition)
    return Query(space_of(vector), dense=dense_of(vector), condition=condition)


def is_stale(record: engine_pb2.StoredQueryRecord, index: int, version: str) -> bool:
    """Whether a stored query has a vector in this index that is of another version of its model."""
    return any(each.vector_index == index and each.model_version != version for each in record.vectors)


class Registry:
    """Every stored query of every namespace."""

    def __init__(self, bus: Bus, bucket: KeyValue) -> None:
        self._bucket = bucket
        self._engines: dict[str, Engine] = {}
        self._mirror = Mirror(bus, topology.STORED_QUERIES, engine_pb2.StoredQueryRecord, self._changed)

    @classmethod
    async def open(cls, bus: Bus) -> Registry:
        """Load all stored queries, and go on following them."""
        registry = cls(bus, await bus.bucket(topology.STORED_QUERIES))
        await registry._mirror.start()
        log.info("stored queries loaded", count=sum(len(engine) for engine in registry._engines.values()))
        return registry

    async def close(self) -> None:
        """Follow no more."""
        await self._mirror.stop()

    async def ping(self) -> None:
        """Raise unless the stored queries are loaded and followed."""
        await self._mirror.ping()

    def engine(self, tenant: Tenant) -> Engine:
        """The namespace's engine."""
        return self._engines.setdefault(tenant.namespace_id, Engine())

    async def put(self, tenant: Tenant, record: engine_pb2.StoredQueryRecord) -> None:
        """Store a query; returns when it is being matched."""
        key = tenant.key(record.stored_query.percolator_id)
        await self._mirror.seen(await self._bucket.put(key, record.SerializeToString()))

    async def replace(self, tenant: Tenant, record: engine_pb2.StoredQueryRecord) -> None:
        """Store a query in the place of itself; returns when it is being matched.

        Raises:
            NotFound: it is not there any more.
        """
        percolator_id = record.stored_query.percolator_id
        try:
            revision = (await self._bucket.get(tenant.key(percolator_id))).revision
            written = await self._bucket.update(tenant.key(percolator_id), record.SerializeToString(), revision)
        except (KeyNotFoundError, KeyWrongLastSequenceError):
            raise NotFound(f"no stored query {percolator_id!r} in this namespace") from None
        await self._mirror.seen(written)

    def get(self, tenant: Tenant, percolator_id: str) -> engine_pb2.StoredQueryRecord:
        """Read a stored query.

        Raises:
            NotFound: there is none in this namespace.
        """
        record = self._mirror.get(tenant.key(percolator_id))
        if record is None:
            raise NotFound(f"no stored query {percolator_id!r} in this namespace")
        return record

    async def read(self, tenant: Tenant, percolator_id: str) -> engine_pb2.StoredQueryRecord:
        """Read a stored query, as the delivery of matches asks for it.

        Raises:
            NotFound: there is none in this namespace.
        """
        return self.get(tenant, percolator_id)

    def owns(self, percolator_id: str) -> bool:
        """Whether this replica delivers the matches of a stored query: for now, every one does."""
        return True

    def all(self, tenant: Tenant) -> list[engine_pb2.StoredQueryRecord]:
        """The namespace's stored queries, oldest first."""
        return sorted(
            self._mirror.under(tenant.namespace_id + "."),
            key=lambda each: (each.stored_query.created_at.ToNanoseconds(), each.stored_query.percolator_id),
        )

    async def remove(self, tenant: Tenant, percolator_id: str) -> None:
        """Remove a stored query; returns when it is matched no more.

        Raises:
            NotFound: there is none in this namespace.
        """
        self.get(tenant, percolator_id)
        await self._bucket.delete(tenant.key(percolator_id))
        await self._mirror.gone(tenant.key(percolator_id))

    async def forget(self, tenant: Tenant) -> None:
        """Remove all stored queries of a namespace."""
        for record in self.all(tenant):
            await self._bucket.delete(tenant.key(record.stored_query.percolator_id))
        for record in self.all(tenant):
            await self._mirror.gone(tenant.key(record.stored_query.percolator_id))

    def _changed(self, key: str, record: engine_pb2.StoredQueryRecord | None) -> None:
        namespace_id, percolator_id = key.split(".")
        engine = self.engine(Tenant(namespace_id))
        try:
            if record is None:
                engine.remove(percolator_id)
            else:
                engine.put(to_domain(record))
        except (LensmeshError, ValueError) as error:
            # One record that can't be read must not keep the others from being matched.
            log.error("stored query left out", percolator_id=percolator_id, error=str(error))
