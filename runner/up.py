"""`make up`: the mesh in the foreground, one readable log, Ctrl-C drains it."""

from __future__ import annotations

import asyncio
import signal
import sys

from runner.mesh import NAMESPACE, Mesh, from_environment
from runner.process import StartFailed
from runner.triton import TritonUnavailable

_WIDTH = 10


def say(name: str, line: str) -> None:
    """One prefixed line of the log."""
    print(f"{name:<{_WIDTH}} | {line}", flush=True)


async def run() -> None:
    """Run until SIGINT or SIGTERM."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    mesh = Mesh(from_environment(), say, lambda text: say("lensmesh", text))
    starting = asyncio.create_task(mesh.start())
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return
    starting.result()
    _welcome(mesh)
    await stopped
    say("lensmesh", "draining; running tasks go on after the next start")
    await mesh.stop()
    say("lensmesh", "stopped; nothing is left running")


def _welcome(mesh: Mesh) -> None:
    for line in (
        "ready",
        f"  REST       {mesh.rest_url}   (API page: {mesh.rest_url}/docs)",
        f"  gRPC       {mesh.grpc_address}",
        f"  API key    {mesh.api_key}   (development key, every permission)",
        f"  namespace  {NAMESPACE}",
        f"  data       {mesh.config.data_dir}   (endpoints.json is there too)",
        "  stop with Ctrl-C",
    ):
        say("lensmesh", line)


def main() -> None:
    """Run; a failure to start ends with one clear message and code 1."""
    try:
        asyncio.run(run())
    except (StartFailed, TritonUnavailable, FileNotFoundError) as error:
        print(f"lensmesh could not start: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
