"""Which matches go into the next call of a lane, and what the call's end changes in the lane's record.

The functions below are called again after every lost compare-and-set, so they look at what the record says now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lensmesh.v1 import engine_pb2, percolator_pb2

from services.mesh.bus.tasks import now
from services.percolator.config import WebhookSettings
from services.percolator.delivery_records import DeliveryRecords
from services.percolator.lane import Lane
from services.percolator.webhook import encoded_match

Record = engine_pb2.DeliveryRecord


@dataclass(slots=True)
class Batch:
    """The matches of one call."""

    # Where the record's cursor stood, and how often the webhook had been given anew.
    base: int
    replaced: int
    # The sequence of the last match that this settles, deleted ones included.
    until: int
    # Sequence and id of those that are still kept, and the matches as JSON.
    matches: list[tuple[int, str]] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    # Whether they were given up before.
    again: bool = False

    @property
    def match_ids(self) -> list[str]:
        """Their ids."""
        return [match_id for _, match_id in self.matches]


class Batches:
    """Composes calls."""

    def __init__(self, records: DeliveryRecords, settings: WebhookSettings) -> None:
        self._records = records
        self._settings = settings

    async def next(self, lane: Lane) -> Batch:
        """The matches of the next call: dead letters that are wanted again, else what waits; none when nothing does."""
        record = lane.record
        batch = Batch(record.cursor, record.replaced, record.cursor, again=bool(record.redeliver_until))
        if batch.again:
            await self._buried(lane, batch)
        else:
            await self._waiting(lane, batch)
        return batch

    async def _waiting(self, lane: Lane, batch: Batch) -> None:
        """The first that wait; after a failed try the very same ones, under the same id."""
        limit = self._settings.call_matches_max
        if (not lane.complete and len(lane.pending) < limit) or (lane.record.waiting and not lane.pending):
            await self._look_up(lane)
        first = list(lane.pending)[:limit]
        until = lane.record.until
        await self._load(batch, [each for each in first if not until or each <= until])

    async def _look_up(self, lane: Lane) -> None:
        """Fill the lane with what waits behind the cursor."""
        seen, limit, after = lane.last_seen, self._settings.queue_percolator_max, int(lane.record.cursor)
        found = await self._records.sequences(lane.tenant, lane.percolator_id, after=after, limit=limit)
        lane.filled(found, all_of_them=len(found) < limit, seen_before=seen)

    async def _buried(self, lane: Lane, batch: Batch) -> None:
        """The first dead letters that are wanted again; those whose matches were deleted are dropped."""
        found = await self._records.buried(lane.tenant, lane.percolator_id, lane.record.redeliver_until)
        limit = self._settings.call_matches_max
        for start in range(0, len(found), limit):
            some = found[start : start + limit]
            looked_at = await self._load(batch, [each.sequence for each in some])
            deleted = {each.match_id for each in some[:looked_at]} - set(batch.match_ids)
            await self._records.unbury(lane.tenant, lane.percolator_id, sorted(deleted))
            if batch.matches:
                return

    async def _load(self, batch: Batch, sequences: Sequence[int]) -> int:
        """Read matches into a batch, as many as a call may hold; returns how many were looked at."""
        size = 0
        for position, match in enumerate(await self._records.matches(sequences)):
            if match is not None:
                encoded = encoded_match(match)
                size += len(encoded)
                if batch.matches and size > self._settings.call_bytes_max:
                    return position
                batch.matches.append((sequences[position], match.match_id))
                batch.encoded.append(encoded)
            if not batch.again:
                batch.until = sequences[position]
        return len(sequences)


def delivered(record: Record, batch: Batch, lane: Lane, dead: int | None) -> bool:
    """The receiver took it.

    Args:
        dead: how many dead letters are left, where that has changed.
    """
    _move_on(record, batch, lane)
    record.last_error = ""
    record.delivered_at.CopyFrom(now())
    if dead is not None:
        record.dead_letters = dead
    return True


def nothing(record: Record, batch: Batch, lane: Lane) -> bool:
    """There was nothing to send, or all of it was deleted."""
    if batch.again:
        record.redeliver_until = 0
    _move_on(record, batch, lane)
    return True


def given_up(record: Record, batch: Batch, lane: Lane, reason: str, dead: int) -> bool:
    """The matches are dead letters."""
    if batch.again:
        record.redeliver_until = 0
    _move_on(record, batch, lane)
    record.last_error, record.dead_letters = reason, dead
    return True


def failed(record: Record, batch: Batch, reason: str, attempts: int) -> bool:
    """The call is to be tried again."""
    if record.replaced != batch.replaced or record.cursor != batch.base:
        return False
    record.attempts, record.state, record.last_error = attempts, percolator_pb2.DELIVERY_STATE_RETRYING, reason
    record.until = 0 if batch.again else batch.until
    record.waiting = True
    return True


def gone(record: Record, batch: Batch, reason: str) -> bool:
    """The endpoint wants nothing any more."""
    if record.replaced != batch.replaced:
        return False
    record.state, record.last_error = percolator_pb2.DELIVERY_STATE_GONE, reason
    record.attempts = record.until = record.redeliver_until = 0
    record.waiting = False
    return True


def waits(record: Record) -> bool:
    """What waits, waits for longer than the checkpoint should."""
    record.waiting = True
    return True


def _move_on(record: Record, batch: Batch, lane: Lane) -> None:
    """Settle a batch, but for a record whose cursor somebody has set back meanwhile: those matches are wanted again."""
    record.attempts = record.until = 0
    record.state = percolator_pb2.DELIVERY_STATE_ACTIVE
    if batch.again or record.cursor != batch.base:
        return
    record.cursor = batch.until
    record.waiting = not lane.complete or bool(lane.pending and lane.pending[-1] > batch.until)
