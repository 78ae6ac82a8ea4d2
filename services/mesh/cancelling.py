"""Ends tasks for certain, which one cancellation does not."""

from __future__ import annotations

import asyncio
from typing import Any

# Between two cancellations of one task: enough for what it does to clean up.
_AGAIN_S = 1.0


async def cancelled(*tasks: asyncio.Task[Any]) -> list[Any]:
    """Cancel tasks, and wait until they have ended; returns what each returned or raised.

    `asyncio.wait_for` of Python 3.11, which nats-py asks by, drops a cancellation that comes with its answer
    (https://github.com/python/cpython/issues/86296): who cancels but once may wait for ever.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_AGAIN_S)
    return await asyncio.gather(*tasks, return_exceptions=True)
