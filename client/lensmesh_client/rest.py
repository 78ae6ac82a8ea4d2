"""Clients of the REST door: typed calls, retries that are safe, waiting for tasks and following matches."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterator, Mapping
from contextlib import ExitStack, aclosing, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from lensmesh.rest import asynchronous, blocking, outputs

from lensmesh_client import ndjson, wire
from lensmesh_client.door import segment
from lensmesh_client.errors import LensmeshError, TimedOut, Unreachable
from lensmesh_client.retries import FOLLOWING, Retries
from lensmesh_client.sse import Events

# States that a task does not leave.
TERMINAL = frozenset({"DONE", "FAILED", "SKIPPED", "CANCELLED"})
_Query = Mapping[str, object] | None


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
        self._door = _Door(self._http, retries or Retries())
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
        self._door = _AsyncDoor(self._http, retries or Retries())
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


class _Door:
    """Sends requests, and sends them again."""

    def __init__(self, http: httpx.Client, retries: Retries) -> None:
        self._http = http
        self._retries = retries

    def call(
        self,
        method: str,
        path: str,
        *,
        query: _Query = None,
        body: _Query = None,
        content: bytes | None = None,
        file: bytes | Path | None = None,
        keyed: bool = False,
    ) -> Any:
        headers, attempts = wire.key_headers(keyed), self._retries.begin()
        while True:
            try:
                with ExitStack() as opened:
                    parts = wire.arguments(query, body, content, file, opened)
                    return wire.answer(self._http.request(method, path, headers=headers, **parts))
            except httpx.HTTPError as error:
                known: LensmeshError = wire.unreachable(error, str(self._http.base_url))
            except LensmeshError as error:
                known = error
            if not keyed and method != "GET":
                raise known
            time.sleep(attempts.pause(known))

    def lines(self, method: str, path: str, *, query: _Query = None) -> Iterator[Any]:
        with closing(self._stream(method, path, {"params": wire.given(query)}, wire.SILENCE_S)) as lines:
            for line in lines:
                yield json.loads(line)

    def exchange(self, method: str, path: str, *, lines: ndjson.Lines) -> Iterator[Any]:
        bodies, total = ndjson.Bodies(), ndjson.Total()
        for line in ndjson.written(lines):
            if body := bodies.add(line):
                yield from self._send(method, path, body, total)
        yield from self._send(method, path, bodies.rest(), total)
        yield total.end()

    def _send(self, method: str, path: str, body: ndjson.Body, total: ndjson.Total) -> Iterator[Any]:
        attempts, told = self._retries.begin(), False
        while True:
            try:
                for each in self.events(method, path, content=body.content):
                    told = True
                    yield total.add(body, each)
                return
            except LensmeshError as error:
                # Only what was refused as a whole is sent again: else, lines without an id would be stored twice.
                if told or isinstance(error, Unreachable):
                    raise
                time.sleep(attempts.pause(error))

    def events(
        self,
        method: str,
        path: str,
        *,
        query: _Query = None,
        body: _Query = None,
        content: bytes | None = None,
        deadline: float | None = None,
    ) -> Generator[Any]:
        """The JSON of each event. Deadline: of time.monotonic, after which `TimedOut` is raised."""
        parts, events = wire.arguments(query, body, content, None, ExitStack()), Events()
        silence_s = wire.SILENCE_S if deadline is None else max(0.001, min(wire.SILENCE_S, deadline - time.monotonic()))
        with closing(self._stream(method, path, parts, silence_s)) as lines:
            for line in lines:
                yield from events.feed(line)
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimedOut("the stream has not ended in time")

    def _stream(self, method: str, path: str, parts: dict[str, Any], silence_s: float) -> Generator[str]:
        """The lines of an answer."""
        timeout, splitter = httpx.Timeout(self._http.timeout.connect, read=silence_s), ndjson.Splitter()
        try:
            with self._http.stream(method, path, timeout=timeout, **parts) as response:
                if not response.is_success:
                    response.read()
                    raise wire.refusal(response)
                for content in response.iter_bytes():
                    yield from splitter.feed(content)
        except httpx.HTTPError as error:
            raise wire.unreachable(error, str(self._http.base_url)) from error


class _AsyncDoor:
    """As `_Door`."""

    def __init__(self, http: httpx.AsyncClient, retries: Retries) -> None:
        self._http = http
        self._retries = retries

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: _Query = None,
        body: _Query = None,
        content: bytes | None = None,
        file: bytes | Path | None = None,
        keyed: bool = False,
    ) -> Any:
        headers, attempts = wire.key_headers(keyed), self._retries.begin()
        while True:
            try:
                with ExitStack() as opened:
                    parts = wire.arguments(query, body, content, file, opened)
                    return wire.answer(await self._http.request(method, path, headers=headers, **parts))
            except httpx.HTTPError as error:
                known: LensmeshError = wire.unreachable(error, str(self._http.base_url))
            except LensmeshError as error:
                known = error
            if not keyed and method != "GET":
                raise known
            await asyncio.sleep(attempts.pause(known))

    async def lines(self, method: str, path: str, *, query: _Query = None) -> AsyncIterator[Any]:
        async with aclosing(self._stream(method, path, {"params": wire.given(query)})) as lines:
            async for line in lines:
                yield json.loads(line)

    async def exchange(
        self, method: str, path: str, *, lines: AsyncIterable[Mapping[str, Any]] | ndjson.Lines
    ) -> AsyncIterator[Any]:
        bodies, total = ndjson.Bodies(), ndjson.Total()
        async for line in ndjson.written_later(lines):
            if body := bodies.add(line):
                async for told in self._send(method, path, body, total):
                    yield told
        async for told in self._send(method, path, bodies.rest(), total):
            yield told
        yield total.end()

    async def _send(self, method: str, path: str, body: ndjson.Body, total: ndjson.Total) -> AsyncIterator[Any]:
        attempts, told = self._retries.begin(), False
        while True:
            try:
                async for each in self.events(method, path, content=body.content):
                    told = True
                    yield total.add(body, each)
                return
            except LensmeshError as error:
                # As `_Door._send`.
                if told or isinstance(error, Unreachable):
                    raise
                await asyncio.sleep(attempts.pause(error))

    async def events(
        self, method: str, path: str, *, query: _Query = None, body: _Query = None, content: bytes | None = None
    ) -> AsyncGenerator[Any]:
        parts, events = wire.arguments(query, body, content, None, ExitStack()), Events()
        async with aclosing(self._stream(method, path, parts)) as lines:
            async for line in lines:
                for value in events.feed(line):
                    yield value

    async def _stream(self, method: str, path: str, parts: dict[str, Any]) -> AsyncGenerator[str]:
        timeout, splitter = httpx.Timeout(self._http.timeout.connect, read=wire.SILENCE_S), ndjson.Splitter()
        try:
            async with self._http.stream(method, path, timeout=timeout, **parts) as response:
                if not response.is_success:
                    await response.aread()
                    raise wire.refusal(response)
                async for content in response.aiter_bytes():
                    for line in splitter.feed(content):
                        yield line
        except httpx.HTTPError as error:
            raise wire.unreachable(error, str(self._http.base_url)) from error
