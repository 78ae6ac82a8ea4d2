"""Clients of the gRPC door: the stubs of all services, waiting for tasks and following matches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self

import grpc
from lensmesh.rpc import AsyncStubs, Stubs
from lensmesh.v1 import match_pb2, task_pb2

from lensmesh_client.errors import LensmeshError, TimedOut, Unreachable
from lensmesh_client.interceptors import asynchronous, blocking
from lensmesh_client.retries import FOLLOWING, Retries

# States that a task does not leave.
_TERMINAL = (
    task_pb2.TASK_STATUS_DONE,
    task_pb2.TASK_STATUS_FAILED,
    task_pb2.TASK_STATUS_SKIPPED,
    task_pb2.TASK_STATUS_CANCELLED,
)
# Bytes of a message: a 64 MB image in base64, which the mesh takes.
_MESSAGE_BYTES_MAX = 96_000_000
_OPTIONS = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
)


class GrpcClient(Stubs):
    """A mesh by gRPC, blocking. Close it, or use it as a context manager.

    Args:
        address: the gRPC door, host:port.
        api_key, namespace, retries, timeout_s: as `RestClient`'s. A call's own metadata and timeout come first.
        credentials: of TLS; None: without it.
    """

    def __init__(
        self,
        address: str,
        api_key: str,
        *,
        namespace: str = "",
        retries: Retries | None = None,
        timeout_s: float = 60.0,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._channel = (
            grpc.secure_channel(address, credentials, _OPTIONS)
            if credentials
            else grpc.insecure_channel(address, _OPTIONS)
        )
        super().__init__(blocking(self._channel, api_key, namespace, retries or Retries(), timeout_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def wait(self, task_id: str, *, timeout_s: float | None = None) -> task_pb2.Task:
        """The task once it has ended, well or not; goes on where a connection breaks.

        Raises:
            TimedOut: it had not after that many seconds.
            LensmeshError: there is no such task, or the mesh went away for longer than `FOLLOWING`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        request, attempts = task_pb2.WatchTaskRequest(task_id=task_id), FOLLOWING.begin()
        while True:
            try:
                left_s = None if deadline is None else max(0.001, deadline - time.monotonic())
                for answer in self.tasks.WatchTask(request, timeout=left_s):
                    attempts.succeeded()
                    if answer.task.status in _TERMINAL:
                        return answer.task
                raise Unreachable("the events of the task ended before the task")
            except LensmeshError as error:
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimedOut(f"the task {task_id} has not ended in {timeout_s} s") from error
                time.sleep(attempts.pause(error))

    def follow_matches(self, *, cursor: int = 0, percolator_id: str = "") -> Iterator[match_pb2.WatchMatchesResponse]:
        """Matches as they are made, after a cursor, without an end; goes on where a connection breaks.

        Raises:
            LensmeshError: the mesh refused, or went away for longer than `FOLLOWING`.
        """
        attempts = FOLLOWING.begin()
        while True:
            try:
                for match in self.matches.WatchMatches(_watch(cursor, percolator_id)):
                    attempts.succeeded()
                    cursor = match.cursor
                    yield match
                raise Unreachable("the stream of matches ended")
            except LensmeshError as error:
                time.sleep(attempts.pause(error))


class AsyncGrpcClient(AsyncStubs):
    """A mesh by gRPC, to be awaited. Arguments as `GrpcClient`'s; made inside a running event loop."""

    def __init__(
        self,
        address: str,
        api_key: str,
        *,
        namespace: str = "",
        retries: Retries | None = None,
        timeout_s: float = 60.0,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        inside = asynchronous(api_key, namespace, retries or Retries(), timeout_s)
        self._channel = (
            grpc.aio.secure_channel(address, credentials, _OPTIONS, interceptors=inside)
            if credentials
            else grpc.aio.insecure_channel(address, _OPTIONS, interceptors=inside)
        )
        super().__init__(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close(grace=None)

    async def wait(self, task_id: str, *, timeout_s: float | None = None) -> task_pb2.Task:
        """As `GrpcClient.wait`."""
        request, attempts = task_pb2.WatchTaskRequest(task_id=task_id), FOLLOWING.begin()
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        async for answer in self.tasks.WatchTask(request):
                            attempts.succeeded()
                            if answer.task.status in _TERMINAL:
                                return answer.task
                        raise Unreachable("the events of the task ended before the task")
                    except LensmeshError as error:
                        await asyncio.sleep(attempts.pause(error))
        except TimeoutError:
            raise TimedOut(f"the task {task_id} has not ended in {timeout_s} s") from None

    async def follow_matches(
        self, *, cursor: int = 0, percolator_id: str = ""
    ) -> AsyncIterator[match_pb2.WatchMatchesResponse]:
        """As `GrpcClient.follow_matches`."""
        attempts = FOLLOWING.begin()
        while True:
            try:
                async for match in self.matches.WatchMatches(_watch(cursor, percolator_id)):
                    attempts.succeeded()
                    cursor = match.cursor
                    yield match
                raise Unreachable("the stream of matches ended")
            except LensmeshError as error:
                await asyncio.sleep(attempts.pause(error))


def _watch(cursor: int, percolator_id: str) -> match_pb2.WatchMatchesRequest:
    return match_pb2.WatchMatchesRequest(cursor=cursor or None, percolator_id=percolator_id or None)
