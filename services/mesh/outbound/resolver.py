"""Looks up host names with the system's resolver, in threads of its own.

aiohttp's resolver shares the event loop's few default threads, where a dead name server would hold up everybody's
look-ups; which addresses may be used is the guard's decision.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult


class SystemResolver(AbstractResolver):
    """`getaddrinfo` in at most `threads` threads."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name, in the order to try them; raises socket.gaierror."""

        def look_up() -> list[ResolveResult]:
            answers = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
            return [
                ResolveResult(
                    hostname=host,
                    # The numeric form keeps the scope of a link-local address, which `address[0]` may lack.
                    host=socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0],
                    port=port,
                    family=answer_family,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
                for answer_family, _, protocol, _, address in answers
            ]

        return await asyncio.get_running_loop().run_in_executor(self._executor, look_up)

    async def close(self) -> None:
        """Drop waiting look-ups; those under way end by themselves, a C call can't be interrupted."""
        self._executor.shutdown(wait=False, cancel_futures=True)
