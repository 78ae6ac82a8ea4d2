"""The matches: each stored once under an id that the same asset, feature and stored query always give.

The bucket's own order is the order in which they were made, and its sequence the cursor of those who follow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from google.protobuf.json_format import MessageToDict
from lensmesh.v1 import match_pb2, percolator_pb2
from nats.js.errors import KeyWrongLastSequenceError, NotFoundError
from nats.js.kv import KeyValue

from services.mesh.bus import topology
from services.mesh.bus.follow import count, follow, scan
from services.mesh.bus.topology import Bus
from services.mesh.errors import NotFound
from services.mesh.filters import from_proto
from services.mesh.filters import matches as satisfies
from services.mesh.tenancy import Tenant

_STREAM = topology.bucket_stream(topology.MATCHES)


class Matches:
    """The bucket of matches, keyed by collection, stored query, asset and match."""

    def __init__(self, bus: Bus, bucket: KeyValue) -> None:
        self._bus = bus
        self._bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> Matches:
        """Open the bucket."""
        return cls(bus, await bus.bucket(topology.MATCHES))

    async def store(self, tenant: Tenant, found: Sequence[match_pb2.Match]) -> list[match_pb2.Match]:
        """Store matches; one that is there already stays as it was first made. Returns them as stored."""
        return list(await asyncio.gather(*(self._store(tenant, each) for each in found)))

    async def page(
        self, tenant: Tenant, query: match_pb2.ListMatchesRequest, offset: int, limit: int
    ) -> tuple[list[match_pb2.Match], int]:
        """A page of matches, newest first, and how many there are in all."""
        patterns = [
            tenant.pattern(collection_id, query.percolator_id or None, query.asset_id or None, None)
            for collection_id in query.collection_ids
        ]
        subjects = [topology.bucket_subject(topology.MATCHES, each) for each in patterns]
        since = query.since.ToDatetime(tzinfo=UTC) if query.HasField("since") else None
        if query.HasField("filters"):
            return await self._filtered(subjects, since, query, offset, limit)
        sequences = [each.sequence async for each in scan(self._bus, _STREAM, subjects, bodies=False, since=since)]
        page = sequences[::-1][offset : offset + limit]
        messages = await asyncio.gather(*(self._bus.js.get_msg(_STREAM, seq=sequence) for sequence in page))
        return [match_pb2.Match.FromString(each.data or b"") for each in messages], len(sequences)

    async def stats(self, tenant: Tenant, percolator_id: str) -> percolator_pb2.StoredQueryStats:
        """How many matches of a stored query are kept, and when the last one was made."""
        subject = topology.bucket_subject(topology.MATCHES, tenant.pattern(None, percolator_id, None, None))
        stats = percolator_pb2.StoredQueryStats(matches=await count(self._bus, _STREAM, subject))
        if stats.matches:
            try:
                last = await self._bus.js.get_last_msg(_STREAM, subject)
                stats.last_match_at.CopyFrom(match_pb2.Match.FromString(last.data or b"").created_at)
            except NotFoundError:
                # Removed just now.
                stats.matches = 0
        return stats

    async def remove(self, tenant: Tenant, collection_id: str | None, asset_id: str | None) -> int:
        """Remove the matches of a collection or an asset, or all of them; returns how many there were."""
        subject = topology.bucket_subject(topology.MATCHES, tenant.pattern(collection_id, None, asset_id, None))
        found = [each async for each in scan(self._bus, _STREAM, [subject], bodies=False)]
        # Nobody keeps matches in memory, so that no marks of removal are needed.
        await self._bus.js.purge_stream(_STREAM, subject=subject)
        return len(found)

    async def remove_one(self, tenant: Tenant, match_id: str) -> None:
        """Remove a match.

        Raises:
            NotFound: there is none in this namespace.
        """
        tenant.key(match_id)
        subject = topology.bucket_subject(topology.MATCHES, tenant.pattern(None, None, None, match_id))
        found = [each async for each in scan(self._bus, _STREAM, [subject], bodies=False)]
        if not found:
            raise NotFound(f"no match {match_id!r} in this namespace")
        await self._bus.js.purge_stream(_STREAM, subject=found[0].subject)

    async def follow(
        self, tenant: Tenant, cursor: int, percolator_id: str | None
    ) -> AsyncIterator[tuple[match_pb2.Match, int]]:
        """Every match behind a cursor, and those to come, each with the cursor after it."""
        subject = topology.bucket_subject(topology.MATCHES, tenant.pattern(None, percolator_id, None, None))
        async for entry in follow(self._bus, _STREAM, [subject], after=cursor):
            if entry is not None and not entry.deleted:
                yield match_pb2.Match.FromString(entry.value), entry.sequence

    async def _store(self, tenant: Tenant, match: match_pb2.Match) -> match_pb2.Match:
        key = tenant.key(match.collection_id, match.percolator_id, match.asset_id, match.match_id)
        try:
            await self._bucket.create(key, match.SerializeToString())
            return match
        except KeyWrongLastSequenceError:
            entry = await self._bucket.get(key)
            return match_pb2.Match.FromString(entry.value or b"")

    async def _filtered(
        self,
        subjects: list[str],
        since: datetime | None,
        query: match_pb2.ListMatchesRequest,
        offset: int,
        limit: int,
    ) -> tuple[list[match_pb2.Match], int]:
        condition = from_proto(query.filters)
        kept = []
        async for entry in scan(self._bus, _STREAM, subjects, since=since):
            match = match_pb2.Match.FromString(entry.value)
            if satisfies(condition, {"metadata": MessageToDict(match.metadata)}):
                kept.append(match)
        return kept[::-1][offset : offset + limit], len(kept)
