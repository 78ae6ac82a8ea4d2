"""Webhooks as requests give them: what a URL and a secret must be; and matches that are to be sent again.

The percolator delivers; it looks at the address of every connection, while here only what the URL itself says is seen.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, ip_address
from urllib.parse import SplitResult, urlsplit

from lensmesh.v1 import engine_pb2, engine_pb2_grpc, percolator_pb2

from services.gateway.auth import Caller
from services.mesh.errors import InvalidArgument
from services.mesh.outbound.config import OutboundSettings
from services.mesh.outbound.guard import ALLOW_SETTING, Address, AddressRefused, Guard
from services.mesh.outbound.signing import signing_key

WithDelivery = (
    percolator_pb2.CreateStoredQueryRequest
    | percolator_pb2.ReplaceStoredQueryRequest
    | percolator_pb2.PortableStoredQuery
)

_PORTS = {"http": 80, "https": 443}


class Deliveries:
    """The webhooks of the caller's stored queries."""

    def __init__(self, engine: engine_pb2_grpc.PercolatorEngineServiceAsyncStub, settings: OutboundSettings) -> None:
        self._engine = engine
        self._guard = Guard(settings.fetch_allow)

    def check(self, request: WithDelivery) -> None:
        """Look at the webhook of a request, if it has one.

        Raises:
            InvalidArgument: its URL or its secret can't be used.
        """
        if not request.HasField("delivery"):
            return
        self._check_url(request.delivery.webhook_url)
        try:
            signing_key(request.delivery.secret)
        except ValueError as error:
            raise InvalidArgument.field("delivery.secret", str(error), "delivery.secret") from None

    def put(self, record: engine_pb2.StoredQueryRecord, request: WithDelivery) -> None:
        """Put the webhook of a request, if it has one, into the record to be stored."""
        if not request.HasField("delivery"):
            return
        given = request.delivery
        record.delivery_secret = given.secret
        record.stored_query.delivery.CopyFrom(
            percolator_pb2.DeliveryStatus(
                webhook_url=given.webhook_url,
                cooldown_s=given.cooldown_s,
                state=percolator_pb2.DELIVERY_STATE_ACTIVE,
            )
        )

    async def redeliver(
        self, caller: Caller, request: percolator_pb2.RedeliverMatchesRequest
    ) -> percolator_pb2.RedeliverMatchesResponse:
        """Send a stored query's matches to its webhook again."""
        asked = engine_pb2.QueueDeliveriesRequest(
            namespace_id=caller.tenant.namespace_id, percolator_id=request.percolator_id
        )
        if request.HasField("since"):
            asked.since.CopyFrom(request.since)
        answer = await self._engine.QueueDeliveries(asked)
        return percolator_pb2.RedeliverMatchesResponse(percolator_id=request.percolator_id, queued=answer.queued)

    def _check_url(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _refused("is not a URL", "url") from None
        if parts.scheme not in _PORTS:
            raise _refused(f"must be an http or https URL, not {parts.scheme[:20] or 'one without a scheme'}", "scheme")
        if parts.username is not None or parts.password is not None:
            raise _refused("must not hold a user name or password", "userinfo")
        if not parts.hostname:
            raise _refused("names no host", "host")
        if port == 0:
            raise _refused("names the port 0", "port")
        address = _literal(parts)
        if address is None:
            return
        try:
            self._guard.check(str(address), port or _PORTS[parts.scheme])
        except AddressRefused as error:
            raise _refused(
                f"leads to {address}, which is refused ({error.reason});"
                f" {ALLOW_SETTING}={error.endpoint} would open it",
                "address",
            ) from None


def _literal(parts: SplitResult) -> Address | None:
    """The address that a host spells, also as only resolvers read it, such as 127.1; None for a name."""
    host = (parts.hostname or "").partition("%")[0]
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeEncodeError):
        return None


def _refused(message: str, rule: str) -> InvalidArgument:
    return InvalidArgument.field("delivery.webhook_url", message, f"webhook.{rule}")
