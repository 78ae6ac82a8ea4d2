"""What is known of a webhook without calling it: its origin, as logs and breakers name it."""

from __future__ import annotations

import pytest

from services.percolator.webhook import origin_of


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Hook.test/a/b?token=sesame#x", "https://hook.test"),
        ("http://user:sesame@hook.test:8080/x", "http://hook.test:8080"),
        ("https://[2606:4700::1111]:8443?sesame", "https://[2606:4700::1111]:8443"),
    ],
)
def test_an_origin_holds_no_secret(url: str, origin: str) -> None:
    """Neither query nor user, password or path are part of it."""
    assert origin == origin_of(url)
