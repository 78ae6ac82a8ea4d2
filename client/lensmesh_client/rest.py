"""Clients of the REST door: typed calls, retries that are safe, waiting for tasks and following matches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, closing
from types import TracebackType
from typing import Self

import httpx
from lensmesh.rest import asynchronous, blocking, outputs

from lensmesh_client import wire
from lensmesh_client.door import segment
from lensmesh_client.errors import LensmeshError, TimedOut, Unreachable
from lensmesh_client.http_door import AsyncHttpDoor, HttpDoor
from lensmesh_client.retries import FOLLOWING, Retries

# States that a task does not leave.
TERMINAL = frozenset({"DONE", "FAILED", "SKIPPED", "CANCELLED"})


class RestClient(blocking.Calls):
    """A mesh by REST, blocking. Close it, or use it as a context manager.

    Args:
        url: the REST door, such as http://127.0.0.1:8080.
        api_key: sent with every call.
        namespace: a name or an id, sent with every call; empty: the key's own.
        retries: how often errors that pass are met by sending again. Writes carry an Idempotency-Key, so that what was
            sent twice is done once.
        timeout_s: seconds until a single attempt is given up.
    """

    def __init__(
        self, url: str, api_key: str, *, namespace: str = "", retries: Retries | None = None, timeout_s: float = 60.0
    ) -> None:
        self._http = httpx.Client(
            base_url=url, headers=wire.headers(api_key, namespace), timeout=timeout_s, follow_redirects=False
        )
        self._door = HttpDoor(self._http, retries or Retries())
        super().__init__(self._door)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> None:
        """Return if the REST door answers.

        Raises:
            LensmeshError: it does not.
        """
        self._door.call("GET", "/healthcheck")

    def ready(self) -> dict[str, str]:
        """What the gateway says of each server behind it: "OK", or why not."""
        try:
            return wire.checks(self._http.get("/readyz"))
        except httpx.HTTPError as error:
            raise wire.unreachable(error, str(self._http.base_url)) from error

    def wait(self, task_id: str, *, timeout_s: float | None = None) -> outputs.Task:
        """The task once it has ended, well or not.

        Raises:
            TimedOut: it had not after that many seconds.
            LensmeshError: there is no such task, or the mesh went away for longer than `FOLLOWING`.
        """
        return next(task for task in self.watch(task_id, timeout_s=timeout_s) if task["status"] in TERMINAL)

    def watch(self, task_id: str, *, timeout_s: float | None = None) -> Iterator[outputs.Task]:
        """The task now and after each change, up to its end; goes on where a connection breaks.

        Raises:
            LensmeshError: as `wait`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        attempts = FOLLOWING.begin()
        while True:
            try:
                with closing(self._door.events("GET", f"/tasks/{segment(task_id)}/events", deadline=deadline)) as tasks:
                    for task in tasks:
                        attempts.succeeded()
                        yield task
                        if task["status"] in TERMINAL:
                            return
                raise Unreachable("the events of the task ended before the task")
            except LensmeshError as error:
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimedOut(f"the task {task_id} has not ended in {timeout_s} s") from error
                time.sleep(attempts.pause(error))

    def follow_matches(
        self, *, cursor: int | None = None, percolator_id: str | None = None
    ) -> Iterator[outputs.WatchMatchesResponse]:
        """Matches as they are made, after a cursor, without an end; goes on where a connection breaks.

        Raises:
            LensmeshError: the mesh refused, or went away for longer than `FOLLOWING`.
        """
        attempts = FOLLOWING.begin()
        while True:
            try:
                for match in self.matches.watch_matches(cursor=cursor, percolator_id=percolator_id):
                    attempts.succeeded()
                    cursor = match["cursor"]
                    yield match
                raise Unreachable("the stream of matches ended")
            except LensmeshError as error:
                time.sleep(attempts.pause(error))


class AsyncRestClient(asynchronous.Calls):
    """A mesh by REST, to be awaited. Arguments as `RestClient`'s."""

    def __init__(
        self, url: str, api_key: str, *, namespace: str = "", retries: Retries | None = None, timeout_s: float = 60.0
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=url, headers=wire.headers(api_key, namespace), timeout=timeout_s, follow_redirects=False
        )
        self._door = AsyncHttpDoor(self._http, retries or Retries())
        super().__init__(self._door)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def health(self) -> None:
        """As `RestClient.health`."""
        await self._door.call("GET", "/healthcheck")

    async def ready(self) -> dict[str, str]:
        """As `RestClient.ready`."""
        try:
            return wire.checks(await self._http.get("/readyz"))
        except httpx.HTTPError as error:
            raise wire.unreachable(error, str(self._http.base_url)) from error

    async def wait(self, task_id: str, *, timeout_s: float | None = None) -> outputs.Task:
        """As `RestClient.wait`."""
        try:
            async with asyncio.timeout(timeout_s), aclosing(self.watch(task_id)) as tasks:
                async for task in tasks:
                    if task["status"] in TERMINAL:
                        return task
        except TimeoutError:
            raise TimedOut(f"the task {task_id} has not ended in {timeout_s} s") from None
        raise AssertionError("a task's changes end with its end")

    async def watch(self, task_id: str) -> AsyncGenerator[outputs.Task]:
        """As `RestClient.watch`; asyncio.timeout bounds it."""
        attempts = FOLLOWING.begin()
        while True:
            try:
                async with aclosing(self._door.events("GET", f"/tasks/{segment(task_id)}/events")) as tasks:
                    async for task in tasks:
                        attempts.succeeded()
                        yield task
                        if task["status"] in TERMINAL:
                            return
                raise Unreachable("the events of the task ended before the task")
            except LensmeshError as error:
                await asyncio.sleep(attempts.pause(error))

    async def follow_matches(
        self, *, cursor: int | None = None, percolator_id: str | None = None
    ) -> AsyncIterator[outputs.WatchMatchesResponse]:
        """As `RestClient.follow_matches`."""
        attempts = FOLLOWING.begin()
        while True:
            try:
                async for match in self.matches.watch_matches(cursor=cursor, percolator_id=percolator_id):
                    attempts.succeeded()
                    cursor = match["cursor"]
                    yield match
                raise Unreachable("the stream of matches ended")
            except LensmeshError as error:
                await asyncio.sleep(attempts.pause(error))
