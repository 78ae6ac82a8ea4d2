"""Circuit breakers: an origin that failed often in a row is left alone for a while, then asked once.

One breaker stands for one namespace and origin, so that no tenant's endpoint is judged by another's calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from services.mesh import telemetry

Key = tuple[str, str]

# Between two looks whether somebody's probe has ended.
_PROBE_S = 5.0


@dataclass(slots=True)
class _Breaker:
    failures: int = 0
    # How often it has opened since the last success.
    opened: int = 0
    # Until when nobody calls; 0 while it is closed.
    until: float = 0.0
    probing: bool = False
    # Failures are kept for those who call; whom nobody calls any more is forgotten.
    used_at: float = 0.0


class Breakers:
    """Every breaker that has seen a failure.

    Args:
        failures: in a row, after which a breaker opens.
        first_s, longest_s: how long it stays open, doubling from the first to the longest.
        clock: seconds that only grow.
    """

    def __init__(self, failures: int, first_s: float, longest_s: float, clock: Callable[[], float]) -> None:
        self._failures = failures
        self._first_s = first_s
        self._longest_s = longest_s
        self._clock = clock
        self._breakers: dict[Key, _Breaker] = {}

    def wait_s(self, key: Key) -> float:
        """Seconds until a call may be made; 0: now, and the caller must then call and say how it ended."""
        breaker = self._breakers.get(key)
        if breaker is None or not breaker.until:
            return 0.0
        left = breaker.until - self._clock()
        if left > 0:
            return left
        if breaker.probing:
            # Somebody is asking, which takes some seconds at most.
            return min(self._first_s, _PROBE_S)
        breaker.probing = True
        return 0.0

    def worked(self, key: Key) -> None:
        """The origin answered: the breaker closes."""
        if self._breakers.pop(key, None):
            self._count()

    def failed(self, key: Key) -> None:
        """The origin did not answer as it should."""
        self._forget_unused()
        # The longest unused one stands first.
        breaker = self._breakers[key] = self._breakers.pop(key, _Breaker())
        breaker.failures += 1
        breaker.used_at = self._clock()
        # Calls that were under way when it opened say nothing new.
        if breaker.probing or (breaker.failures >= self._failures and not breaker.until):
            breaker.until = self._clock() + min(self._first_s * 2**breaker.opened, self._longest_s)
            breaker.opened += 1
            self._count()
        breaker.probing = False

    def given_up(self, key: Key) -> None:
        """A call that was let through was not made, or not to its end."""
        breaker = self._breakers.get(key)
        if breaker:
            breaker.probing = False

    def _forget_unused(self) -> None:
        oldest = self._clock() - 10 * self._longest_s
        while self._breakers:
            key = next(iter(self._breakers))
            if self._breakers[key].used_at >= oldest:
                break
            del self._breakers[key]

    def _count(self) -> None:
        telemetry.OPEN_BREAKERS.set(sum(bool(each.until) for each in self._breakers.values()))


@dataclass(slots=True)
class Places:
    """Room for calls: so many in all, and so many to one origin, whose own wait takes nobody else's room."""

    calls_max: int
    per_origin_max: int
    _all: asyncio.Semaphore = field(init=False)
    _origins: dict[str, tuple[asyncio.Semaphore, int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._all = asyncio.Semaphore(self.calls_max)

    @asynccontextmanager
    async def take(self, origin: str) -> AsyncIterator[None]:
        """Wait for a place, first at the origin, then in all."""
        semaphore, users = self._origins.get(origin) or (asyncio.Semaphore(self.per_origin_max), 0)
        self._origins[origin] = (semaphore, users + 1)
        try:
            async with semaphore, self._all:
                yield
        finally:
            semaphore, users = self._origins.pop(origin)
            if users > 1:
                self._origins[origin] = (semaphore, users - 1)
