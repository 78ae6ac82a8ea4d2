"""Decodes images in child processes, so that a crash, a hang or a hunger for memory hurts only its own image.

What decoding means is `decode`'s. The parts are the standard library's: a fork server, and one socket for each child.
A `ProcessPoolExecutor` would fail every image under way when one child dies, and has no deadline for a task.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import signal
import socket
import struct
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from typing import BinaryIO

from services.mesh.errors import BrokenImage, FileTooLarge, LensmeshError, Unavailable, UnsupportedMediaType
from services.vision.acquire.config import AcquireSettings
from services.vision.acquire.decode import DecodeLimits, NormalisedImage, normalise, prepare_process

_ERRORS: dict[str, type[LensmeshError]] = {
    error.type: error for error in (BrokenImage, FileTooLarge, UnsupportedMediaType)
}
#: Bytes of an answer's JSON part; ten times what the longest message takes.
_HEADER_BYTES_MAX = 16 * 1024
#: Bytes of an encoded pixel at worst (PNG of noise: three and a filter byte a row), and of what stands around them.
_BYTES_PER_PIXEL_MAX = 4
_FRAME_BYTES_MAX = 1024 * 1024
#: On the socket, each part stands behind its length.
_LENGTH = struct.Struct("!Q")


@dataclass(slots=True)
class _Decoder:
    """One child process, the socket to it, and how many images it has answered."""

    process: BaseProcess
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    content_bytes_max: int
    images: int = 0

    async def exchange(self, content: bytes) -> NormalisedImage | LensmeshError | None:
        """Send a file and wait for the answer; None when the child is gone."""
        try:
            self.writer.writelines((_LENGTH.pack(len(content)), content))
            await self.writer.drain()
            header = json.loads(await self._part(_HEADER_BYTES_MAX))
            encoded = await self._part(self.content_bytes_max)
            self.images += 1
            # Not pickled: a decoder that a malicious file has taken over shall not run code here too.
            if "error" in header:
                return _ERRORS[header["error"]](header["message"])
            return NormalisedImage(content=encoded or content, **header)
        except (OSError, EOFError, ValueError, TypeError, LookupError):
            return None

    async def _part(self, bytes_max: int) -> bytes:
        (length,) = _LENGTH.unpack(await self.reader.readexactly(_LENGTH.size))
        if length > bytes_max:
            raise ValueError("the decoder's answer is too long")
        return await self.reader.readexactly(length)

    async def end(self) -> None:
        """Kill the child and wait until it is gone."""
        self.process.kill()
        self.writer.close()
        await asyncio.to_thread(self.process.join)


class DecoderPool:
    """At most `decode_workers` images are decoded at a time, each in a process of its own; others wait in turn.

    The processes come from a fork server, which runs no threads and no event loop, so that forking is safe and a
    replacement costs milliseconds. They end with their parent, also when that is killed: idle ones at once, busy ones
    with their image or its deadline.
    """

    def __init__(self, settings: AcquireSettings) -> None:
        self._settings = settings
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([normalise.__module__])
        self._turns = asyncio.Semaphore(settings.decode_workers)
        self._idle: list[_Decoder] = []
        self._busy: list[_Decoder] = []
        self._closed = False

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The ids of the decoder processes that run now, idle ones first."""
        return tuple(decoder.process.pid or 0 for decoder in (*self._idle, *self._busy))

    async def decode(self, content: bytes) -> NormalisedImage:
        """`decode.normalise` in a child process.

        Raises its errors; BrokenImage too when the decoder ended abnormally or took longer than `decode_seconds_max`;
        Unavailable when the pool is closed. Cancelling ends the child.
        """
        if not content:
            raise UnsupportedMediaType("the file is empty")
        for _ in range(self._settings.decode_attempts_max):
            async with self._turns:
                answer = await self._attempt(content)
            if isinstance(answer, NormalisedImage):
                return answer
            if answer is not None:
                raise answer
        raise BrokenImage("the image's decoder ended abnormally")

    async def warm(self) -> None:
        """Start one decoder ahead of its first image."""
        async with self._turns:
            self._idle.append(await self._start())

    async def close(self) -> None:
        """End all decoders; images under way fail with Unavailable."""
        self._closed = True
        for decoder in self._busy:
            decoder.process.kill()
        turns = [await self._turns.acquire() for _ in range(self._settings.decode_workers)]
        while self._idle:
            await self._idle.pop().end()
        for _ in turns:
            self._turns.release()

    async def _attempt(self, content: bytes) -> NormalisedImage | LensmeshError | None:
        """One decoder's answer; None when it ended abnormally, which need not be this image's fault."""
        if self._closed:
            return Unavailable("the image decoders are shut down")
        decoder = self._idle.pop() if self._idle else await self._start()
        self._busy.append(decoder)
        seconds = self._settings.decode_seconds_max
        answer: NormalisedImage | LensmeshError | None = None
        reusable = False
        try:
            async with asyncio.timeout(seconds):
                answer = await decoder.exchange(content)
            reusable = answer is not None and decoder.images < self._settings.decode_images_per_worker_max
        except TimeoutError:
            answer = BrokenImage(
                f"decoding the image takes longer than {seconds:g} seconds (LENSMESH_VISION_DECODE_SECONDS_MAX)"
            )
        finally:
            self._busy.remove(decoder)
            if reusable:
                self._idle.append(decoder)
            else:
                await decoder.end()
        if answer is None and self._closed:
            return Unavailable("the image decoders are shut down")
        return answer

    async def _start(self) -> _Decoder:
        settings = self._settings
        limits = settings.decode_limits
        ours, childs = socket.socketpair()
        process = self._context.Process(
            target=_serve,
            args=(childs, limits, settings.decode_memory_bytes_max, settings.decode_seconds_max),
            name="decoder",
            daemon=True,
        )
        # Blocks while the fork server starts.
        await asyncio.to_thread(process.start)
        # Only the child may hold its end, so that its death is an end of file here.
        childs.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        return _Decoder(process, reader, writer, limits.pixels_max * _BYTES_PER_PIXEL_MAX + _FRAME_BYTES_MAX)


def _serve(end: socket.socket, limits: DecodeLimits, memory_bytes_max: int, seconds_max: float) -> None:
    """The child's life: answer one file after the other until the socket ends."""
    # Ctrl-C reaches the whole process group; whether images under way still finish is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prepare_process(limits)
    # The parent may go at any time.
    with suppress(OSError), end, end.makefile("rb") as incoming, end.makefile("wb") as outgoing:
        while header := incoming.read(_LENGTH.size):
            content = incoming.read(*_LENGTH.unpack(header))
            # The parent keeps the deadline; this ends a decoder that hangs after its parent was killed.
            signal.setitimer(signal.ITIMER_REAL, seconds_max)
            _answer(outgoing, content, limits)
            signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(outgoing: BinaryIO, content: bytes, limits: DecodeLimits) -> None:
    try:
        image = normalise(content, limits)
    except LensmeshError as error:
        header, encoded = {"error": error.type, "message": error.message}, b""
    else:
        header = asdict(image)
        del header["content"]
        # Unchanged files, the most frequent ones, need not travel back.
        encoded = b"" if image.content is content else image.content
    for part in (json.dumps(header).encode(), encoded):
        outgoing.write(_LENGTH.pack(len(part)))
        outgoing.write(part)
    outgoing.flush()
