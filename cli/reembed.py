"""`lensmesh reembed`: embeds a namespace anew with the models in use, with progress."""

from __future__ import annotations

import sys
import time
from typing import Literal

import click
from lensmesh.rest import outputs

from cli import exits
from cli.queries import INDEXES
from cli.session import Session, mesh_command
from lensmesh_client import LensmeshError

# Seconds between two lines where the output is no terminal.
_LINE_S = 5.0
_PHASES = {
    "features": "embedding assets",
    "stored_queries": "embedding stored queries",
    "switched": "switched",
    "unchanged": "is of the model in use already",
    "not_switched": "NOT switched",
}
_ENDS = ("switched", "unchanged", "not_switched")
_Indexes = tuple[Literal["image", "multimodal", "text", "keyword", "face"], ...]


@click.command("reembed")
@click.option("--index", type=click.Choice(INDEXES), multiple=True, help="Only this; may be given several times.")
@click.option("--accept-failures", is_flag=True, help="Switch even when some vectors can't be made: they are lost.")
@mesh_command
def reembed_command(session: Session, index: _Indexes, accept_failures: bool) -> int:
    """Embed a namespace anew with the models in use; exit code 1 when an index was not switched.

    Broken off, the same command goes on from there.
    """
    ended: dict[str, outputs.ReembedProgress] = {}
    show = _Shown(session)
    stream = session.client.namespaces.reembed(
        vector_indexes=list(index) or None, accept_failures=True if accept_failures else None
    )
    try:
        for progress in stream:
            show(progress)
            if progress["phase"] in _ENDS:
                ended[progress["vector_index"]] = progress
    except LensmeshError as error:
        if error.retryable:
            click.echo("lensmesh: what was made is kept: run it again to go on", err=True)
        raise
    return exits.FAILED if any(each["phase"] == "not_switched" for each in ended.values()) else exits.DONE


class _Shown:
    """Prints progress: in place on a terminal, else a line now and then; as JSON, every message."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._in_place = sys.stdout.isatty() and not session.as_json
        self._printed_at = 0.0
        self._phase: tuple[str, str] = ("", "")

    def __call__(self, progress: outputs.ReembedProgress) -> None:
        if self._session.as_json:
            self._session.document(progress)
            return
        ends = progress["phase"] in _ENDS
        phase = (progress["vector_index"], progress["phase"])
        due = ends or phase != self._phase or time.monotonic() - self._printed_at >= _LINE_S
        if self._in_place:
            click.echo(f"\r\033[K{_line(progress)}", nl=ends)
        elif due:
            click.echo(_line(progress))
            self._printed_at = time.monotonic()
        self._phase = phase
        if ends and progress["failed"]:
            click.echo(f"  {progress['failed']} could not be made, the last: {progress['last_error']}")


def _line(progress: outputs.ReembedProgress) -> str:
    phase = progress["phase"]
    text = f"{progress['vector_index']}: {_PHASES[phase]}"
    if phase == "unchanged":
        return f"{text} ({progress['to_version']})"
    if phase not in _ENDS:
        text += f" {progress['share']:4.0%}"
    counts = f"{progress['made']} made, {progress['present']} there already, {progress['failed']} failed"
    return f"{text}, {progress['from_version']} -> {progress['to_version']}: {counts}"
