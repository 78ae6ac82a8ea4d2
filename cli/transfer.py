"""`lensmesh query import` and `export`: many stored queries at once, one JSON object a line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click
from lensmesh.rest import outputs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli import exits
from cli.session import Session, mesh_command

_STDIN = Path("/dev/stdin")
# Bytes that lines are counted in at a time.
_COUNT_BYTES = 1 << 22


@click.command("import")
@click.argument("file", metavar="FILE|-", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@mesh_command
def import_(session: Session, file: Path) -> int:
    """Store queries, one JSON object a line as `query export` writes them; exit code 1 when a line was refused.

    A line with the `percolator_id` of a stored query replaces it, so that the same file can be imported again.
    """
    source = _STDIN if str(file) == "-" else file
    last: outputs.ImportStoredQueriesResponse | None = None
    with _bar(session, _count(source) if source.is_file() else None) as show:
        for last in session.client.percolators.import_stored_queries(lines=source):
            if session.as_json:
                session.document(last)
                continue
            for each in last["failures"]:
                click.echo(f"line {each['line']}: {each['message']} ({each['type']})", err=True)
            show.update(show.task_ids[0], completed=last["read"])
    assert last is not None
    if not session.as_json:
        click.echo(f"{last['stored']} stored, {last['failed']} refused")
    return exits.FAILED if last["failed"] else exits.DONE


@click.command("export")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@mesh_command
def export(session: Session, file: Path | None) -> int:
    """Write every stored query with its vectors, one JSON object a line; webhooks are left out.

    A file appears under its name when it is whole.
    """
    if file is None:
        _write(session, None)
        return exits.DONE
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("w", encoding="utf-8") as target:
            count = _write(session, target)
        part.replace(file)
    except OSError as error:
        raise click.UsageError(f"{file} can't be written: {error}") from None
    finally:
        part.unlink(missing_ok=True)
    click.echo(f"{count} stored queries in {file}", err=True)
    return exits.DONE


def _write(session: Session, target: IO[str] | None) -> int:
    count = 0
    for stored in session.client.percolators.export_stored_queries():
        session.document(stored, target)
        count += 1
    return count


def _count(file: Path) -> int:
    with file.open("rb") as opened:
        return sum(part.count(b"\n") for part in iter(lambda: opened.read(_COUNT_BYTES), b""))


@contextmanager
def _bar(session: Session, total: int | None) -> Iterator[Progress]:
    """A progress bar where people see it: on stderr, and only on a terminal."""
    columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = sys.stderr.isatty() and not session.as_json
    with Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True) as progress:
        progress.add_task("import", total=total)
        yield progress
