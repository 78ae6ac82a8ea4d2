"""A real HTTP server on loopback that plays the hosts of photos, good and bad; and names that lead to it."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

MEGABYTE = 1024 * 1024


@dataclass
class PhotoHost:
    """Where the server listens, the files it serves by path, and what it was asked."""

    port: int
    files: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    requests: list[web.Request] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """The base URL without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> str:
        """What LENSMESH_FETCH_ALLOW needs to let it through."""
        return f"127.0.0.1:{self.port}"


_HOST = web.AppKey("host", PhotoHost)


@asynccontextmanager
async def photo_host() -> AsyncIterator[PhotoHost]:
    """Serve on a free port until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    host = PhotoHost(listener.getsockname()[1])
    app = web.Application()
    app[_HOST] = host
    app.router.add_get("/files/{name:.*}", _file)
    app.router.add_get("/status/{status}", _status)
    app.router.add_get("/redirect/{name}", _redirect)
    app.router.add_get("/loop", _loop)
    app.router.add_get("/cookie", _cookie)
    app.router.add_get("/slow", _slow)
    app.router.add_get("/endless", _endless)
    app.router.add_get("/bomb", _bomb)
    app.router.add_get("/lying", _lying)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    try:
        yield host
    finally:
        host.release.set()
        await runner.cleanup()


def _host(request: web.Request) -> PhotoHost:
    host: PhotoHost = request.app[_HOST]
    host.requests.append(request)
    return host


async def _file(request: web.Request) -> web.Response:
    content, content_type = _host(request).files[request.match_info["name"]]
    return web.Response(body=content, headers={"Content-Type": content_type})


async def _status(request: web.Request) -> web.Response:
    _host(request)
    return web.Response(status=int(request.match_info["status"]), headers={"Retry-After": "7"}, text="no photo")


async def _redirect(request: web.Request) -> web.Response:
    location = _host(request).redirects[request.match_info["name"]]
    return web.Response(status=302, headers={"Location": location})


async def _loop(request: web.Request) -> web.Response:
    _host(request)
    return web.Response(status=302, headers={"Location": "/loop"})


async def _cookie(request: web.Request) -> web.Response:
    _host(request)
    return web.Response(text="x", headers={"Set-Cookie": "tracked=1; Path=/"})


async def _slow(request: web.Request) -> web.StreamResponse:
    host = _host(request)
    response = web.StreamResponse(headers={"Content-Type": "image/png"})
    await response.prepare(request)
    await response.write(b"the first bytes")
    await host.release.wait()
    return response


async def _endless(request: web.Request) -> web.StreamResponse:
    _host(request)
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(bytes(MEGABYTE))


async def _bomb(request: web.Request) -> web.Response:
    _host(request)
    return web.Response(body=gzip.compress(bytes(50 * MEGABYTE)), headers={"Content-Encoding": "gzip"})


async def _lying(request: web.Request) -> web.StreamResponse:
    _host(request)
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort")
    request.transport.close()
    return web.StreamResponse()


class Names(AbstractResolver):
    """A name server of the test's own: each look-up of a name gives its next list of addresses, the last for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(lists) for name, lists in answers.items()}
        self.errors: dict[str, socket.gaierror] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The name's next answer, as aiohttp wants it."""
        if host in self.errors:
            raise self.errors[host]
        lists = self.answers[host]
        addresses = lists.pop(0) if len(lists) > 1 else lists[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""
