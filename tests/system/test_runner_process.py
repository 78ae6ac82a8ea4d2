"""The runner keeps a process running, whatever its children do."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from runner.process import Process, Spec

# A process whose child keeps its output open, as the processes of Triton's models do. Both sleep longer than any test
# may take: nothing but a signal ends them.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "a").write(f"{child.pid}\\n")
time.sleep(600)
"""


async def test_a_process_whose_child_outlives_it_is_started_again(tmp_path: Path) -> None:
    """Killed hard, it comes again, and the child that was left is gone."""
    pids = tmp_path / "children"

    async def ready() -> bool:
        return pids.exists()

    def children() -> list[int]:
        return [int(each) for each in pids.read_text().split()]

    argv = (sys.executable, "-c", PARENT, str(pids))
    process = Process(Spec("parent", argv, dict(os.environ), ready), lambda name, line: None)
    await process.start()
    await process.wait_ready()
    process.kill()
    async with asyncio.timeout(30):
        while len(children()) < 2:
            await asyncio.sleep(0.05)
    assert 1 == process.restarts
    await process.stop()
    async with asyncio.timeout(30):
        while any(Path(f"/proc/{each}").exists() and _runs(each) for each in children()):
            await asyncio.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False
