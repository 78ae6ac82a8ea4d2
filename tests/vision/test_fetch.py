"""Fetching from a real server on loopback: what comes back, and which error each misbehaviour becomes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from services.mesh.errors import FetchFailed, FetchRefused, FetchUnavailable, FileTooLarge, LensmeshError
from services.vision.acquire import AcquireSettings, Fetcher
from tests.vision.photo_host import MEGABYTE, Names, PhotoHost, photo_host

MakeFetcher = Callable[..., Fetcher]


@pytest.fixture
async def host() -> AsyncIterator[PhotoHost]:
    async with photo_host() as running:
        yield running


@pytest.fixture
async def make_fetcher(host: PhotoHost) -> AsyncIterator[MakeFetcher]:
    made: list[Fetcher] = []

    def make(resolver: Names | None = None, **settings: object) -> Fetcher:
        made.append(Fetcher(AcquireSettings(fetch_allow=host.endpoint, **settings), resolver=resolver))
        return made[-1]

    yield make
    for fetcher in made:
        await fetcher.close()


async def test_a_file_comes_back_with_its_type_and_final_url(host: PhotoHost, make_fetcher: MakeFetcher) -> None:
    """A file behind a redirect comes back whole, with its claimed type and the URL where it was found."""
    host.files["cat.png"] = (b"cat", "Image/PNG; charset=x")
    host.redirects["cat"] = "/files/cat.png"

    fetched = await make_fetcher().fetch(f"{host.url}/redirect/cat")

    assert (b"cat", "image/png", f"{host.url}/files/cat.png") == (
        fetched.content,
        fetched.content_type,
        fetched.final_url,
    )


async def test_it_says_who_asks(host: PhotoHost, make_fetcher: MakeFetcher) -> None:
    """Hosts see our user agent."""
    host.files["x"] = (b"x", "image/png")

    await make_fetcher().fetch(f"{host.url}/files/x")

    assert host.requests[0].headers["User-Agent"].startswith("lensmesh/")


async def test_no_cookie_is_kept(host: PhotoHost, make_fetcher: MakeFetcher) -> None:
    """A host that sets a cookie does not get it back."""
    fetcher = make_fetcher()

    await fetcher.fetch(f"{host.url}/cookie")
    await fetcher.fetch(f"{host.url}/cookie")

    assert [None, None] == [request.headers.get("Cookie") for request in host.requests]


async def test_proxies_of_the_environment_are_not_used(
    host: PhotoHost, make_fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy variable does not move fetching past the guard."""
    host.files["x"] = (b"x", "image/png")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    assert b"x" == (await make_fetcher().fetch(f"{host.url}/files/x")).content


@pytest.mark.parametrize(
    ("path", "error_class", "message"),
    [
        ("/status/404", FetchFailed, "answered 404 Not Found"),
        ("/status/403", FetchFailed, "answered 403 Forbidden"),
        ("/status/304", FetchFailed, "answered 304 Not Modified"),
        ("/status/500", FetchUnavailable, "answered 500 Internal Server Error"),
        ("/status/429", FetchUnavailable, "answered 429 Too Many Requests"),
        ("/loop", FetchFailed, "one redirect too many; at most 5"),
        ("/lying", FetchUnavailable, "connection broke"),
        ("/endless", FileTooLarge, "larger than 2097152 bytes"),
        ("/bomb", FileTooLarge, "larger than 2097152 bytes"),
        ("/files/large", FileTooLarge, "larger than 2097152 bytes"),
    ],
)
async def test_misbehaviour_of_a_host_has_a_name(
    host: PhotoHost, make_fetcher: MakeFetcher, path: str, error_class: type[LensmeshError], message: str
) -> None:
    """Each way in which a host fails becomes one error of the table, which says what happened."""
    host.files["large"] = (bytes(3 * MEGABYTE), "image/png")

    with pytest.raises(error_class, match=message):
        await make_fetcher(fetch_bytes_max=2 * MEGABYTE).fetch(host.url + path)


async def test_a_file_of_40_mb_is_refused_by_default(host: PhotoHost, make_fetcher: MakeFetcher) -> None:
    """The shipped limit refuses a 40 MB file."""
    host.files["large"] = (bytes(40 * MEGABYTE), "image/png")

    with pytest.raises(FileTooLarge, match="33554432"):
        await make_fetcher().fetch(f"{host.url}/files/large")


async def test_retry_after_is_passed_on(host: PhotoHost, make_fetcher: MakeFetcher) -> None:
    """A host's Retry-After reaches the error."""
    with pytest.raises(FetchUnavailable) as caught:
        await make_fetcher().fetch(f"{host.url}/status/503")

    assert 7.0 == caught.value.retry_after_s


async def test_the_deadline_ends_a_slow_body(host: PhotoHost, make_fetcher: MakeFetcher) -> None:
    """A host that sends a byte and then nothing is given up at the deadline."""
    with pytest.raises(FetchUnavailable, match=r"within 0\.2 seconds"):
        await make_fetcher(fetch_seconds_max=0.2).fetch(f"{host.url}/slow")


async def test_a_slow_host_does_not_hold_up_others(host: PhotoHost, make_fetcher: MakeFetcher) -> None:
    """While fetches from one host hang and queue, another host's file comes at once."""
    host.files["x"] = (b"x", "image/png")
    fetcher = make_fetcher(
        Names(slow_test=[["127.0.0.1"]], quick_test=[["127.0.0.1"]]),
        fetch_connections_max=3,
        fetch_connections_per_host_max=2,
    )
    slow = [asyncio.create_task(fetcher.fetch(f"http://slow.test:{host.port}/slow")) for _ in range(6)]

    async with asyncio.timeout(5):
        fetched = await fetcher.fetch(f"http://quick.test:{host.port}/files/x")

    assert b"x" == fetched.content
    assert not any(task.done() for task in slow)
    host.release.set()
    await asyncio.gather(*slow)


async def test_a_closed_port_may_open_later(make_fetcher: MakeFetcher) -> None:
    """Nobody listening is an error that a retry may help."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    fetcher = Fetcher(AcquireSettings(fetch_allow=f"127.0.0.1:{port}"))
    with pytest.raises(FetchUnavailable, match="no connection"):
        await fetcher.fetch(f"http://127.0.0.1:{port}/x")
    await fetcher.close()


@pytest.mark.parametrize(
    ("number", "error_class"),
    [(socket.EAI_NONAME, FetchFailed), (socket.EAI_AGAIN, FetchUnavailable), (socket.EAI_FAIL, FetchUnavailable)],
)
async def test_an_unknown_name_differs_from_a_silent_name_server(
    make_fetcher: MakeFetcher, number: int, error_class: type[LensmeshError]
) -> None:
    """Only a name that certainly does not exist is final."""
    names = Names()
    names.errors["gone.test"] = socket.gaierror(number, "no")

    with pytest.raises(error_class, match=r"gone\.test"):
        await make_fetcher(names).fetch("http://gone.test/x")


async def test_the_system_resolver_knows_localhost(host: PhotoHost, make_fetcher: MakeFetcher) -> None:
    """Names are looked up by the system, and judged by the address they lead to."""
    host.files["x"] = (b"x", "image/png")
    fetcher = Fetcher(AcquireSettings(fetch_allow=f"127.0.0.1:{host.port},[::1]:{host.port}"))

    fetched = await fetcher.fetch(f"http://localhost:{host.port}/files/x")
    await fetcher.close()

    assert b"x" == fetched.content


@pytest.mark.parametrize("url", ["", "cat.jpg", "//host/cat.jpg", "http://", "http:///cat.jpg", "http://[::1/x"])
async def test_text_that_is_no_url_fails(make_fetcher: MakeFetcher, url: str) -> None:
    """What is not an http URL with a host fails for good, whatever is wrong with it."""
    with pytest.raises((FetchFailed, FetchRefused)):
        await make_fetcher().fetch(url)


async def test_a_very_long_url_fails(make_fetcher: MakeFetcher) -> None:
    """The length of a URL has a limit."""
    with pytest.raises(FetchFailed, match="longer than 8192"):
        await make_fetcher().fetch("http://host.test/" + "x" * 9000)


async def test_messages_hide_the_query(host: PhotoHost, make_fetcher: MakeFetcher) -> None:
    """A signed URL's query, which works like a password, is not repeated in the error."""
    with pytest.raises(FetchFailed) as caught:
        await make_fetcher().fetch(f"{host.url}/status/404?signature=sesame")

    assert "sesame" not in str(caught.value)
    assert f"127.0.0.1:{host.port}/status/404" in str(caught.value)
