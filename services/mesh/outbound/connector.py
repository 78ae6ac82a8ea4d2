"""An aiohttp connector whose every connection passes the address guard."""

from __future__ import annotations

from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver

from services.mesh.outbound.guard import Guard


class GuardedConnector(TCPConnector):
    """Use it for any URL that a stranger gave.

    `limit` and `limit_per_host` are connections, `resolver` defaults to aiohttp's own; a connection waits `idle_s` for
    its next use.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        limit: int,
        limit_per_host: int,
        resolver: AbstractResolver | None = None,
        idle_s: float = 15.0,
    ) -> None:
        # Addresses are tried in turn: a race of them (happy eyeballs) would swallow AddressRefused.
        super().__init__(
            limit=limit,
            limit_per_host=limit_per_host,
            resolver=resolver,
            socket_factory=guard.make_socket,
            happy_eyeballs_delay=None,
            keepalive_timeout=idle_s,
        )
