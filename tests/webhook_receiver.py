"""A real HTTP server on loopback that receives webhooks, and answers as a test wants."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Call:
    """One call as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    def verified(self, secret: str | bytes = SECRET) -> dict[str, Any]:
        """The body, after the published library has verified its signature."""
        return dict(Webhook(secret).verify(self.body, self.headers))

    @property
    def match_ids(self) -> list[str]:
        """The matches that it brought, in order."""
        return [each["match_id"] for each in self.verified()["matches"]]


@dataclass
class Receiver:
    """The calls that came, and what the next ones are answered: statuses in turn, then 200."""

    port: int = 0
    calls: list[Call] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    # Whether answers begin and never end.
    endless: bool = False
    # Calls are answered when this is set.
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str = "hook") -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self.port}/{path}"

    @property
    def endpoint(self) -> str:
        """What LENSMESH_FETCH_ALLOW needs to let it through."""
        return f"127.0.0.1:{self.port}"

    @property
    def match_ids(self) -> list[str]:
        """The matches of all calls, in order of arrival."""
        return [match_id for call in self.calls for match_id in call.match_ids]

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """Take one call."""
        self.calls.append(Call(request.path, dict(request.headers), await request.read(), time.monotonic()))
        status = self.answers.pop(0) if self.answers else 200
        await self.open.wait()
        if self.endless:
            response = web.StreamResponse(status=status)
            await response.prepare(request)
            await asyncio.Event().wait()
        return web.Response(status=status, headers=self.headers)


@asynccontextmanager
async def receiver(port: int = 0) -> AsyncIterator[Receiver]:
    """Receive on a free port, or one that was free before, until the block ends."""
    listener = socket.create_server(("127.0.0.1", port))
    receiving = Receiver(listener.getsockname()[1])
    receiving.open.set()
    app = web.Application(client_max_size=64_000_000)
    app.router.add_route("*", "/{path:.*}", receiving.receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    try:
        yield receiving
    finally:
        receiving.open.set()
        await runner.cleanup()


async def until(holds: Callable[[], Any], within_s: float = 20) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)
