"""Serves the REST application by uvicorn, inside the service's own event loop."""

from __future__ import annotations

import asyncio
import socket

import structlog
import uvicorn
from starlette.types import ASGIApp

from services.gateway.config import DoorSettings

log = structlog.get_logger()

# Requests at a time; beyond: 503. Open event streams count too.
_CONCURRENCY_MAX = 2_000
_KEEP_ALIVE_S = 30
_DRAIN_S = 10


class _Server(uvicorn.Server):
    """Uvicorn, which by itself looks ten times a second whether it is to end: a fifth of what an idle gateway does."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    async def main_loop(self) -> None:
        """Set the time of the header Date every second, until `stop`."""
        stopped = asyncio.create_task(self._stopping.wait())
        while not await self.on_tick(0):
            await asyncio.wait({stopped}, timeout=1)

    def stop(self) -> None:
        """End soon."""
        self.should_exit = True
        self._stopping.set()


class RestServer:
    """The REST door: a `Runnable`."""

    def __init__(self, app: ASGIApp, settings: DoorSettings) -> None:
        self._socket = socket.create_server((settings.rest_host, settings.rest_port), backlog=1024)
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                http="httptools",
                lifespan="off",
                limit_concurrency=_CONCURRENCY_MAX,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_DRAIN_S,
                server_header=False,
                proxy_headers=False,
            )
        )

    async def run(self) -> None:
        """Serve until `stop`."""
        log.info("rest door open", url="http://{}:{}".format(*self._socket.getsockname()[:2]))
        # `_serve`, not `serve`: signals are the frame's, which drains the doors itself.
        await self._server._serve([self._socket])

    def stop(self) -> None:
        """Take no more requests, let the running ones finish for a while."""
        self._server.stop()
