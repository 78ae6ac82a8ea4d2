"""Decodes images in child processes, so that a crash, a hang or a hunger for memory hurts only its own image.

What decoding means is `decode`'s. The parts are the standard library's: a fork server, and one pipe for each child.
A `ProcessPoolExecutor` would fail every image under way when one child dies, and has no deadline for a task.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

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


@dataclass(slots=True)
class _Decoder:
    """One child process, the pipe to it, and how many images it has answered."""

    process: BaseProcess
    pipe: Connection
    content_bytes_max: int
    images: int = 0

    def exchange(self, content: bytes) -> NormalisedImage | LensmeshError | None:
        """Send a file and wait for the answer; None when the child is gone, which is then cleaned up. Blocks."""
        try:
            self.pipe.send_bytes(content)
            header = json.loads(self.pipe.recv_bytes(_HEADER_BYTES_MAX))
            # Not pickled: a decoder that a malicious file has taken over shall not run code here too.
            if "error" in header:
                self.images += 1
                return _ERRORS[header["error"]](header["message"])
            encoded = self.pipe.recv_bytes(self.content_bytes_max)
            answer = NormalisedImage(content=encoded or content, **header)
        except (OSError, EOFError, ValueError, TypeError, LookupError):
            self.end()
            return None
        self.images += 1
        return answer

    def end(self) -> None:
        """Kill the child and wait until it is gone. Blocks for as long as the kernel needs."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


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
        self._threads = ThreadPoolExecutor(settings.decode_workers, thread_name_prefix="decoder")
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

    async def close(self) -> None:
        """End all decoders; images under way fail with Unavailable."""
        self._closed = True
        for decoder in self._busy:
            decoder.process.kill()
        turns = [await self._turns.acquire() for _ in range(self._settings.decode_workers)]
        while self._idle:
            self._idle.pop().end()
        self._threads.shutdown()
        for _ in turns:
            self._turns.release()

    async def _attempt(self, content: bytes) -> NormalisedImage | LensmeshError | None:
        """One decoder's answer; None when it ended abnormally, which need not be this image's fault."""
        if self._closed:
            return Unavailable("the image decoders are shut down")
        loop = asyncio.get_running_loop()
        decoder = self._idle.pop() if self._idle else await loop.run_in_executor(self._threads, self._start)
        self._busy.append(decoder)
        seconds = self._settings.decode_seconds_max
        # The deadline kills the child, and that ends the thread's wait, wherever in the exchange it stands.
        deadline = loop.call_later(seconds, decoder.process.kill)
        try:
            answer = await loop.run_in_executor(self._threads, decoder.exchange, content)
        except asyncio.CancelledError:
            decoder.process.kill()
            raise
        finally:
            deadline.cancel()
            self._busy.remove(decoder)
        if answer is not None:
            self._keep(decoder)
            return answer
        if self._closed:
            return Unavailable("the image decoders are shut down")
        if loop.time() >= deadline.when():
            return BrokenImage(
                f"decoding the image takes longer than {seconds:g} seconds (LENSMESH_VISION_DECODE_SECONDS_MAX)"
            )
        return None

    def _start(self) -> _Decoder:
        settings = self._settings
        limits = settings.decode_limits
        pipe, child_pipe = self._context.Pipe()
        process = self._context.Process(
            target=_serve,
            args=(child_pipe, limits, settings.decode_memory_bytes_max, settings.decode_seconds_max),
            name="decoder",
            daemon=True,
        )
        process.start()
        # Only the child may hold its end, so that its death is an end of file here.
        child_pipe.close()
        return _Decoder(process, pipe, limits.pixels_max * _BYTES_PER_PIXEL_MAX + _FRAME_BYTES_MAX)

    def _keep(self, decoder: _Decoder) -> None:
        if decoder.images < self._settings.decode_images_per_worker_max:
            self._idle.append(decoder)
        else:
            decoder.end()


def _serve(pipe: Connection, limits: DecodeLimits, memory_bytes_max: int, seconds_max: float) -> None:
    """The child's life: answer one file after the other until the pipe ends."""
    # Ctrl-C reaches the whole process group; whether images under way still finish is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prepare_process(limits)
    while True:
        try:
            content = pipe.recv_bytes()
            # The parent keeps the deadline; this ends a decoder that hangs after its parent was killed.
            signal.setitimer(signal.ITIMER_REAL, seconds_max)
            _answer(pipe, content, limits)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _answer(pipe: Connection, content: bytes, limits: DecodeLimits) -> None:
    try:
        image = normalise(content, limits)
    except LensmeshError as error:
        pipe.send_bytes(json.dumps({"error": error.type, "message": error.message}).encode())
        return
    header = asdict(image)
    del header["content"]
    pipe.send_bytes(json.dumps(header).encode())
    # Unchanged files, the most frequent ones, need not travel back.
    pipe.send_bytes(b"" if image.content is content else image.content)
