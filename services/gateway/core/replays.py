"""Answers by Idempotency-Key: the same request again gets the first one's answer, for a day, and is not done twice.

Scoped by API key, namespace and operation. Only successful answers are kept: a failure frees the key.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import nats.errors
import structlog
from google.protobuf.message import Message
from lensmesh.v1 import pipeline_pb2 as pipeline
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.gateway.auth import Caller
from services.gateway.spool import Incoming
from services.mesh.bus.tasks import now
from services.mesh.errors import FieldViolation, InvalidArgument, StillRunning, Unavailable

log = structlog.get_logger()

HEADER = "Idempotency-Key"
KEY_CHARS_MAX = 255
# Silence after which a gateway that was carrying a request out is taken for dead.
LEASE_S = 60.0
# Answers beyond one NATS message are not kept; none of ours comes near.
_ANSWER_BYTES_MAX = 900_000
_ATTEMPTS_MAX = 20


@dataclass(slots=True)
class _Lease:
    """A record of a request that is being carried out here."""

    name: str
    request_sha256: str
    revision: int


class Replays:
    """The bucket of answers."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket
        self._running: set[asyncio.Task[Any]] = set()

    async def once(
        self,
        caller: Caller,
        operation: str,
        key: str,
        request: Message | Incoming,
        answer_class: type[Message],
        work: Callable[[], Awaitable[Any]],
    ) -> Message:
        """The answer of this request's first success.

        Raises:
            InvalidArgument: the key has no or too many characters, or came with another request before.
            StillRunning: the first one is not done yet.
            Exception: whatever `work` raises.
        """
        if not 1 <= len(key) <= KEY_CHARS_MAX:
            raise _refused(f"must have 1 to {KEY_CHARS_MAX} characters", "idempotency.length")
        scope = "\x1f".join((caller.key_hash, caller.tenant.namespace_id, operation, key))
        name, wanted = hashlib.sha256(scope.encode()).hexdigest(), _fingerprint(request)
        for attempt in range(_ATTEMPTS_MAX):
            found = await self._claim(name, wanted)
            if isinstance(found, _Lease):
                # Not given up when the caller hangs up: it will ask again, and must find the answer.
                running = asyncio.create_task(self._carry_out(found, work))
                self._running.add(running)
                running.add_done_callback(self._ended)
                return await asyncio.shield(running)
            if found is not None:
                return answer_class.FromString(found)
            # Somebody else was faster, or a replica is behind.
            await asyncio.sleep(0.005 * attempt)
        raise Unavailable("the Idempotency-Key is being used by too many at once; try again", retry_after_s=1)

    def _ended(self, running: asyncio.Task[Any]) -> None:
        self._running.discard(running)
        if not running.cancelled():
            # When its caller has hung up, nobody else asks for the error.
            running.exception()

    async def _claim(self, name: str, wanted: str) -> _Lease | bytes | None:
        """The right to carry it out, or the answer, or None: look again."""
        begun = pipeline.IdempotencyRecord(request_sha256=wanted, alive_at=now()).SerializeToString()
        try:
            return _Lease(name, wanted, await self._bucket.create(name, begun))
        except KeyWrongLastSequenceError:
            try:
                entry = await self._bucket.get(name)
            except KeyNotFoundError:
                return None
        record = pipeline.IdempotencyRecord.FromString(entry.value or b"")
        if record.request_sha256 != wanted:
            raise _refused("was used with another request before", "idempotency.request")
        if record.HasField("answer"):
            return record.answer
        if time.time() - record.alive_at.ToNanoseconds() / 1e9 < LEASE_S:
            raise StillRunning(f"the request with this {HEADER} is being carried out; try again", retry_after_s=1)
        try:
            return _Lease(name, wanted, await self._bucket.update(name, begun, last=entry.revision))
        except KeyWrongLastSequenceError:
            return None

    async def _carry_out(self, lease: _Lease, work: Callable[[], Awaitable[Any]]) -> Any:
        ended = asyncio.Event()
        beating = asyncio.create_task(self._keep(lease, ended))
        answer: Message | None = None
        try:
            answer = await work()
            return answer
        finally:
            ended.set()
            await beating
            await self._settle(lease, answer)

    async def _keep(self, lease: _Lease, ended: asyncio.Event) -> None:
        """Say again and again that the request is being carried out."""
        while True:
            try:
                await asyncio.wait_for(ended.wait(), timeout=LEASE_S / 3)
                return
            except TimeoutError:
                record = pipeline.IdempotencyRecord(request_sha256=lease.request_sha256, alive_at=now())
            try:
                lease.revision = await self._bucket.update(lease.name, record.SerializeToString(), last=lease.revision)
            except (nats.errors.Error, JetStreamError, OSError) as error:
                log.warning("lease not renewed", error=str(error) or type(error).__name__)

    async def _settle(self, lease: _Lease, answer: Message | None) -> None:
        """Keep the answer, or free the key."""
        record = pipeline.IdempotencyRecord(request_sha256=lease.request_sha256)
        try:
            if answer is not None and answer.ByteSize() <= _ANSWER_BYTES_MAX:
                record.answer = answer.SerializeToString()
                await self._bucket.update(lease.name, record.SerializeToString(), last=lease.revision)
            else:
                await self._bucket.delete(lease.name, last=lease.revision)
        except (nats.errors.Error, JetStreamError, OSError) as error:
            # What was done is done; the key is free when the lease ends.
            log.warning("answer not kept", error=str(error) or type(error).__name__)


def _fingerprint(request: Message | Incoming) -> str:
    message, file = (request.request, request.file.sha256) if isinstance(request, Incoming) else (request, "")
    return hashlib.sha256(message.SerializeToString(deterministic=True) + file.encode()).hexdigest()


def _refused(reason: str, rule: str) -> InvalidArgument:
    return InvalidArgument([FieldViolation(("header", HEADER), reason, rule)])
