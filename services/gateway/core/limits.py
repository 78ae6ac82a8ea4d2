"""How many requests a key may send a minute: a sliding window over two counters, in the memory of this process.

Each replica of the gateway counts by itself.
"""

from __future__ import annotations

import time

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from services.gateway.auth import Caller
from services.mesh.errors import ResourceExhausted


class Limits:
    """Counts requests by key.

    Args:
        requests_per_minute: of a key that has no number of its own.
    """

    def __init__(self, requests_per_minute: int) -> None:
        self._requests_per_minute = requests_per_minute
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._items: dict[int, RateLimitItemPerMinute] = {}

    async def take(self, caller: Caller) -> None:
        """Count one request.

        Raises:
            ResourceExhausted: the key has sent as many as it may; says when there is room again.
        """
        number = caller.key.requests_per_minute or self._requests_per_minute
        item = self._items.setdefault(number, RateLimitItemPerMinute(number))
        if not await self._limiter.hit(item, caller.usage_id):
            window = await self._limiter.get_window_stats(item, caller.usage_id)
            raise ResourceExhausted(
                f"this API key may send {number} requests a minute; try again later",
                retry_after_s=max(1.0, window.reset_time - time.time()),
            )
