"""The REST door by httpx, blocking and to be awaited: sends requests, sends them again, and reads streams."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterator, Mapping
from contextlib import ExitStack, aclosing, closing
from pathlib import Path
from typing import Any

import httpx

from lensmesh_client import ndjson, wire
from lensmesh_client.errors import LensmeshError, TimedOut, Unreachable
from lensmesh_client.retries import Retries
from lensmesh_client.sse import Events

_Query = Mapping[str, object] | None


class HttpDoor:
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


class AsyncHttpDoor:
    """As `HttpDoor`."""

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
                # As `HttpDoor._send`.
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
