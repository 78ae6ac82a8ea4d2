"""One signed POST of matches to a webhook: guarded, bounded, and what its answer means.

When calls are made, and what becomes of matches that are not taken, `sending` knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver
from lensmesh.v1 import match_pb2
from yarl import URL

from services.mesh.json_encoding import encode
from services.mesh.outbound.connector import GuardedConnector
from services.mesh.outbound.guard import ALLOW_SETTING, AddressRefused, Guard
from services.mesh.outbound.resolver import SystemResolver
from services.mesh.outbound.signing import signed_headers, signing_key
from services.mesh.tenancy import Tenant, derived_uuid
from services.percolator.config import WebhookSettings

_GONE = 410
# The status is the answer; nobody needs what follows, and nobody waits long for it.
_BODY_S = 1.0
# Servers commonly close connections that are idle for 5 seconds; a call on one that was just closed would fail.
_IDLE_S = 3.0
# RFC 9110 and RFC 6585: statuses whose Retry-After says when the endpoint wants to be asked again.
_LATER = frozenset({429, 503})


class Outcome(Enum):
    """What a call came to."""

    # 2xx: the matches are the receiver's now.
    DELIVERED = auto()
    # 410: the receiver wants nothing any more.
    GONE = auto()
    # May succeed when it is tried again.
    FAILED = auto()
    # Can't succeed, however often it is tried.
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended."""

    outcome: Outcome
    # Why it did not succeed; holds neither the URL's query nor anything that the endpoint said.
    reason: str = ""
    # When the endpoint wants to be asked again, in seconds.
    retry_after_s: float | None = None
    # Whether the origin itself did not work: it was not reached, did not answer in time, or said 429 or 5xx.
    origin_failed: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A body and its id, which is the same whenever the same matches are sent."""

    message_id: str
    body: bytes


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL: what is logged, and what a breaker stands for."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()


def message_of(tenant: Tenant, percolator_id: str, encoded: Sequence[bytes], match_ids: Sequence[str]) -> Message:
    """The message that brings these matches, given as JSON."""
    head = json.dumps({"type": "matches", "percolator_id": percolator_id, "namespace_id": tenant.namespace_id})
    body = b'%s, "matches": [%s]}' % (head[:-1].encode(), b", ".join(encoded))
    # A receiver that keeps the ids it has seen drops what comes twice.
    message_id = match_ids[0] if len(match_ids) == 1 else derived_uuid("webhook", tenant.namespace_id, *match_ids)
    return Message(message_id, body)


def encoded_match(match: match_pb2.Match) -> bytes:
    """A match as the API shows it."""
    return json.dumps(encode(match), ensure_ascii=False).encode()


class Webhooks:
    """Calls webhooks with one shared set of guarded connections; make it inside a running event loop and close it.

    `resolver` replaces the system's name look-up.
    """

    def __init__(self, settings: WebhookSettings, *, resolver: AbstractResolver | None = None) -> None:
        self._settings = settings
        self._resolver = resolver or SystemResolver(settings.resolver_threads)
        self._session = aiohttp.ClientSession(
            connector=GuardedConnector(
                Guard(settings.fetch_allow),
                # Who calls has taken a place of each kind before, so that nobody waits in here.
                limit=settings.calls_max,
                limit_per_host=settings.calls_per_host_max,
                resolver=self._resolver,
                idle_s=_IDLE_S,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            # Nobody reads what the answer says.
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_seconds_max),
            headers={
                "User-Agent": f"lensmesh/{_own_version()}",
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",
            },
        )

    async def close(self) -> None:
        """Close all connections; calls under way fail."""
        await self._session.close()
        await self._resolver.close()

    async def send(self, url: str, secret: str, message: Message) -> Answer:
        """Post a message, signed now. Never raises: what went wrong is in the answer."""
        headers = signed_headers(signing_key(secret), message.message_id, int(time.time()), message.body)
        seconds = self._settings.call_seconds_max
        try:
            async with asyncio.timeout(seconds):
                response = await self._session.post(URL(url), data=message.body, headers=headers, allow_redirects=False)
        except TimeoutError:
            return Answer(Outcome.FAILED, f"did not answer within {seconds:g} seconds", origin_failed=True)
        except (aiohttp.ClientError, AddressRefused, OSError, ValueError) as error:
            return _broken(error)
        await self._finish(response)
        return _meaning(response)

    async def _finish(self, response: aiohttp.ClientResponse) -> None:
        """Read what an answer says, so that its connection can be used again; or give that up."""
        async with response:
            with contextlib.suppress(TimeoutError, aiohttp.ClientError):
                async with asyncio.timeout(_BODY_S):
                    await response.content.read(self._settings.response_bytes_max)


def _meaning(response: aiohttp.ClientResponse) -> Answer:
    status = response.status
    if 200 <= status < 300:
        return Answer(Outcome.DELIVERED)
    if status == _GONE:
        return Answer(Outcome.GONE, "answered 410: the endpoint is gone for good")
    if 300 <= status < 400:
        return Answer(Outcome.FAILED, f"answered {status}: redirects are not followed")
    retry_after_s = _retry_after_s(response.headers.get("Retry-After", "")) if status in _LATER else None
    return Answer(Outcome.FAILED, f"answered {status}", retry_after_s, origin_failed=status >= 500 or status in _LATER)


def _retry_after_s(text: str) -> float | None:
    """Seconds, or a date (RFC 9110 section 10.2.3); None when it is neither."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _broken(error: Exception) -> Answer:
    match error:
        case AddressRefused():
            reason = (
                f"leads to {error.endpoint.address}, which is refused ({error.reason});"
                f" {ALLOW_SETTING}={error.endpoint} would open it"
            )
            return Answer(Outcome.REFUSED, reason)
        case aiohttp.InvalidURL() | ValueError():
            return Answer(Outcome.REFUSED, "is not a URL that can be called")
        case aiohttp.ClientConnectorDNSError():
            reason = "its host is not known, or can't be looked up now"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            reason = "its host's TLS certificate or handshake is not valid"
        case aiohttp.ClientConnectorError() | aiohttp.ServerTimeoutError():
            reason = "no connection to its host could be made"
        case _:
            reason = "the connection broke before it answered"
    return Answer(Outcome.FAILED, reason, origin_failed=True)


def _own_version() -> str:
    try:
        return version("lensmesh")
    except PackageNotFoundError:
        return "source"
