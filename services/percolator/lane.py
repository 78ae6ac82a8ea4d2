"""What waits to be delivered for one stored query: the sequences of its matches, and the record as last seen.

Knows neither NATS nor HTTP; `deliveries` fills it, `sending` empties it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from lensmesh.v1 import engine_pb2, percolator_pb2

from services.mesh.tenancy import Tenant


@dataclass(slots=True)
class Held:
    """A record and the revision that it was read or written at."""

    record: engine_pb2.DeliveryRecord
    revision: int


@dataclass(slots=True)
class Lane:
    """The queue of one stored query; sequences only, and of a long one only the first."""

    tenant: Tenant
    percolator_id: str
    # As last seen; revision 0: only its cursor is known.
    held: Held
    pending: deque[int] = field(default_factory=deque)
    # Whether everything behind the cursor is in `pending`; if not, the rest is looked up when it is empty.
    complete: bool = True
    # The newest match that was seen.
    last_seen: int = 0
    # Set when the record has changed by somebody else's hand, or the deliverer stops.
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    # Nothing is to be sent any more: the record is gone, or the endpoint.
    closed: bool = False
    # By the event loop's clock: no try before this.
    not_before: float = 0.0
    # By the same clock: since when the stored query is not found, or found without a webhook; 0: it is there.
    absent_since: float = 0.0
    task: asyncio.Task[None] | None = None

    @property
    def record(self) -> engine_pb2.DeliveryRecord:
        """The record as last seen."""
        return self.held.record

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        if self.closed:
            return True
        record = self.record
        seen_to_the_end = self.complete or record.cursor >= self.last_seen
        return seen_to_the_end and not (self.pending or record.waiting or record.redeliver_until)

    @property
    def checkpoint(self) -> int | None:
        """The sequence up to which no start need look for this lane; None: any, as the record says that it waits."""
        if self.idle or self.record.waiting:
            return None
        return self.pending[0] - 1 if self.pending else int(self.record.cursor)

    def add(self, sequence: int, *, has_room: bool) -> None:
        """Take a match that was made."""
        if sequence <= self.record.cursor:
            return
        self.last_seen = sequence
        if self.complete and has_room:
            self.pending.append(sequence)
        else:
            self.complete = False

    def filled(self, sequences: list[int], *, all_of_them: bool, seen_before: int) -> None:
        """Take the first matches behind the cursor as they were looked up.

        Args:
            all_of_them: whether there were no more.
            seen_before: `last_seen` before they were looked up: what came since may be missing.
        """
        self.pending = deque(sequences)
        self.complete = all_of_them and self.last_seen <= max(seen_before, sequences[-1] if sequences else 0)

    def saw(self, held: Held) -> None:
        """Take a newer state of the record."""
        if held.revision <= self.held.revision:
            return
        was, self.held = self.record.cursor, held
        if not held.record.attempts:
            self.not_before = 0.0
        if held.record.state == percolator_pb2.DELIVERY_STATE_GONE:
            self.close()
        elif held.record.cursor < was:
            # Somebody wants matches once more.
            self.pending.clear()
            self.complete = False
        else:
            while self.pending and self.pending[0] <= held.record.cursor:
                self.pending.popleft()

    def close(self) -> None:
        """Send nothing any more."""
        self.closed = True
        self.pending.clear()
        self.changed.set()
