"""The address guard: attacks that lead to private addresses, and the pairs that settings let through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
from pydantic import ValidationError

from services.mesh.errors import FetchFailed, FetchRefused
from services.mesh.outbound.guard import Endpoint, parse_endpoint, refusal
from services.vision.acquire import AcquireSettings, Fetcher
from tests.vision.photo_host import Names, PhotoHost, photo_host

REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "100.127.255.254",
    "127.0.0.1",
    "127.8.8.8",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "2a00:1450::5efe:10.0.0.1",
    "2a00:1450::200:5efe:127.0.0.1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "198.20.0.1",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2a00:1450::5efe:8.8.8.8",
]


@pytest.fixture
async def host() -> AsyncIterator[PhotoHost]:
    async with photo_host() as running:
        running.files["x"] = (b"x", "image/png")
        yield running


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    """Private, special and wrapping addresses are refused, with a reason."""
    assert refusal(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_let_through(address: str) -> None:
    """Public addresses next to refused networks are not refused."""
    assert refusal(ip_address(address)) is None


@pytest.mark.parametrize(
    "literal", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "[::1]", "[::ffff:127.0.0.1]"]
)
async def test_loopback_is_refused_in_every_notation(host: PhotoHost, literal: str) -> None:
    """However loopback is written, no request reaches it; some notations are no URL at all."""
    async with Fetcher(AcquireSettings()) as fetcher:
        with pytest.raises((FetchRefused, FetchFailed)):
            await fetcher.fetch(f"http://{literal}:{host.port}/files/x")

    assert [] == host.requests


async def test_the_refusal_says_what_would_open_it(host: PhotoHost) -> None:
    """The message names host, address, reason and the setting with its value."""
    names = Names(photos_test=[["127.0.0.1"]])
    async with Fetcher(AcquireSettings(), resolver=names) as fetcher:
        with pytest.raises(FetchRefused) as caught:
            await fetcher.fetch(f"http://photos.test:{host.port}/files/x?token=sesame")

    assert (
        f"photos.test:{host.port}/files/x leads to 127.0.0.1, which is refused (loopback, RFC 1122);"
        f" LENSMESH_FETCH_ALLOW=127.0.0.1:{host.port} would open it"
    ) == str(caught.value)


async def test_a_name_with_one_refused_address_is_refused(host: PhotoHost) -> None:
    """A name that leads to several private addresses is refused, not only unreachable."""
    names = Names(photos_test=[["10.0.0.1", "192.168.0.1", "fd00::1"]])
    async with Fetcher(AcquireSettings(), resolver=names) as fetcher:
        with pytest.raises(FetchRefused, match=r"10\.0\.0\.1"):
            await fetcher.fetch("http://photos.test/x")


async def test_a_redirect_to_a_refused_address_is_refused(host: PhotoHost) -> None:
    """An allowed host can't lead the service on to a refused one."""
    host.redirects["metadata"] = "http://169.254.169.254/latest/meta-data/"
    async with Fetcher(AcquireSettings(fetch_allow=host.endpoint)) as fetcher:
        with pytest.raises(FetchRefused, match=r"169\.254\.169\.254"):
            await fetcher.fetch(f"{host.url}/redirect/metadata")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("ftp://photos.test/x", "not ftp"),
        ("file:///etc/passwd", "not file"),
        ("http://user:sesame@photos.test/x", "user name or password"),
    ],
)
async def test_every_hop_is_checked_like_the_first(host: PhotoHost, location: str, message: str) -> None:
    """Schemes and credentials are refused at first and in redirects, without repeating a password."""
    host.redirects["away"] = location
    async with Fetcher(AcquireSettings(fetch_allow=host.endpoint)) as fetcher:
        for url in (location, f"{host.url}/redirect/away"):
            with pytest.raises(FetchRefused, match=message) as caught:
                await fetcher.fetch(url)
            assert "sesame" not in str(caught.value)


async def test_a_name_that_changes_its_answer_is_seen(host: PhotoHost) -> None:
    """DNS rebinding: an answer that turns private after a redirect is refused when the socket is made."""
    host.redirects["again"] = f"http://rebound.test:{host.port}/files/x"
    names = Names(first_test=[["127.0.0.1"]], rebound_test=[["127.0.0.2"]])
    async with Fetcher(AcquireSettings(fetch_allow=host.endpoint), resolver=names) as fetcher:
        with pytest.raises(FetchRefused, match=r"127\.0\.0\.2"):
            await fetcher.fetch(f"http://first.test:{host.port}/redirect/again")


async def test_the_opened_pair_does_not_open_other_ports(host: PhotoHost) -> None:
    """An allowed address is refused on every port but its own."""
    async with photo_host() as neighbour, Fetcher(AcquireSettings(fetch_allow=neighbour.endpoint)) as fetcher:
        with pytest.raises(FetchRefused):
            await fetcher.fetch(f"{host.url}/files/x")


def test_allowed_pairs_are_read_from_the_shared_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """LENSMESH_FETCH_ALLOW is a comma-separated list of address:port."""
    monkeypatch.setenv("LENSMESH_FETCH_ALLOW", "127.0.0.1:9000, [::1]:9001,")

    assert ("127.0.0.1:9000", "[::1]:9001") == tuple(str(pair) for pair in AcquireSettings().fetch_allow)


@pytest.mark.parametrize("text", ["127.0.0.1", "photos.test:80", "10.0.0.0/8:80", "::1:80", "127.0.0.1:0", "1.1.1.1:x"])
def test_a_wrong_pair_stops_the_start(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A pair that can't be read is named when settings are loaded."""
    monkeypatch.setenv("LENSMESH_FETCH_ALLOW", text)

    with pytest.raises(ValidationError) as caught:
        AcquireSettings()

    assert text in str(caught.value)


def test_a_pair_reads_back_as_it_is_written() -> None:
    """Writing and reading a pair are inverse."""
    assert Endpoint(ip_address("::1"), 80) == parse_endpoint(str(Endpoint(ip_address("::1"), 80)))
