"""How often, how long and after which pauses a request is sent again; what is worth it, the error says."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from lensmesh_client.errors import LensmeshError


@dataclass(frozen=True, slots=True)
class Retries:
    """Limits of sending again. Pauses are random below a bound that doubles, never shorter than the mesh asks for."""

    # Of one request, the first included.
    attempts_max: int = 5
    # From the first attempt to the start of the last.
    seconds_max: float = 30.0
    # The bound of the first pause, seconds.
    first_s: float = 0.2
    # The bound of all, seconds.
    longest_s: float = 5.0

    def begin(self) -> Attempts:
        """Count from now."""
        return Attempts(self)


# A request is sent once.
NEVER = Retries(attempts_max=1)
# A follower of a stream outlives a mesh that is started again.
FOLLOWING = Retries(attempts_max=200, seconds_max=600.0, first_s=0.2, longest_s=10.0)


class Attempts:
    """The attempts of one request."""

    def __init__(self, limits: Retries) -> None:
        self._limits = limits
        self._made = 1
        self._began = time.monotonic()

    def succeeded(self) -> None:
        """Count anew: a stream that broke had been going on."""
        self._made, self._began = 1, time.monotonic()

    def pause(self, error: LensmeshError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            LensmeshError: the given one, when there is to be no other attempt.
        """
        limits = self._limits
        bound = min(limits.longest_s, limits.first_s * 2 ** (self._made - 1))
        wait = max(error.retry_after_s or 0.0, random.uniform(0, bound))
        spent = time.monotonic() - self._began
        if not error.retryable or self._made >= limits.attempts_max or spent + wait > limits.seconds_max:
            raise error
        self._made += 1
        return wait
