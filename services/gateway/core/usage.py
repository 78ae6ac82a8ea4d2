"""What each key used, by day and action: counted in memory, added to a bucket every few seconds.

A process that is killed loses what it counted since; one that is stopped loses nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta

import nats.errors
import structlog
from lensmesh.v1 import organization_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.mesh.bus import topology
from services.mesh.bus.follow import scan
from services.mesh.bus.topology import Bus
from services.mesh.errors import Unavailable

log = structlog.get_logger()

# Seconds between two writes: what a kill loses at most.
FLUSH_S = 5.0
# Days that are told; the bucket forgets what is older.
DAYS_MAX = 90
_ATTEMPTS_MAX = 20
_EPOCH = date(1970, 1, 1)
_DAY_S = 86_400


class UsageCounter:
    """A `Runnable` that counts."""

    def __init__(self, bus: Bus, bucket: KeyValue) -> None:
        self._bus = bus
        self._bucket = bucket
        # By usage id and day since 1970.
        self._counted: defaultdict[tuple[str, int], Counter[str]] = defaultdict(Counter)
        self._stopping = asyncio.Event()

    def count(self, usage_id: str, action: str, credits: int) -> None:
        """Count what a key used."""
        self._counted[(usage_id, int(time.time() // _DAY_S))][action] += credits

    async def run(self) -> None:
        """Write regularly, until `stop`; what is counted after that, `flush` writes."""
        while not self._stopping.is_set():
            try:
                await asyncio.wait_for(self._stopping.wait(), timeout=FLUSH_S)
            except TimeoutError:
                await self.flush()

    def stop(self) -> None:
        """Write no more by itself."""
        self._stopping.set()

    async def flush(self) -> None:
        """Write what was counted; what can't be written now stays counted."""
        counted, self._counted = self._counted, defaultdict(Counter)
        while counted:
            (usage_id, day), credits = counted.popitem()
            try:
                await self._add(f"{usage_id}.{_EPOCH + timedelta(days=day)}", credits)
            except (nats.errors.Error, JetStreamError, OSError, Unavailable) as error:
                for key, left in (((usage_id, day), credits), *counted.items()):
                    self._counted[key].update(left)
                log.warning("usage not written yet", error=str(error) or type(error).__name__)
                return

    async def used(self, usage_ids: Collection[str] | None) -> organization_pb2.Usage:
        """What these keys used, all keys for None; written by other replicas up to their last write."""
        await self.flush()
        first = (datetime.now(UTC).date() - timedelta(days=DAYS_MAX - 1)).isoformat()
        by_day: defaultdict[str, Counter[str]] = defaultdict(Counter)
        subject = topology.bucket_subject(topology.USAGE, ">")
        async for entry in scan(self._bus, topology.bucket_stream(topology.USAGE), [subject]):
            usage_id, _, day = entry.key.partition(".")
            if day >= first and (usage_ids is None or usage_id in usage_ids):
                by_day[day].update(pipeline.UsageRecord.FromString(entry.value).credits)
        usage = organization_pb2.Usage(total_credits=sum(each.total() for each in by_day.values()))
        for day, credits in sorted(by_day.items(), reverse=True):
            actions = [organization_pb2.ActionUsage(action=name, credits=n) for name, n in sorted(credits.items())]
            usage.dates.add(date=day, credits=credits.total(), actions=actions)
        return usage

    async def _add(self, key: str, credits: Counter[str]) -> None:
        for attempt in range(_ATTEMPTS_MAX):
            record, revision = pipeline.UsageRecord(), 0
            try:
                entry = await self._bucket.get(key)
                record, revision = pipeline.UsageRecord.FromString(entry.value or b""), entry.revision or 0
            except KeyNotFoundError:
                pass
            for action, number in credits.items():
                record.credits[action] += number
            try:
                await self._bucket.update(key, record.SerializeToString(), last=revision)
                return
            except KeyWrongLastSequenceError:
                # Another replica counts the same key.
                await asyncio.sleep(0.005 * attempt)
        raise Unavailable("usage is being written by too many at once")
