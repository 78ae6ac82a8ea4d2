"""The address guard: which addresses a URL given by a stranger may lead this service to.

It decides on the address a socket is about to connect to, so that literals in any notation, redirects and names that
change their answer (DNS rebinding) are all seen. Schemes, redirects and reading are the caller's.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

#: The environment variable that opens single address:port pairs.
ALLOW_SETTING = "LENSMESH_FETCH_ALLOW"

Address = IPv4Address | IPv6Address

# Python's `ipaddress.is_global` is no guard: it lets through addresses that wrap private ones, multicast and more.
_REFUSED: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "this network, RFC 1122"),
    ("10.0.0.0/8", "private network, RFC 1918"),
    ("100.64.0.0/10", "carrier-grade NAT, RFC 6598"),
    ("127.0.0.0/8", "loopback, RFC 1122"),
    ("168.63.129.16/32", "platform service of the Azure cloud"),
    ("169.254.0.0/16", "link-local and cloud metadata, RFC 3927"),
    ("172.16.0.0/12", "private network, RFC 1918"),
    ("192.0.0.0/24", "protocol assignments, RFC 6890"),
    ("192.0.2.0/24", "documentation, RFC 5737"),
    ("192.88.99.0/24", "6to4 relays, RFC 7526"),
    ("192.168.0.0/16", "private network, RFC 1918"),
    ("198.18.0.0/15", "benchmarking, RFC 2544"),
    ("198.51.100.0/24", "documentation, RFC 5737"),
    ("203.0.113.0/24", "documentation, RFC 5737"),
    ("224.0.0.0/4", "multicast, RFC 5771"),
    ("255.255.255.255/32", "broadcast, RFC 919"),
    ("240.0.0.0/4", "reserved, RFC 1112"),
    ("::/128", "unspecified, RFC 4291"),
    ("::1/128", "loopback, RFC 4291"),
    ("::/96", "IPv4-compatible, RFC 4291"),
    ("64:ff9b:1::/48", "local NAT64, RFC 8215"),
    ("100::/64", "discard-only, RFC 6666"),
    ("2001::/32", "Teredo, RFC 4380"),
    ("2001::/23", "protocol assignments, RFC 2928"),
    ("2001:db8::/32", "documentation, RFC 3849"),
    ("2002::/16", "6to4, RFC 7526"),
    ("3fff::/20", "documentation, RFC 9637"),
    ("fc00::/7", "unique local, RFC 4193"),
    ("fe80::/10", "link-local, RFC 4291"),
    ("fec0::/10", "site-local, RFC 3879"),
    ("ff00::/8", "multicast, RFC 4291"),
)
_REFUSED_NETWORKS: tuple[tuple[IPv4Network | IPv6Network, str], ...] = tuple(
    (ip_network(network), reason) for network, reason in _REFUSED
)
_NAT64 = IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# RFC 5214 section 6.1: the interface id of an ISATAP address is one of these, then the IPv4 address.
_ISATAP_INTERFACES = (0x0000_5EFE, 0x0200_5EFE)
_IPV4_MASK = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port (1..65535) that may be reached although its network is refused."""

    address: Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


class AddressRefused(Exception):
    """A socket was about to connect to a refused address.

    Not an `OSError` on purpose: connecting goes on to the next address of a name after an `OSError`, and a name that
    leads to a refused address is refused as a whole.
    """

    def __init__(self, endpoint: Endpoint, reason: str) -> None:
        super().__init__(f"{endpoint.address} ({reason})")
        self.endpoint = endpoint
        self.reason = reason


def parse_endpoint(text: str) -> Endpoint:
    """Read "127.0.0.1:9000" or "[::1]:9000"; raises ValueError for names, networks and missing ports."""
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text.strip()!r}: write an IPv6 address in brackets, as in [::1]:9000")
    if not colon or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text.strip()!r}: expected address:port, as in 127.0.0.1:9000")
    try:
        return Endpoint(ip_address(host), int(port))
    except ValueError:
        raise ValueError(f"{text.strip()!r}: {host!r} is not an IP address; names are not accepted here") from None


def refusal(address: Address) -> str | None:
    """Why an address may not be reached, None when it may.

    Addresses that carry an IPv4 address which the kernel or the network connects to in their place (IPv4-mapped, NAT64
    of RFC 6052, ISATAP) are judged by both.
    """
    for network, reason in _REFUSED_NETWORKS:
        if address.version == network.version and address in network:
            return reason
    if isinstance(address, IPv4Address):
        return None
    embedded = _embedded_ipv4(address)
    if embedded is not None and (reason_embedded := refusal(embedded)) is not None:
        return f"carries {embedded}: {reason_embedded}"
    if embedded is None and address not in _GLOBAL_UNICAST:
        return "not global unicast, RFC 4291"
    return None


def _embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    low = int(address) & _IPV4_MASK
    if address in _NAT64:
        return IPv4Address(low)
    is_isatap = int(address) >> 32 & _IPV4_MASK in _ISATAP_INTERFACES
    return IPv4Address(low) if is_isatap and address in _GLOBAL_UNICAST else None


class Guard:
    """Lets sockets through to public addresses and to the given endpoints, to any port."""

    def __init__(self, allow: Collection[Endpoint] = ()) -> None:
        self._allow = frozenset(allow)

    def check(self, address: str, port: int) -> None:
        """Raise AddressRefused unless a socket may connect to this numeric address."""
        # A scope id (fe80::1%eth0) is no part of the address's network.
        endpoint = Endpoint(ip_address(address.partition("%")[0]), port)
        if endpoint in self._allow:
            return
        reason = refusal(endpoint.address)
        if reason is not None:
            raise AddressRefused(endpoint, reason)

    def make_socket(self, addr_info: tuple[int, int, int, str, tuple[str | int, ...]]) -> socket.socket:
        """The socket for one `getaddrinfo` answer; raises AddressRefused before anything is sent."""
        family, kind, protocol, _, address = addr_info
        if family not in (socket.AF_INET, socket.AF_INET6):
            raise OSError(f"address family {family} is not IP")
        self.check(str(address[0]), int(address[1]))
        return socket.socket(family, kind, protocol)
