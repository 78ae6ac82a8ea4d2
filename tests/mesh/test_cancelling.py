"""Tasks end when they are cancelled, even those that miss it once."""

from __future__ import annotations

import asyncio
import contextlib

from services.mesh.cancelling import cancelled


async def test_a_task_that_misses_a_cancellation_ends_all_the_same() -> None:
    """It is cancelled again; what others returned or raised is told."""

    async def misses_one() -> None:
        # Both longer than any test may take: nothing but a cancellation ends them.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)
        await asyncio.sleep(600)

    async def returns() -> int:
        return 3

    async def fails() -> None:
        raise ValueError("no")

    tasks = [asyncio.create_task(each()) for each in (misses_one, returns, fails)]
    await asyncio.sleep(0)
    missed, returned, failed = await asyncio.wait_for(cancelled(*tasks), timeout=60)
    assert isinstance(missed, asyncio.CancelledError)
    assert 3 == returned
    assert isinstance(failed, ValueError)
    assert [] == await cancelled()
