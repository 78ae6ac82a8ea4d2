"""The breaker by itself, with a clock of the test's own."""

from __future__ import annotations

from services.percolator.breaker import Breakers

KEY = ("ns_test", "http://hook.test")


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Now."""
        return self.now


def test_a_breaker_opens_for_a_growing_time_and_lets_one_probe_through() -> None:
    """Two failures in a row open it for 10 s, a failed probe for twice as long, up to 30 s; a success closes it."""
    clock = Clock()
    breakers = Breakers(2, 10, 30, clock)
    breakers.failed(KEY)
    assert 0 == breakers.wait_s(KEY)
    breakers.failed(KEY)
    for open_s in (10, 20, 30, 30):
        assert open_s == breakers.wait_s(KEY)
        clock.now += open_s
        assert 0 == breakers.wait_s(KEY)
        assert breakers.wait_s(KEY) > 0
        breakers.failed(KEY)
    clock.now += 30
    assert 0 == breakers.wait_s(KEY)
    breakers.worked(KEY)
    assert [0, 0] == [breakers.wait_s(KEY) for _ in range(2)]


def test_a_success_in_between_starts_the_count_anew() -> None:
    """Only failures in a row count, and each namespace and origin has its own."""
    breakers = Breakers(2, 10, 30, Clock())
    for _ in range(3):
        breakers.failed(KEY)
        breakers.worked(KEY)
    breakers.failed(("ns_other", KEY[1]))
    breakers.failed(KEY)
    assert [0, 0] == [breakers.wait_s(key) for key in (KEY, ("ns_other", KEY[1]))]


def test_a_probe_that_was_not_made_leaves_its_place() -> None:
    """When what let itself through does not call, the next may."""
    clock = Clock()
    breakers = Breakers(1, 10, 30, clock)
    breakers.failed(KEY)
    clock.now += 10
    assert 0 == breakers.wait_s(KEY)
    breakers.given_up(KEY)
    assert 0 == breakers.wait_s(KEY)
