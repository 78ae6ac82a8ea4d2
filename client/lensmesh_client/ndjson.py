"""Lines of JSON on their way in and out: bodies of some thousand lines each, and the counts of all of them together."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

MEDIA_TYPE = "application/x-ndjson"
# One request each: progress comes when a body is sent, so that many are better than one.
_LINES_MAX = 5_000
_BYTES_MAX = 16_000_000

Lines: TypeAlias = Iterable[Mapping[str, Any]] | Path


@dataclass(frozen=True, slots=True)
class Body:
    """Some lines."""

    content: bytes
    # Lines that came before.
    before: int


class Bodies:
    """Gathers lines into bodies."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._bytes = self._before = 0

    def add(self, line: bytes) -> Body | None:
        """Add a line; the body, when it is full."""
        self._lines.append(line)
        self._bytes += len(line)
        return self.rest() if len(self._lines) >= _LINES_MAX or self._bytes >= _BYTES_MAX else None

    def rest(self) -> Body:
        """The body of those that are left, maybe none."""
        body = Body(b"".join(line + b"\n" for line in self._lines), self._before)
        self._before += len(self._lines)
        self._lines, self._bytes = [], 0
        return body


class Total:
    """Adds up what is told of one body after the other."""

    def __init__(self) -> None:
        self._before = {"read": 0, "stored": 0, "failed": 0}
        self._now = dict(self._before)

    def add(self, body: Body, told: Mapping[str, Any]) -> dict[str, Any]:
        """What is told of a body, as part of the whole."""
        self._now = {name: count + told[name] for name, count in self._before.items()}
        if told["finished"]:
            self._before = self._now
        failures = [each | {"line": each["line"] + body.before} for each in told["failures"]]
        return {**self._now, "failures": failures, "finished": False}

    def end(self) -> dict[str, Any]:
        """What is told at the end."""
        return {**self._now, "failures": [], "finished": True}


def written(lines: Lines) -> Iterator[bytes]:
    """Lines as they are sent; those of a file are sent as they are."""
    if isinstance(lines, Path):
        with lines.open("rb") as file:
            for line in file:
                yield line.rstrip(b"\n")
    else:
        for value in lines:
            yield _line(value)


async def written_later(lines: AsyncIterable[Mapping[str, Any]] | Lines) -> AsyncIterator[bytes]:
    """The same of lines that may have to be waited for."""
    if isinstance(lines, AsyncIterable):
        async for value in lines:
            yield _line(value)
    else:
        for line in written(lines):
            yield line


class Splitter:
    """Splits an answer at line feeds alone: texts in JSON may hold what else counts as the end of a line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, content: bytes) -> list[str]:
        """The lines that come to their end."""
        *ended, self._rest = (self._rest + content).split(b"\n")
        return [line.decode() for line in ended]


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
