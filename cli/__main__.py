"""`lensmesh COMMAND`: the commands for people and scripts."""

from __future__ import annotations

import click

from cli.doctor import doctor_command
from cli.images import index_command, search_command, task_command
from cli.keys import keys_group
from cli.percolation import matches_command, query_group
from cli.reembed import reembed_command
from cli.transfer import export, import_
from cli.trials import dry_run, percolate_command
from cli.up import up_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def lensmesh() -> None:
    """Make images findable, and match them against stored queries.

    Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 not reachable, 130 interrupted. The mesh is the one
    that runs on this machine, unless LENSMESH_URL and LENSMESH_API_KEY say otherwise.
    """


for command in (
    up_command,
    index_command,
    task_command,
    search_command,
    query_group,
    matches_command,
    percolate_command,
    keys_group,
    reembed_command,
    doctor_command,
):
    lensmesh.add_command(command)
for command in (import_, export, dry_run):
    query_group.add_command(command)


if __name__ == "__main__":
    lensmesh(prog_name="lensmesh")
