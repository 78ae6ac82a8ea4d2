"""Which model set the commands of the Makefile mean."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
# What make tells its children when the tests themselves run under it.
_FROM_MAKE = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "LENSMESH_MODEL_SET", "SET"}


def _plan(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """What make would do."""
    kept = {name: value for name, value in os.environ.items() if name not in _FROM_MAKE}
    command = ["make", "--dry-run", "--always-make", *arguments]
    return subprocess.run(
        command, cwd=_ROOT, env={**kept, **settings}, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    ("settings", "arguments", "fetched"),
    [
        ({}, (), "--set lite"),
        ({}, ("SET=standard",), "--set standard"),
        ({"LENSMESH_MODEL_SET": "standard"}, (), "--set standard"),
        ({"LENSMESH_MODEL_SET": "standard"}, ("SET=standard",), "--set standard"),
    ],
)
def test_what_runs_is_what_is_fetched(settings: dict[str, str], arguments: tuple[str, ...], fetched: str) -> None:
    """Either name of the setting chooses the set that `make up` fetches, once."""
    plan = _plan("up", *arguments, **settings)

    assert [fetched] == [
        line.partition("models.fetch ")[2] for line in plan.stdout.splitlines() if "models.fetch" in line
    ]


def test_two_choices_are_refused() -> None:
    """SET and LENSMESH_MODEL_SET that differ end every command with a message that names both."""
    plan = _plan("up", "SET=lite", LENSMESH_MODEL_SET="standard")

    assert plan.returncode != 0
    assert "SET=lite and LENSMESH_MODEL_SET=standard differ" in plan.stderr


def test_a_set_of_ones_own_fetches_nothing(tmp_path: Path) -> None:
    """The path of a set stands on models that are there already."""
    plan = _plan("up", LENSMESH_MODEL_SET=str(tmp_path / "own.json"))

    assert plan.returncode == 0, plan.stderr
    assert "models.fetch" not in plan.stdout
