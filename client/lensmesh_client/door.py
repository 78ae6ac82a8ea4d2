"""What generated calls need of a client: a way to send one request, and a way to follow a stream of events."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote


class Door(Protocol):
    """The REST door, blocking."""

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
        content: bytes | None = None,
        file: bytes | Path | None = None,
        keyed: bool = False,
    ) -> Any:
        """The JSON of an answer; values that are None are not sent.

        Args:
            content: a body that is not JSON.
            file: sent as a form's part, beside the body.
            keyed: whether an Idempotency-Key goes with it, so that it may be sent again.

        Raises:
            LensmeshError: it was refused, or nobody answered.
        """
        ...

    def events(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Iterator[Any]:
        """The JSON of each event until the stream ends.

        Raises:
            LensmeshError: it was refused, or broke.
        """
        ...

    def lines(self, method: str, path: str, *, query: Mapping[str, object] | None = None) -> Iterator[Any]:
        """The JSON of each line of an answer; raises as `events`."""
        ...

    def exchange(self, method: str, path: str, *, lines: Iterable[Mapping[str, Any]] | Path) -> Iterator[Any]:
        """Send lines, and tell how far that is: the counts of all, and at last with `finished`.

        Raises:
            LensmeshError: it was refused, or broke; what was told to be stored is.
        """
        ...


class AsyncDoor(Protocol):
    """The REST door, to be awaited."""

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
        content: bytes | None = None,
        file: bytes | Path | None = None,
        keyed: bool = False,
    ) -> Any:
        """As `Door.call`."""
        ...

    def events(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> AsyncIterator[Any]:
        """As `Door.events`."""
        ...

    def lines(self, method: str, path: str, *, query: Mapping[str, object] | None = None) -> AsyncIterator[Any]:
        """As `Door.lines`."""
        ...

    def exchange(
        self, method: str, path: str, *, lines: AsyncIterable[Mapping[str, Any]] | Iterable[Mapping[str, Any]] | Path
    ) -> AsyncIterator[Any]:
        """As `Door.exchange`."""
        ...


def segment(text: str) -> str:
    """A text as one segment of a path."""
    return quote(text, safe="")
