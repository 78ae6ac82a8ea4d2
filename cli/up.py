"""`lensmesh up`: the mesh on this machine, in the foreground."""

from __future__ import annotations

import click

from runner import up


@click.command("up")
def up_command() -> None:
    """Run the mesh; Ctrl-C drains it. Exit code 1: it could not start."""
    up.main()
