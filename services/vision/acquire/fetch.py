"""Fetches one file from a stranger's URL: guarded on every hop, and bounded in bytes, seconds and connections.

What the bytes are is not looked at here: that is `decode`'s.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from services.mesh.errors import FetchFailed, FetchRefused, FetchUnavailable, FileTooLarge, LensmeshError
from services.mesh.outbound.connector import GuardedConnector
from services.mesh.outbound.guard import ALLOW_SETTING, AddressRefused, Guard
from services.mesh.outbound.resolver import SystemResolver
from services.vision.acquire.config import AcquireSettings

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# RFC 9110 and RFC 6585: statuses below 500 that ask to try again.
_TRY_AGAIN = frozenset({408, 425, 429})
_CHUNK_BYTES = 64 * 1024
#: Seconds; a host can't make us wait longer than this by its Retry-After.
RETRY_AFTER_SECONDS_MAX = 3600
#: Characters of host and path that a message repeats.
_NAME_LENGTH_MAX = 200
# What the system's resolver says of a name that certainly does not exist; all else may pass.
_UNKNOWN_HOST = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """One answered file: its bytes, the Content-Type its host claims ("" when none), and where redirects ended."""

    content: bytes
    content_type: str
    final_url: str


class Fetcher:
    """Fetches files with one shared set of guarded connections; make it inside a running event loop and close it.

    `resolver` replaces the system's name look-up.
    """

    def __init__(self, settings: AcquireSettings, *, resolver: AbstractResolver | None = None) -> None:
        self._settings = settings
        self._resolver = resolver or SystemResolver(settings.resolver_threads)
        self._session = aiohttp.ClientSession(
            connector=GuardedConnector(
                Guard(settings.fetch_allow),
                limit=settings.fetch_connections_max,
                limit_per_host=settings.fetch_connections_per_host_max,
                resolver=self._resolver,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_seconds_max),
            # Images are compressed already; asking for identity saves a decompression on both sides.
            headers={
                "User-Agent": f"lensmesh/{_own_version()}",
                "Accept": "image/*, */*;q=0.1",
                "Accept-Encoding": "identity",
            },
        )

    async def __aenter__(self) -> Fetcher:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; fetches under way fail."""
        await self._session.close()
        await self._resolver.close()

    async def fetch(self, url: str) -> FetchedFile:
        """Fetch the file behind an http(s) URL.

        Raises FetchRefused (scheme, credentials in the URL, or a refused address, on any hop), FetchFailed (4xx, an
        unknown host, too many redirects, no URL at all), FetchUnavailable (5xx, 429, time-outs, broken connections)
        and FileTooLarge. No message repeats the URL's query, which may hold a secret.
        """
        target = _parse(url, self._settings.url_length_max)
        seconds = self._settings.fetch_seconds_max
        try:
            async with asyncio.timeout(seconds):
                return await self._follow(target)
        except TimeoutError as error:
            raise FetchUnavailable(f"{_name(target)} was not fetched within {seconds:g} seconds") from error

    async def _follow(self, target: URL) -> FetchedFile:
        for _ in range(self._settings.redirects_max + 1):
            try:
                async with self._session.get(target, allow_redirects=False) as response:
                    if response.status not in _REDIRECTS:
                        return await self._read(response, target)
                    target = _redirect_target(response, target, self._settings.url_length_max)
            except (aiohttp.ClientError, AddressRefused, ValueError) as error:
                raise _translated(error, target) from error
        raise FetchFailed(
            f"{_name(target)} is one redirect too many; at most {self._settings.redirects_max} are followed"
        )

    async def _read(self, response: aiohttp.ClientResponse, target: URL) -> FetchedFile:
        _check_status(response, target)
        bytes_max = self._settings.fetch_bytes_max
        too_large = FileTooLarge(
            f"{_name(target)} is larger than {bytes_max} bytes (LENSMESH_VISION_FETCH_BYTES_MAX)",
        )
        if response.content_length is not None and response.content_length > bytes_max:
            raise too_large
        # Counted after any Content-Encoding is undone, so that a compressed bomb stops here too.
        content = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            content += chunk
            if len(content) > bytes_max:
                raise too_large
        content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return FetchedFile(bytes(content), content_type, str(target))


def _own_version() -> str:
    try:
        return version("lensmesh")
    except PackageNotFoundError:
        return "source"


def _parse(url: str, length_max: int) -> URL:
    if len(url) > length_max:
        raise FetchFailed(f"the URL is longer than {length_max} characters (LENSMESH_VISION_URL_LENGTH_MAX)")
    try:
        target = URL(url.strip())
    except ValueError as error:
        raise FetchFailed("the text given is not a URL") from error
    _check_url(target)
    return target


def _check_url(target: URL) -> None:
    if target.scheme not in ("http", "https"):
        scheme = target.scheme[:_NAME_LENGTH_MAX] or "no scheme"
        raise FetchRefused(f"only http and https URLs are fetched, not {scheme}")
    if target.raw_user is not None or target.raw_password is not None:
        raise FetchRefused(f"{_name(target)}: a URL with a user name or password in it is not fetched")
    if not target.host:
        raise FetchFailed("the URL names no host")


def _redirect_target(response: aiohttp.ClientResponse, target: URL, length_max: int) -> URL:
    location = response.headers.get("Location") or response.headers.get("URI")
    if not location:
        raise FetchFailed(f"{_name(target)} answered {response.status} without saying where to go")
    if len(location) > length_max:
        raise FetchFailed(f"{_name(target)} redirects to a URL longer than {length_max} characters")
    following = target.join(URL(location))
    _check_url(following)
    return following


def _check_status(response: aiohttp.ClientResponse, target: URL) -> None:
    status = response.status
    if 200 <= status < 300:
        return
    # The phrase of the standard, not the host's own words, which a message should not repeat.
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    answered = f"{_name(target)} answered {status} {phrase}".rstrip()
    if status >= 500 or status in _TRY_AGAIN:
        raise FetchUnavailable(answered, retry_after_s=_retry_after_s(response))
    raise FetchFailed(answered)


def _retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    if not text.isascii() or not text.isdigit() or len(text) > len(str(RETRY_AFTER_SECONDS_MAX)):
        return None
    return float(min(int(text), RETRY_AFTER_SECONDS_MAX))


def _translated(error: Exception, target: URL) -> LensmeshError:
    name = _name(target)
    match error:
        case AddressRefused():
            return FetchRefused(
                f"{name} leads to {error.endpoint.address}, which is refused ({error.reason});"
                f" {ALLOW_SETTING}={error.endpoint} would open it"
            )
        case aiohttp.ClientConnectorDNSError() if error.os_error.errno in _UNKNOWN_HOST:
            return FetchFailed(f"{name}: no such host is known")
        case aiohttp.ClientConnectorDNSError():
            return FetchUnavailable(f"{name}: its host can't be looked up now")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return FetchFailed(f"{name}: its host's TLS certificate or handshake is not valid")
        case aiohttp.ClientConnectorError() | aiohttp.ServerTimeoutError():
            return FetchUnavailable(f"{name}: no connection to its host could be made")
        case aiohttp.InvalidURL() | ValueError():
            return FetchFailed(f"{name} is not a URL that can be fetched, or redirects to one")
        case _:
            return FetchUnavailable(f"{name}: the connection broke before the file was complete")


def _name(target: URL) -> str:
    """Host and path for messages; the query may hold a secret, a user name or password is one."""
    host = target.host or ""
    port = "" if target.is_default_port() or target.explicit_port is None else f":{target.explicit_port}"
    name = f"{host}{port}{target.path}"
    return name if len(name) <= _NAME_LENGTH_MAX else f"{name[:_NAME_LENGTH_MAX]}..."
