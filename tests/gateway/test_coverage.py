"""The page that says which test shows what: no path of the API is missing, and no test is named that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from services.gateway.core.core import PUBLIC_SERVICES, Operation
from services.gateway.rest.routes import bindings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api-coverage.md").read_text()


def test_every_path_is_listed() -> None:
    """Each HTTP method and path of the contracts stands on the page; an alias stands by its first name."""
    missing = []
    for service in PUBLIC_SERVICES:
        for method in service.methods:
            first = next(bindings(Operation(method, 0, None)))  # type: ignore[arg-type]
            if f"`{first.method} {first.path}`" not in PAGE:
                missing.append(f"{first.method} {first.path}")
    assert missing == []


def test_every_named_test_exists() -> None:
    """Each `tests/...::name` on the page is a test function in that file, each `tests/...` a file or folder."""
    named = re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", PAGE)
    assert len(named) > 50
    for path, name in named:
        assert (ROOT / path).exists(), path
        if name:
            assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"
