"""Follows a bucket or stream from a sequence on, across restarts of the server, without loss or repetition.

nats-py's own watchers may go silent when the server loses their consumer; this one makes a new one from where it stood.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import Error as JetStreamError

from services.mesh.bus.pull import Pull
from services.mesh.bus.topology import Bus

log = structlog.get_logger()

_BATCH = 500
# Between two tries to reach a server that is away.
_AGAIN_S = 0.1
# Of the subject $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<consumer's sequence>.<time>.<pending> that a
# message of a stream is acknowledged to; one that comes from a domain has three more.
_ACK_TOKENS = 9
# The server forgets a consumer that nobody asks this long.
_INACTIVE_S = 30.0


class Entry(NamedTuple):
    """One message: a value written under a subject, or its removal."""

    subject: str
    sequence: int
    value: bytes
    deleted: bool
    # When the server stored it, nanoseconds since 1970.
    written_ns: int
    # Messages after this one that were there when it was sent: 0 means that the follower is up to date.
    pending: int

    @property
    def key(self) -> str:
        """The key, when the stream is a bucket's: the subject without $KV and the bucket."""
        return self.subject.split(".", 2)[2]

    @property
    def written_at(self) -> datetime:
        """When the server stored it."""
        return datetime.fromtimestamp(self.written_ns / 1e9, UTC)


async def follow(
    bus: Bus, stream: str, subjects: Sequence[str], after: int = 0, *, bodies: bool = True
) -> AsyncIterator[Entry | None]:
    """Every message of these subjects behind a sequence, and those to come; None whenever there is no more yet."""
    async for entries in follow_batches(bus, stream, subjects, after, bodies=bodies):
        for entry in entries:
            yield entry
        if not entries or not entries[-1].pending:
            yield None


async def follow_batches(
    bus: Bus, stream: str, subjects: Sequence[str], after: int = 0, *, bodies: bool = True
) -> AsyncIterator[Sequence[Entry]]:
    """Like `follow`, as many messages at a time as are there; empty once when there is nothing to begin with."""
    consumer: _Consumer | None = None
    try:
        while True:
            try:
                if consumer is None:
                    consumer = await _Consumer.make(bus, stream, subjects, after, headers_only=not bodies)
                    if not consumer.pending:
                        yield ()
                async for entries in _arriving(consumer.pull, after):
                    after = entries[-1].sequence
                    yield entries
            except (nats.errors.Error, JetStreamError, OSError) as error:
                log.debug("following again", stream=stream, error=str(error) or type(error).__name__)
                await asyncio.sleep(_AGAIN_S)
                if consumer:
                    await consumer.forget()
                consumer = None
    finally:
        if consumer:
            await consumer.forget()


async def _arriving(pull: Pull, after: int) -> AsyncIterator[Sequence[Entry]]:
    """What one request brings, at once unless more are on their way, but nothing up to a sequence."""
    entries: list[Entry] = []
    async for message in pull.take(_BATCH):
        entry = _entry(message)
        if entry.sequence > after:
            entries.append(entry)
        if entries and not entry.pending and pull.is_idle:
            yield entries
            entries = []
    if entries:
        yield entries


async def scan(
    bus: Bus,
    stream: str,
    subjects: Sequence[str],
    *,
    bodies: bool = True,
    since: datetime | None = None,
    after: int = 0,
) -> AsyncIterator[Entry]:
    """Every message of these subjects that is there now, oldest first: all, since a time, or else behind a sequence.

    Raises:
        nats.errors.Error or nats.js.errors.Error: the server does not answer.
    """
    consumer = await _Consumer.make(bus, stream, subjects, after, headers_only=not bodies, since=since)
    try:
        left = consumer.pending
        while left > 0:
            before = left
            async for message in consumer.pull.take(min(_BATCH, left)):
                left -= 1
                entry = _entry(message)
                if not entry.deleted:
                    yield entry
            if left == before:
                raise nats.errors.TimeoutError
    finally:
        await consumer.forget()


async def count(bus: Bus, stream: str, subject: str) -> int:
    """How many messages of a subject there are now, removals among them."""
    consumer = await _Consumer.make(bus, stream, [subject], 0, headers_only=True)
    await consumer.forget()
    return consumer.pending


@dataclass(frozen=True, slots=True)
class _Consumer:
    """A consumer of this follower's own."""

    bus: Bus
    stream: str
    name: str
    # Messages that were there when it was made.
    pending: int
    pull: Pull

    @classmethod
    async def make(
        cls,
        bus: Bus,
        stream: str,
        subjects: Sequence[str],
        after: int,
        *,
        headers_only: bool = False,
        since: datetime | None = None,
    ) -> _Consumer:
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
            config.deliver_policy, config.opt_start_time, config.opt_start_seq = (
                DeliverPolicy.BY_START_TIME,
                since,
                None,
            )
        info = await bus.js.add_consumer(stream, config)
        return cls(bus, stream, info.name, info.num_pending or 0, await Pull.open(bus, stream, info.name))

    async def forget(self) -> None:
        try:
            await self.pull.close()
            await self.bus.js.delete_consumer(self.stream, self.name)
        except (nats.errors.Error, JetStreamError, OSError):
            # The server forgets it by itself after a while.
            return


def _entry(message: Msg) -> Entry:
    # Read here and not by nats-py, which takes three times as long.
    tokens = message.reply.split(".")
    sequence, _, written_ns, pending = tokens[5:9] if len(tokens) == _ACK_TOKENS else tokens[7:11]
    headers = message.headers
    deleted = headers is not None and headers.get("KV-Operation") in ("DEL", "PURGE")
    return Entry(message.subject, int(sequence), message.data, deleted, int(written_ns), int(pending))
