"""Sends what waits in one lane: waits as long as it must, calls, and settles what became of the matches.

A crash at any point repeats a call and loses none: the record is changed after the call, never before.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import nats.errors
import structlog
from lensmesh.v1 import engine_pb2, percolator_pb2
from nats.js.errors import Error as JetStreamError

from services.mesh import telemetry
from services.mesh.errors import LensmeshError, NotFound
from services.percolator import batches
from services.percolator.batches import Batch, Batches
from services.percolator.breaker import Breakers, Key, Places
from services.percolator.config import WebhookSettings
from services.percolator.delivery_records import DeliveryRecords
from services.percolator.lane import Lane
from services.percolator.stored_queries import StoredQueries
from services.percolator.webhook import Answer, Outcome, Webhooks, message_of, origin_of

log = structlog.get_logger()

# Between two tries to reach a server of the mesh that is away.
_AGAIN_S = 0.5
# A replica may hear of a match before it hears of the stored query: how long that is waited for.
_ABSENT_S_MAX = 10.0

ResultT = TypeVar("ResultT")


class Sender:
    """Empties lanes."""

    def __init__(
        self,
        records: DeliveryRecords,
        queries: StoredQueries,
        webhooks: Webhooks,
        settings: WebhookSettings,
    ) -> None:
        self._records = records
        self._queries = queries
        self._webhooks = webhooks
        self._settings = settings
        self._clock = asyncio.get_running_loop().time
        self._breakers = Breakers(
            settings.breaker_failures, settings.breaker_first_s, settings.breaker_max_s, self._clock
        )
        self._batches = Batches(records, settings)
        self._places = Places(settings.calls_max, settings.calls_per_host_max)
        # Lanes that begin all at once must not ask NATS all at once.
        self._beginning = asyncio.Semaphore(settings.calls_max)
        self.stopping = False

    async def run(self, lane: Lane) -> None:
        """Send until nothing waits, another replica is the owner, or the deliverer stops."""
        fresh = False
        while not (lane.idle or self.stopping) and self._queries.owns(lane.percolator_id):
            lane.changed.clear()
            try:
                if not fresh:
                    await self._begin(lane)
                    fresh = True
                else:
                    await self._step(lane)
            except (nats.errors.Error, JetStreamError, OSError, LensmeshError) as error:
                log.debug("delivery interrupted", percolator_id=lane.percolator_id, error=str(error))
                await self._pause(lane, _AGAIN_S)
                fresh = False

    async def _begin(self, lane: Lane) -> None:
        """Read the record, which another replica may have changed last."""
        async with self._beginning:
            held = await self._records.read(lane.tenant, lane.percolator_id)
        if held is None:
            lane.close()
        else:
            lane.saw(held)

    async def _step(self, lane: Lane) -> None:
        """Make the next call as soon as it may be made; returns early whenever something has to be looked at anew."""
        stored = await self._stored(lane)
        if stored is None:
            return
        delivery = stored.stored_query.delivery
        wait_s = max(lane.not_before - self._clock(), self._cooldown_s(lane, delivery.cooldown_s))
        if wait_s > 0:
            await self._wait(lane, wait_s)
            return
        origin = origin_of(delivery.webhook_url)
        breaker: Key = (lane.tenant.namespace_id, origin)
        async with self._places.take(origin):
            if lane.changed.is_set():
                return
            wait_s = self._breakers.wait_s(breaker)
            if not wait_s:
                await self._next(lane, stored, breaker)
        if wait_s:
            await self._wait(lane, wait_s)

    async def _stored(self, lane: Lane) -> engine_pb2.StoredQueryRecord | None:
        """The stored query with its webhook; None when it must be waited for, or there is none."""
        try:
            stored = await self._queries.read(lane.tenant, lane.percolator_id)
        except NotFound:
            stored = None
        if stored is not None and stored.delivery_secret:
            lane.absent_since = 0.0
            return stored
        lane.absent_since = lane.absent_since or self._clock()
        if self._clock() - lane.absent_since < _ABSENT_S_MAX:
            await self._pause(lane, _AGAIN_S)
        else:
            if stored is None:
                await self._records.remove(lane.tenant, lane.percolator_id)
            lane.close()
        return None

    def _cooldown_s(self, lane: Lane, cooldown_s: int) -> float:
        record = lane.record
        if (
            not cooldown_s
            or not record.HasField("delivered_at")
            or record.state == percolator_pb2.DELIVERY_STATE_RETRYING
        ):
            return 0.0
        since_s = (datetime.now(UTC) - record.delivered_at.ToDatetime(tzinfo=UTC)).total_seconds()
        # A clock that was set back must not make it longer.
        return min(cooldown_s - since_s, float(cooldown_s))

    async def _next(self, lane: Lane, stored: engine_pb2.StoredQueryRecord, breaker: Key) -> None:
        answer: Answer | None = None
        try:
            batch = await self._batches.next(lane)
            if batch.matches:
                answer = await self._call(lane, stored, batch, breaker)
        finally:
            if answer is None:
                self._breakers.given_up(breaker)
        if answer is None:
            await self._settle(lane, lambda record: batches.nothing(record, batch, lane))
        else:
            await self._take(lane, batch, answer)

    async def _call(self, lane: Lane, stored: engine_pb2.StoredQueryRecord, batch: Batch, breaker: Key) -> Answer:
        message = message_of(lane.tenant, lane.percolator_id, batch.encoded, batch.match_ids)
        started = time.monotonic()
        answer = await self._webhooks.send(stored.stored_query.delivery.webhook_url, stored.delivery_secret, message)
        seconds = time.monotonic() - started
        telemetry.DELIVERY_SECONDS.observe(seconds)
        telemetry.DELIVERIES.labels(answer.outcome.name.lower()).inc()
        if answer.origin_failed:
            self._breakers.failed(breaker)
        else:
            self._breakers.worked(breaker)
        log.info(
            "webhook called",
            percolator_id=lane.percolator_id,
            origin=breaker[1],
            outcome=answer.outcome.name.lower(),
            reason=answer.reason,
            matches=len(batch.matches),
            attempt=lane.record.attempts + 1,
            ms=round(seconds * 1e3, 1),
        )
        return answer

    async def _take(self, lane: Lane, batch: Batch, answer: Answer) -> None:
        """Do what an answer asks for."""
        attempts = lane.record.attempts + 1
        if answer.outcome is Outcome.DELIVERED:
            dead = await self._take_back(lane, batch) if batch.again else None
            await self._settle(lane, lambda record: batches.delivered(record, batch, lane, dead))
        elif answer.outcome is Outcome.GONE:
            await self._settle(lane, lambda record: batches.gone(record, batch, answer.reason))
        elif answer.outcome is Outcome.REFUSED or attempts >= self._settings.attempts_max:
            await self._give_up(lane, batch, answer.reason, attempts)
        else:
            lane.not_before = self._clock() + self._backoff_s(attempts, answer.retry_after_s)
            await self._settle(lane, lambda record: batches.failed(record, batch, answer.reason, attempts))

    async def _take_back(self, lane: Lane, batch: Batch) -> int:
        """Take delivered matches out of the dead letters; returns how many are left."""
        where = lane.tenant, lane.percolator_id
        await self._surely(lane, lambda: self._records.unbury(*where, batch.match_ids))
        return await self._surely(lane, lambda: self._records.count_buried(*where))

    async def _give_up(self, lane: Lane, batch: Batch, reason: str, attempts: int) -> None:
        """Put the matches among the dead letters; those that were there before stay there, with all that follow."""
        log.warning(
            "delivery given up",
            percolator_id=lane.percolator_id,
            reason=reason,
            matches=len(batch.matches),
            attempts=attempts,
        )
        where = lane.tenant, lane.percolator_id
        if not batch.again:
            telemetry.DEAD_DELIVERIES.inc(len(batch.matches))
            await self._surely(lane, lambda: self._records.bury(*where, batch.matches, reason, attempts))
        dead = await self._surely(lane, lambda: self._records.count_buried(*where))
        await self._settle(lane, lambda record: batches.given_up(record, batch, lane, reason, dead))

    def _backoff_s(self, attempts: int, retry_after_s: float | None) -> float:
        """Exponential with full jitter; what the endpoint asks for, within the bound, is the least."""
        longest = min(self._settings.backoff_first_s * 2 ** min(attempts - 1, 32), self._settings.backoff_max_s)
        return max(random.uniform(0, longest), min(retry_after_s or 0.0, self._settings.backoff_max_s))

    async def _wait(self, lane: Lane, seconds: float) -> None:
        """Wait for a try; for a longer time the record says so, and the checkpoint need not wait too."""
        if seconds > self._settings.checkpoint_s and not lane.record.waiting:
            await self._settle(lane, batches.waits)
        await self._pause(lane, seconds)

    async def _pause(self, lane: Lane, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await lane.changed.wait()
        except TimeoutError:
            return

    async def _settle(self, lane: Lane, mutate: Callable[[engine_pb2.DeliveryRecord], bool]) -> None:
        """Change the record, however long NATS is away: a call that was made is not made again for that."""
        held = await self._surely(
            lane, lambda: self._records.change(lane.tenant, lane.percolator_id, lane.held, mutate)
        )
        if held is None:
            lane.close()
        else:
            lane.saw(held)

    async def _surely(self, lane: Lane, do: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """The result of something that NATS does, tried until it answers."""
        while True:
            try:
                return await do()
            except (nats.errors.Error, JetStreamError, OSError) as error:
                log.debug("delivery not noted yet", percolator_id=lane.percolator_id, error=str(error))
                await asyncio.sleep(_AGAIN_S)
