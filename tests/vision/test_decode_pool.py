"""Decoding in child processes: crashes, hangs and hunger for memory hurt only their own image."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from PIL import Image

from services.mesh.errors import BrokenImage, FileTooLarge, Unavailable, UnsupportedMediaType
from services.vision.acquire import Acquirer, AcquireSettings, DecoderPool
from services.vision.acquire.pool import _serve
from tests.vision.photo_host import photo_host

MakePool = Callable[..., DecoderPool]


def jpeg(width: int = 60, height: int = 40) -> bytes:
    """A photo-like file."""
    target = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(target, "JPEG")
    return target.getvalue()


@pytest.fixture
async def make_pool() -> AsyncIterator[MakePool]:
    made: list[DecoderPool] = []

    def make(**settings: object) -> DecoderPool:
        made.append(DecoderPool(AcquireSettings(**settings)))
        return made[-1]

    yield make
    for pool in made:
        await pool.close()


async def gone(process_id: int) -> None:
    """Wait until a process has ended; the kernel tells by its descriptor."""
    try:
        descriptor = os.pidfd_open(process_id)
    except ProcessLookupError:
        return
    try:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, ended.set)
        async with asyncio.timeout(10):
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


async def test_many_images_share_the_decoders(make_pool: MakePool) -> None:
    """Images beyond the number of decoders wait for their turn, and each gets its own answer."""
    pool = make_pool(decode_workers=2)
    sizes = [(60 + number, 40) for number in range(20)]

    images = await asyncio.gather(*(pool.decode(jpeg(*size)) for size in sizes))

    assert sizes == [(image.width, image.height) for image in images]
    assert 2 == len(pool.process_ids)


async def test_an_error_of_the_table_comes_back(make_pool: MakePool) -> None:
    """What the child finds wrong is raised here, and the child lives on."""
    pool = make_pool(decode_workers=1)
    with pytest.raises(BrokenImage, match="truncated"):
        await pool.decode(jpeg()[:-30])
    before = pool.process_ids
    with pytest.raises(UnsupportedMediaType, match="HTML"):
        await pool.decode(b"<html>")
    with pytest.raises(UnsupportedMediaType, match="empty"):
        await pool.decode(b"")

    assert before == pool.process_ids


async def test_an_unchanged_file_is_the_same_object(make_pool: MakePool) -> None:
    """A file that passes through does not travel back from the child."""
    content = jpeg()

    assert content is (await make_pool().decode(content)).content


async def test_a_killed_idle_decoder_harms_no_image(make_pool: MakePool) -> None:
    """A decoder that was killed while it waited is replaced without the next image noticing."""
    pool = make_pool(decode_workers=1)
    await pool.decode(jpeg())
    (killed,) = pool.process_ids
    os.kill(killed, signal.SIGKILL)
    await gone(killed)

    assert 60 == (await pool.decode(jpeg())).width
    assert (killed,) != pool.process_ids


async def test_an_image_that_kills_its_decoders_is_broken(make_pool: MakePool) -> None:
    """An image whose decoders die is given up, while images in other decoders are not touched."""
    pool = make_pool(decode_workers=2, decode_attempts_max=1)
    await pool.decode(jpeg())
    (victim,) = pool.process_ids
    os.kill(victim, signal.SIGSTOP)
    doomed = asyncio.create_task(pool.decode(jpeg()))
    await asyncio.sleep(0)
    others = [asyncio.create_task(pool.decode(jpeg(61))) for _ in range(5)]
    assert [61] * 5 == [image.width for image in await asyncio.gather(*others)]

    os.kill(victim, signal.SIGKILL)

    with pytest.raises(BrokenImage, match="ended abnormally"):
        await doomed
    assert 60 == (await pool.decode(jpeg())).width


async def test_a_hanging_decoder_is_killed_at_the_deadline(make_pool: MakePool) -> None:
    """A decoder that does not answer in time is killed, its image is broken, the next one is decoded."""
    pool = make_pool(decode_workers=1, decode_seconds_max=0.5)
    try:
        await pool.decode(jpeg())
    except BrokenImage:
        # The first child of a fork server takes its time on a busy machine; a second one does not.
        await pool.decode(jpeg())
    (hanging,) = pool.process_ids
    os.kill(hanging, signal.SIGSTOP)

    with pytest.raises(BrokenImage, match=r"longer than 0\.5 seconds"):
        await pool.decode(jpeg())

    await gone(hanging)
    assert 60 == (await pool.decode(jpeg())).width


async def test_a_cancelled_image_frees_its_decoder(make_pool: MakePool) -> None:
    """Cancelling ends the work at once and leaves the pool usable."""
    pool = make_pool(decode_workers=1)
    await pool.decode(jpeg())
    (busy,) = pool.process_ids
    os.kill(busy, signal.SIGSTOP)
    task = asyncio.create_task(pool.decode(jpeg()))
    await asyncio.sleep(0)

    task.cancel()

    await gone(busy)
    assert 60 == (await pool.decode(jpeg())).width


async def test_hunger_for_memory_is_stopped(make_pool: MakePool) -> None:
    """An image that needs more memory than a decoder may have is refused, and nothing else suffers."""
    pool = make_pool(decode_workers=1, decode_memory_bytes_max=2**29)
    target = io.BytesIO()
    Image.new("RGB", (11_000, 5500)).save(target, "WEBP", lossless=True, quality=0, method=0)

    with pytest.raises((FileTooLarge, BrokenImage)):
        await pool.decode(target.getvalue())

    assert 60 == (await pool.decode(jpeg())).width


async def test_a_decoder_is_replaced_after_its_share(make_pool: MakePool) -> None:
    """After decode_images_per_worker_max images a fresh process takes over."""
    pool = make_pool(decode_workers=1, decode_images_per_worker_max=2)
    seen = set()
    for _ in range(3):
        await pool.decode(jpeg())
        seen.update(pool.process_ids)

    assert 2 == len(seen)


async def test_a_closed_pool_leaves_no_process(make_pool: MakePool) -> None:
    """Closing ends idle and busy decoders; images under way and later ones are told so."""
    pool = make_pool(decode_workers=2)
    await asyncio.gather(pool.decode(jpeg()), pool.decode(jpeg()))
    process_ids = pool.process_ids
    for process_id in process_ids:
        os.kill(process_id, signal.SIGSTOP)
    under_way = asyncio.create_task(pool.decode(jpeg()))
    await asyncio.sleep(0)

    await pool.close()

    with pytest.raises(Unavailable):
        await under_way
    with pytest.raises(Unavailable):
        await pool.decode(jpeg())
    for process_id in process_ids:
        await gone(process_id)


PARENT = """
import asyncio, os, signal, sys
from services.vision.acquire import AcquireSettings, DecoderPool

async def main():
    pool = DecoderPool(AcquireSettings(decode_workers=2, decode_seconds_max=2))
    content = open(sys.argv[1], "rb").read()
    await asyncio.gather(pool.decode(content), pool.decode(content))
    idle, busy = pool.process_ids
    os.kill(busy, signal.SIGSTOP)
    task = asyncio.create_task(pool.decode(content))
    while pool.process_ids != (idle, busy) or not pool._busy:
        await asyncio.sleep(0)
    print(idle, busy, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_decoders_end_with_a_killed_parent(tmp_path: Path) -> None:
    """Idle decoders end when their service is killed hard, and so does one that was busy as soon as it runs again."""
    photo, printed = tmp_path / "photo.jpg", tmp_path / "printed"
    photo.write_bytes(jpeg())
    with printed.open("wb") as output:
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, str(photo), stdout=output)
        async with asyncio.timeout(30):
            status = await parent.wait()

    assert status == -signal.SIGKILL
    idle, busy = (int(text) for text in printed.read_text().split())
    await gone(idle)
    os.kill(busy, signal.SIGCONT)
    await gone(busy)


def test_a_hanging_decoder_ends_without_its_parent() -> None:
    """A decoder whose parent no longer watches it is ended by its own alarm when an image takes too long."""
    context = multiprocessing.get_context("forkserver")
    ours, childs = socket.socketpair()
    process = context.Process(target=_serve, args=(childs, AcquireSettings().decode_limits, 2**31, 0.05))
    process.start()
    childs.close()
    target = io.BytesIO()
    Image.effect_noise((4000, 4000), 90).save(target, "TIFF")
    ours.sendall(struct.pack("!Q", target.tell()) + target.getvalue())

    process.join(10)

    assert process.exitcode == -signal.SIGALRM
    ours.close()


async def test_an_acquirer_fetches_and_decodes() -> None:
    """The two halves work as one: a URL becomes an image, an HTML page under an image's type an error."""
    async with photo_host() as host:
        host.files["photo"] = (jpeg(), "image/jpeg")
        host.files["page"] = (b"<html>Sorry</html>", "image/png")
        acquirer = Acquirer(AcquireSettings(fetch_allow=host.endpoint, fetch_bytes_max=100_000))

        image = await acquirer.from_url(f"{host.url}/files/photo")
        with pytest.raises(UnsupportedMediaType, match="HTML"):
            await acquirer.from_url(f"{host.url}/files/page")
        with pytest.raises(FileTooLarge, match="100001 bytes"):
            await acquirer.from_bytes(bytes(100_001))
        await acquirer.close()

    assert (60, 40) == (image.width, image.height)
