"""Delivers matches to webhooks: at least once, in order for each stored query, whatever is killed.

Every replica follows all matches and all delivery records, and keeps a lane for each stored query with something to
deliver; the one that owns a stored query sends. A lane whose owner changes is thus there already, and goes on from
the record's cursor. How a lane is emptied, `sending` knows; what others ask of deliveries, `delivery_control` does.
"""

from __future__ import annotations

import asyncio
from functools import partial

import nats.errors
import structlog
from lensmesh.v1 import engine_pb2, percolator_pb2
from nats.js.errors import Error as JetStreamError

from services.mesh import telemetry
from services.mesh.bus.follow import Entry
from services.mesh.cancelling import cancelled
from services.mesh.tenancy import Tenant
from services.percolator.config import WebhookSettings
from services.percolator.delivery_records import CHECKPOINT, DeliveryRecords
from services.percolator.lane import Held, Lane
from services.percolator.sending import Sender
from services.percolator.stored_queries import StoredQueries
from services.percolator.webhook import Webhooks

log = structlog.get_logger()

# Between two looks whether a lane without a sender is now owned here.
_LOOK_S = 1.0
# Matches of stored queries whose record may still be on its way: it was written before the match, to another stream.
_UNCLAIMED_MAX = 10_000


class Deliverer:
    """Runs the deliveries of one replica."""

    def __init__(
        self, records: DeliveryRecords, queries: StoredQueries, webhooks: Webhooks, settings: WebhookSettings
    ) -> None:
        self._records = records
        self._queries = queries
        self._settings = settings
        self._sender = Sender(records, queries, webhooks, settings)
        # The cursor of every record, by its key; about 150 bytes each.
        self._cursors: dict[str, int] = {}
        self._lanes: dict[str, Lane] = {}
        self._queued = 0
        self._unclaimed: dict[str, list[int]] = {}
        self._unclaimed_count = 0
        # The newest match that was looked at.
        self._position = 0
        self._loaded = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Deliver until `stop` is called; then let the calls under way finish."""
        stopped = asyncio.create_task(self._stopping.wait())
        tasks = [asyncio.create_task(each()) for each in (self._follow_records, self._follow_matches, self._keep)]
        try:
            await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            ended = await cancelled(*tasks)
        await self._drain()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def stop(self) -> None:
        """Begin no more calls."""
        self._sender.stopping = True
        self._stopping.set()
        for lane in self._lanes.values():
            lane.changed.set()

    async def _follow_records(self) -> None:
        async for entry in self._records.follow():
            if entry is None:
                if not self._loaded.is_set():
                    self._loaded.set()
                    log.info("deliveries loaded", webhooks=len(self._cursors), waiting=len(self._lanes))
            elif entry.key == CHECKPOINT:
                if not self._loaded.is_set():
                    self._position = engine_pb2.DeliveryRecord.FromString(entry.value).cursor
            elif entry.deleted:
                self._removed(entry.key)
            else:
                self._changed(entry)

    def _removed(self, key: str) -> None:
        self._cursors.pop(key, None)
        lane = self._lanes.pop(key, None)
        if lane:
            lane.close()

    def _changed(self, entry: Entry) -> None:
        key, held = entry.key, Held(engine_pb2.DeliveryRecord.FromString(entry.value), entry.sequence)
        record, lane = held.record, self._lane(key)
        if lane and held.revision > lane.held.revision:
            lane.saw(held)
            lane.changed.set()
        if record.state == percolator_pb2.DELIVERY_STATE_GONE:
            # What is matched now is kept in mind for the case that the webhook is just being replaced.
            self._cursors.pop(key, None)
        else:
            self._cursors[key] = record.cursor
            for sequence in self._claim(key):
                self._add(key, sequence)
            if (record.waiting or record.redeliver_until) and not self._lane(key):
                self._open(key, held).complete = False
        if key in self._lanes:
            self._tend(key, self._lanes[key])

    async def _follow_matches(self) -> None:
        await self._loaded.wait()
        async for entry in self._records.follow_matches(self._position):
            if entry is None or entry.deleted:
                continue
            # The key: namespace, collection, stored query, asset, match.
            namespace_id, _, percolator_id, *_ = entry.key.split(".")
            key = f"{namespace_id}.{percolator_id}"
            if key in self._cursors:
                self._add(key, entry.sequence)
            else:
                self._keep_in_mind(key, entry.sequence)
            self._position = entry.sequence

    def _add(self, key: str, sequence: int) -> None:
        if sequence <= self._cursors[key]:
            return
        lane = self._lane(key) or self._open(
            key, Held(engine_pb2.DeliveryRecord(cursor=self._cursors[key]), revision=0)
        )
        before = len(lane.pending)
        room = self._queued < self._settings.queue_max and before < self._settings.queue_percolator_max
        lane.add(sequence, has_room=room)
        self._queued += len(lane.pending) - before
        self._tend(key, lane)

    def _keep_in_mind(self, key: str, sequence: int) -> None:
        self._unclaimed.setdefault(key, []).append(sequence)
        self._unclaimed_count += 1
        while self._unclaimed_count > _UNCLAIMED_MAX:
            self._claim(next(iter(self._unclaimed)))

    def _claim(self, key: str) -> list[int]:
        found = self._unclaimed.pop(key, [])
        self._unclaimed_count -= len(found)
        return found

    def _lane(self, key: str) -> Lane | None:
        """The lane that is filled; a closed one may still be ending."""
        lane = self._lanes.get(key)
        return None if lane is None or lane.closed else lane

    def _open(self, key: str, held: Held) -> Lane:
        namespace_id, percolator_id = key.split(".")
        lane = self._lanes[key] = Lane(Tenant(namespace_id), percolator_id, held)
        return lane

    def _tend(self, key: str, lane: Lane) -> None:
        """Forget a lane that is done with; have one emptied that this replica owns."""
        if lane.task is not None:
            return
        if lane.idle:
            if self._lanes.get(key) is lane:
                del self._lanes[key]
        elif not self._stopping.is_set() and self._queries.owns(lane.percolator_id):
            lane.task = asyncio.create_task(self._sender.run(lane))
            lane.task.add_done_callback(partial(self._rested, key, lane))

    def _rested(self, key: str, lane: Lane, task: asyncio.Task[None]) -> None:
        lane.task = None
        if task.cancelled():
            return
        if error := task.exception():
            # The next look tries again.
            log.error("delivery failed", percolator_id=lane.percolator_id, exc_info=error)
        else:
            self._tend(key, lane)

    async def _keep(self) -> None:
        """Look after lanes whose owner has changed, and note from time to time how far all matches were looked at."""
        await self._loaded.wait()
        noted = low = self._position
        next_note = asyncio.get_running_loop().time() + self._settings.checkpoint_s
        while True:
            await asyncio.sleep(_LOOK_S)
            for key, lane in list(self._lanes.items()):
                self._tend(key, lane)
            self._queued = sum(len(lane.pending) for lane in self._lanes.values())
            telemetry.DELIVERY_QUEUE.set(self._queued)
            if asyncio.get_running_loop().time() < next_note:
                continue
            next_note = asyncio.get_running_loop().time() + self._settings.checkpoint_s
            # What was true one note ago: a record that was written before a match may arrive here after it.
            sure, low = low, self._low()
            if (checkpoint := min(sure, low)) > noted:
                noted = await self._note(checkpoint, noted)

    def _low(self) -> int:
        lanes = (lane.checkpoint for lane in self._lanes.values())
        return min((each for each in lanes if each is not None), default=self._position)

    async def _note(self, checkpoint: int, noted: int) -> int:
        try:
            await self._records.note_checkpoint(checkpoint)
        except (nats.errors.Error, JetStreamError, OSError):
            return noted
        return checkpoint

    async def _drain(self) -> None:
        running = [lane.task for lane in self._lanes.values() if lane.task]
        if running:
            await asyncio.wait(running, timeout=self._settings.drain_s_max)
        await cancelled(*running)
