"""What every call goes through, whichever door it came by: its key, the key's limit, a replay, the count of its use.

What the operation does, its own part of the core knows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from lensmesh.v1 import index_pb2, namespace_pb2

from services.gateway.auth import Caller, Directory
from services.gateway.core.limits import Limits
from services.gateway.core.replays import HEADER, Replays
from services.gateway.core.usage import UsageCounter
from services.mesh.errors import FieldViolation, InvalidArgument, ResourceExhausted

# Files under way at a time in one process: at 32 MB each, they have room in the 8 GiB that a pod has for them on disk.
FILES_MAX = 48
# Their answers hold a secret, which is kept nowhere.
_NEVER_REPLAYED = frozenset({"CreateKey", "RotateKey"})

Answer = Message | AsyncIterator[Message]
Handler = Callable[[Caller, Any], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of the API: what the key needs, and who does it."""

    method: MethodDescriptor
    needs: int
    # Takes the request's message, or an `Incoming` where a file comes with it.
    run: Handler

    @property
    def name(self) -> str:
        """The method's name."""
        return str(self.method.name)

    @property
    def writes_once(self) -> bool:
        """Whether it changes something and has one answer."""
        reads = self.method.GetOptions().Extensions[annotations_pb2.http].HasField("get")
        return not (reads or self.needs == namespace_pb2.PERMISSION_READ or self.method.server_streaming)

    @property
    def replayable(self) -> bool:
        """Whether its answer can be kept for the same request again."""
        return self.writes_once and self.name not in _NEVER_REPLAYED


class Calls:
    """Lets calls in and carries them out."""

    def __init__(self, directory: Directory, limits: Limits, usage: UsageCounter, replays: Replays) -> None:
        self._directory = directory
        self._limits = limits
        self._usage = usage
        self._replays = replays
        self._files = 0

    async def admit(self, operation: Operation, authorization: str | None, namespace: str | None) -> Caller:
        """Who calls; asked before anything else of the request is read.

        Args:
            authorization: the header of that name.
            namespace: the header X-Namespace.

        Raises:
            Unauthenticated, PermissionDenied, NotFound: as `Directory.authenticate`.
            ResourceExhausted: the key has sent too many requests.
        """
        caller = self._directory.authenticate(authorization, namespace, operation.needs)
        await self._limits.take(caller)
        return caller

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Around a call that brings a file, from its first byte to the answer.

        Raises:
            ResourceExhausted: too many files are under way.
        """
        if self._files >= FILES_MAX:
            raise ResourceExhausted(f"{FILES_MAX} files are being received; try again later", retry_after_s=2)
        self._files += 1
        try:
            yield
        finally:
            self._files -= 1

    async def run(self, operation: Operation, caller: Caller, request: Any, idempotency_key: str | None) -> Answer:
        """Carry an operation out, or give the answer that the same request got before.

        Args:
            request: a message that keeps its rules, or an `Incoming` whose message does.
            idempotency_key: the header of that name; operations that write nothing don't care for it.

        Raises:
            InvalidArgument: the Idempotency-Key is no such, was used with another request, or is not taken here.
            StillRunning: the same request is being carried out at this moment.
            LensmeshError: as the operation.
        """

        async def carry_out() -> Answer:
            answer = await operation.run(caller, request)
            self._count(operation, caller, answer)
            return answer

        if idempotency_key is None or not operation.writes_once:
            return await carry_out()
        if not operation.replayable:
            reason = "is not taken here: the answer holds a secret, which is not kept"
            raise InvalidArgument([FieldViolation(("header", HEADER), reason, "idempotency.secret")])
        answer_class = GetMessageClass(operation.method.output_type)
        return await self._replays.once(caller, operation.name, idempotency_key, request, answer_class, carry_out)

    def _count(self, operation: Operation, caller: Caller, answer: Answer) -> None:
        action, credits = operation.name, 1
        if isinstance(answer, index_pb2.IndexBatchResponse):
            action, credits = "IndexImage", sum(result.HasField("task_id") for result in answer.results)
        if credits:
            self._usage.count(caller.usage_id, action, credits)
