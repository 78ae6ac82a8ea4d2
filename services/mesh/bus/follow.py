"""Follows a bucket or stream from a sequence on, across restarts of the server, without loss or repetition.

nats-py's own watchers may go silent when the server loses their consumer; this one makes a new one from where it stood.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import Error as JetStreamError

from services.mesh.bus.topology import Bus

log = structlog.get_logger()

_BATCH = 500
# How long one request waits for messages; a lost consumer is noticed after this at the latest.
_WAIT_S = 5.0
# The server forgets a consumer that nobody asks this long.
_INACTIVE_S = 30.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One message: a value written under a subject, or its removal."""

    subject: str
    sequence: int
    value: bytes
    deleted: bool
    # When the server stored it.
    written_at: datetime
    # Messages after this one that were there when it was sent: 0 means that the follower is up to date.
    pending: int

    @property
    def key(self) -> str:
        """The key, when the stream is a bucket's: the subject without $KV and the bucket."""
        return self.subject.split(".", 2)[2]


async def follow(bus: Bus, stream: str, subjects: Sequence[str], after: int = 0) -> AsyncIterator[Entry | None]:
    """Every message of these subjects behind a sequence, and those to come; None whenever there is no more yet."""
    subscription: JetStreamContext.PullSubscription | None = None
    # The first request is short, so that an empty stream is known to be empty soon.
    wait_s = 0.2
    try:
        while True:
            connection = bus.client.stats["reconnects"]
            try:
                if subscription is None:
                    subscription = await _consume(bus, stream, subjects, after)
                messages = await subscription.fetch(batch=_BATCH, timeout=wait_s)
            except (nats.errors.Error, JetStreamError, OSError) as error:
                if not isinstance(error, nats.errors.TimeoutError):
                    log.debug("following again", stream=stream, error=str(error) or type(error).__name__)
                    await asyncio.sleep(0.1)
                    await _forget(subscription)
                    subscription = None
                elif bus.client.stats["reconnects"] != connection:
                    await _forget(subscription)
                    subscription = None
                wait_s = _WAIT_S
                yield None
                continue
            for message in messages:
                entry = _entry(message)
                if entry.sequence > after:
                    after = entry.sequence
                    yield entry
                    if not entry.pending:
                        yield None
            if bus.client.stats["reconnects"] != connection:
                await _forget(subscription)
                subscription = None
    finally:
        await _forget(subscription)


async def scan(
    bus: Bus, stream: str, subjects: Sequence[str], *, bodies: bool = True, since: datetime | None = None
) -> AsyncIterator[Entry]:
    """Every message of these subjects that is there now, oldest first."""
    subscription = await _consume(bus, stream, subjects, 0, headers_only=not bodies, since=since)
    try:
        info = await subscription.consumer_info()
        left = info.num_pending or 0
        while left > 0:
            for message in await subscription.fetch(batch=min(_BATCH, left), timeout=_WAIT_S):
                left -= 1
                entry = _entry(message)
                if not entry.deleted:
                    yield entry
    finally:
        await _forget(subscription)


async def _consume(
    bus: Bus,
    stream: str,
    subjects: Sequence[str],
    after: int,
    *,
    headers_only: bool = False,
    since: datetime | None = None,
) -> JetStreamContext.PullSubscription:
    config = ConsumerConfig(
        filter_subjects=list(subjects),
        ack_policy=AckPolicy.NONE,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE if after else DeliverPolicy.ALL,
        opt_start_seq=after + 1 if after else None,
        inactive_threshold=_INACTIVE_S,
        mem_storage=True,
        num_replicas=1,
        headers_only=headers_only or None,
    )
    if since:
        config.deliver_policy, config.opt_start_time = DeliverPolicy.BY_START_TIME, since
    info = await bus.js.add_consumer(stream, config)
    return await bus.js.pull_subscribe_bind(consumer=info.name, stream=stream)


async def _forget(subscription: JetStreamContext.PullSubscription | None) -> None:
    if subscription is not None:
        try:
            info_name, stream = subscription._consumer, subscription._stream
            await subscription.unsubscribe()
            await subscription._js.delete_consumer(stream, info_name)
        except (nats.errors.Error, JetStreamError, OSError):
            # The server forgets it by itself after a while.
            return


def _entry(message: Msg) -> Entry:
    metadata = message.metadata
    operation = (message.headers or {}).get("KV-Operation")
    return Entry(
        subject=message.subject,
        sequence=metadata.sequence.stream,
        value=message.data,
        deleted=operation in ("DEL", "PURGE"),
        written_at=metadata.timestamp,
        pending=metadata.num_pending or 0,
    )
