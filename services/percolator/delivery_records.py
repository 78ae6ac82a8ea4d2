"""How the deliveries of each stored query stand, and the matches that were given up: kept in NATS, changed by
compare-and-set.

Who changes what, and when, `sending` and `delivery_control` know.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from lensmesh.v1 import engine_pb2, match_pb2, percolator_pb2
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError, NotFoundError
from nats.js.kv import KeyValue

from services.mesh.bus import topology
from services.mesh.bus.follow import Entry, follow, scan
from services.mesh.bus.tasks import now
from services.mesh.bus.topology import Bus
from services.mesh.errors import Conflict
from services.mesh.tenancy import Tenant
from services.percolator.lane import Held

MATCHES_STREAM = topology.bucket_stream(topology.MATCHES)
DELIVERIES_STREAM = topology.bucket_stream(topology.DELIVERIES)
#: The key of the sequence up to which nobody need look at matches any more.
CHECKPOINT = "checkpoint"
# Writers of one record at a time are few: the replica that delivers, and whoever replaces or asks again.
_CHANGE_ATTEMPTS_MAX = 20
_READS_AT_A_TIME = 20


@dataclass(frozen=True, slots=True)
class Buried:
    """A dead letter: the match, its sequence among the matches, and its own among the dead letters."""

    match_id: str
    sequence: int
    letter: int


class DeliveryRecords:
    """The bucket of delivery records, the dead letters, and the stream of matches as deliveries need it."""

    def __init__(self, bus: Bus, bucket: KeyValue) -> None:
        self._bus = bus
        self._bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> DeliveryRecords:
        """Open the bucket."""
        return cls(bus, await bus.bucket(topology.DELIVERIES))

    async def read(self, tenant: Tenant, percolator_id: str) -> Held | None:
        """How a stored query's deliveries stand; None when it has no webhook."""
        try:
            entry = await self._bucket.get(tenant.key(percolator_id))
        except KeyNotFoundError:
            return None
        return Held(engine_pb2.DeliveryRecord.FromString(entry.value or b""), entry.revision or 0)

    async def create(self, tenant: Tenant, percolator_id: str) -> None:
        """Begin to deliver what is matched from now on; nothing happens where that has begun."""
        record = engine_pb2.DeliveryRecord(
            cursor=await self.last_sequence(), state=percolator_pb2.DELIVERY_STATE_ACTIVE
        )
        try:
            await self._bucket.create(tenant.key(percolator_id), record.SerializeToString())
        except KeyWrongLastSequenceError:
            return

    async def change(
        self, tenant: Tenant, percolator_id: str, known: Held, mutate: Callable[[engine_pb2.DeliveryRecord], bool]
    ) -> Held | None:
        """Change a record by compare-and-set, reading it again as long as somebody else was faster.

        Args:
            known: the record as last read.
            mutate: changes a copy in place and returns True, or returns False to leave it as it is.

        Returns:
            The record as it is now; None when it is gone.
        """
        key = tenant.key(percolator_id)
        for attempt in range(_CHANGE_ATTEMPTS_MAX):
            changed = engine_pb2.DeliveryRecord()
            changed.CopyFrom(known.record)
            if not mutate(changed):
                return known
            try:
                return Held(changed, await self._bucket.update(key, changed.SerializeToString(), known.revision))
            except KeyWrongLastSequenceError:
                # A replica may not have the other's write yet.
                await asyncio.sleep(0.001 * attempt)
                fresh = await self.read(tenant, percolator_id)
                if fresh is None:
                    return None
                known = fresh
        raise Conflict("the deliveries of this stored query are being changed by too many at once; try again")

    async def remove(self, tenant: Tenant, percolator_id: str) -> None:
        """Deliver no more, and forget what was given up."""
        if await self.read(tenant, percolator_id) is None:
            return
        await self._bucket.delete(tenant.key(percolator_id))
        await self._bus.js.purge_stream(topology.DEAD_LETTERS, subject=_letters(tenant, percolator_id, ">"))

    async def remove_all(self, tenant: Tenant) -> None:
        """Remove those of a whole namespace."""
        subject = topology.bucket_subject(topology.DELIVERIES, tenant.pattern(None))
        for entry in [each async for each in scan(self._bus, DELIVERIES_STREAM, [subject], bodies=False)]:
            await self._bucket.delete(entry.key)
        await self._bus.js.purge_stream(topology.DEAD_LETTERS, subject=_letters(tenant, ">"))

    def follow(self) -> AsyncIterator[Entry | None]:
        """Every record and every change to come; None whenever there is no more yet."""
        return follow(self._bus, DELIVERIES_STREAM, [topology.bucket_subject(topology.DELIVERIES, ">")])

    async def note_checkpoint(self, sequence: int) -> None:
        """Remember that nobody need look at matches up to this one any more."""
        await self._bucket.put(CHECKPOINT, engine_pb2.DeliveryRecord(cursor=sequence).SerializeToString())

    def follow_matches(self, after: int) -> AsyncIterator[Entry | None]:
        """Every match behind a sequence without its content, and those to come."""
        subject = topology.bucket_subject(topology.MATCHES, ">")
        return follow(self._bus, MATCHES_STREAM, [subject], after, bodies=False)

    async def last_sequence(self) -> int:
        """The sequence of the newest match."""
        return int((await self._bus.js.stream_info(MATCHES_STREAM)).state.last_seq)

    async def sequences(
        self, tenant: Tenant, percolator_id: str, *, after: int = 0, since: datetime | None = None, limit: int
    ) -> list[int]:
        """The first matches of a stored query that are kept, behind a sequence or since a time, oldest first."""
        pattern = tenant.pattern(None, percolator_id, None, None)
        subject = topology.bucket_subject(topology.MATCHES, pattern)
        found: list[int] = []
        entries = scan(self._bus, MATCHES_STREAM, [subject], bodies=False, since=since, after=after)
        async with aclosing(entries) as kept:  # type: ignore[type-var]
            async for entry in kept:
                found.append(entry.sequence)
                if len(found) == limit:
                    break
        return found

    async def matches(self, sequences: Sequence[int]) -> list[match_pb2.Match | None]:
        """The matches at these sequences; None where one was deleted."""
        limit = asyncio.Semaphore(_READS_AT_A_TIME)

        async def one(sequence: int) -> match_pb2.Match | None:
            async with limit:
                try:
                    # Not a direct read: a replica that does not have it yet would say that it was deleted.
                    message = await self._bus.js.get_msg(MATCHES_STREAM, seq=sequence)
                except NotFoundError:
                    return None
            return match_pb2.Match.FromString(message.data or b"")

        return await asyncio.gather(*(one(each) for each in sequences))

    async def bury(
        self, tenant: Tenant, percolator_id: str, matches: Sequence[tuple[int, str]], reason: str, attempts: int
    ) -> None:
        """Put matches, given by sequence and id, among the dead letters."""
        for sequence, match_id in matches:
            letter = engine_pb2.DeadDelivery(
                namespace_id=tenant.namespace_id,
                percolator_id=percolator_id,
                match_id=match_id,
                sequence=sequence,
                reason=reason,
                attempts=attempts,
                given_up_at=now(),
            )
            await self._bus.js.publish(_letters(tenant, percolator_id, match_id), letter.SerializeToString())

    async def buried(self, tenant: Tenant, percolator_id: str, until: int | None = None) -> list[Buried]:
        """The dead letters of a stored query up to a letter, or all; each match once, in the order of the matches."""
        found: dict[str, Buried] = {}
        subject = _letters(tenant, percolator_id, ">")
        async for entry in scan(self._bus, topology.DEAD_LETTERS, [subject]):
            letter = engine_pb2.DeadDelivery.FromString(entry.value)
            if until is None or entry.sequence <= until:
                found[letter.match_id] = Buried(letter.match_id, letter.sequence, entry.sequence)
        return sorted(found.values(), key=lambda each: each.sequence)

    async def unbury(self, tenant: Tenant, percolator_id: str, match_ids: Sequence[str]) -> None:
        """Take matches out of the dead letters."""
        for match_id in match_ids:
            await self._bus.js.purge_stream(topology.DEAD_LETTERS, subject=_letters(tenant, percolator_id, match_id))

    async def count_buried(self, tenant: Tenant, percolator_id: str) -> int:
        """How many matches of a stored query are dead letters."""
        subject = _letters(tenant, percolator_id, ">")
        return len({each.subject async for each in scan(self._bus, topology.DEAD_LETTERS, [subject], bodies=False)})


def _letters(tenant: Tenant, *parts: str) -> str:
    return ".".join((topology.DEAD_DELIVERY_SUBJECT, tenant.key(*parts[:-1]), parts[-1]))
