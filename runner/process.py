"""One child process: in its own group, its output handed on line by line, restarted when it ends, stopped for good.

What the process is and when it is ready, its `Spec` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Its own small program, in an interpreter without site packages: 20 ms.
_TIED = (sys.executable, "-I", "-S", str(Path(__file__).with_name("tied.py")))
# Restarts wait longer each time, and start over after this many seconds of running well.
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_RAN_WELL_S = 30.0
# Between two looks whether a process has ended.
_LOOK_S = 0.05

Say = Callable[[str, str], None]


class StartFailed(Exception):
    """A process did not become ready; the message holds its last lines."""


@dataclass(frozen=True)
class Spec:
    """What to run, and how to know that it is ready."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    # Raises or returns False until the process can do its work.
    ready: Callable[[], Awaitable[bool]]
    ready_s_max: float = 60.0
    stop_s_max: float = 25.0
    # Called when the whole group is dead.
    clean_up: Callable[[], object] = field(default=lambda: None)


class Process:
    """Keeps one process running until it is stopped."""

    def __init__(self, spec: Spec, say: Say) -> None:
        self.spec = spec
        self._say = say
        self._child: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False
        self._last_lines: list[str] = []
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self._child.pid if self._child and self._child.returncode is None else None

    async def start(self) -> None:
        """Start the process, and keep it running from now on; `wait_ready` says when it can work."""
        self._child = await self._spawn()
        self._keeper = asyncio.create_task(self._keep())

    async def wait_ready(self) -> None:
        """Wait until the process is ready, across restarts. Raises StartFailed."""
        deadline = time.monotonic() + self.spec.ready_s_max
        while time.monotonic() < deadline:
            if self.pid is None and self.restarts >= len(_BACKOFF_S):
                break
            with contextlib.suppress(Exception):
                if self.pid is not None and await asyncio.wait_for(self.spec.ready(), timeout=5):
                    return
            await asyncio.sleep(0.05)
        lines = "\n".join(f"    {line}" for line in self._last_lines[-15:])
        raise StartFailed(f"{self.spec.name} did not become ready; it last said:\n{lines or '    nothing'}")

    async def stop(self) -> None:
        """Ask the process to end, wait, and kill what is left of its group."""
        self._stopping = True
        if self.pid is not None and self._child is not None:
            self._child.terminate()
            try:
                await asyncio.wait_for(_exit_code(self._child), timeout=self.spec.stop_s_max)
            except TimeoutError:
                self._say(self.spec.name, f"still running after {self.spec.stop_s_max:.0f} s; killed")
        self._kill_group()
        if self._keeper:
            await self._keeper

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process itself, as a failure drill does; to one that has just ended, none."""
        if self.pid is not None:
            # Its end is known here one turn of the loop after the system has forgotten its id.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *_TIED,
            *self.spec.argv,
            env=dict(self.spec.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=1 << 20,
        )

    async def _keep(self) -> None:
        while True:
            assert self._child is not None
            started = time.monotonic()
            reading = asyncio.create_task(self._read(self._child))
            code = await _exit_code(self._child)
            self._kill_group()
            await reading
            self.spec.clean_up()
            if self._stopping:
                return
            if time.monotonic() - started > _RAN_WELL_S:
                self.restarts = 0
            pause = _BACKOFF_S[min(self.restarts, len(_BACKOFF_S) - 1)]
            self.restarts += 1
            self._say(self.spec.name, f"ended ({_reason(code)}); starting again in {pause} s")
            await asyncio.sleep(pause)
            if self._stopping:
                return
            self._child = await self._spawn()

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None
        while True:
            try:
                line = await child.stdout.readline()
            except ValueError:
                # A line beyond the buffer: the rest comes with the next reads.
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self._last_lines = [*self._last_lines[-30:], text]
            self._say(self.spec.name, text)

    def _kill_group(self) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)


async def _exit_code(child: asyncio.subprocess.Process) -> int:
    """How a process ended, once it has: asyncio's own `wait` waits for its children too, which hold its output open."""
    while child.returncode is None:
        await asyncio.sleep(_LOOK_S)
    return child.returncode


def _reason(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
