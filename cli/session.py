"""What every command that speaks to a mesh shares: its options, its client, its output, its exit code."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any

import click
from rich.console import Console
from rich.table import Table

from cli import exits
from cli.connection import NoMesh, find
from lensmesh_client import LensmeshError, RestClient
from lensmesh_client.errors import Unavailable, Unreachable

# Columns of output that goes to no terminal, where rich would take 80.
_FILE_COLUMNS = 240


class Session:
    """One command's run: the client, and where results go."""

    def __init__(self, client: RestClient, *, as_json: bool) -> None:
        self.client = client
        self.as_json = as_json
        self.console = console()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table for people; None is shown as a dash."""
        made = Table(*columns, box=None, header_style="bold", pad_edge=False)
        for row in rows:
            made.add_row(*("-" if each is None else str(each) for each in row))
        self.console.print(made)

    @staticmethod
    def document(value: object, target: IO[str] | None = None) -> None:
        """One JSON document, in one line, for machines; into a file, or on stdout."""
        click.echo(json.dumps(value, ensure_ascii=False), file=target)

    def collections(self, given: Sequence[str]) -> list[str]:
        """The given collections; none: all of the namespace, up to as many as a request takes."""
        if given:
            return list(given)
        listed = self.client.collections.list_collections(page_size=100)
        return [each["collection_id"] for each in listed["results"]]


def console() -> Console:
    """The standard output; as wide as it needs to be where it is no terminal."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=_FILE_COLUMNS)


def mesh_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that speaks to a mesh: url, api_key, namespace, as_json."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="JSON for machines: one document, or one a line."),
        click.option(
            "--namespace", envvar="LENSMESH_NAMESPACE", default="", help="Name or id; default: the key's own."
        ),
        click.option(
            "--api-key", envvar="LENSMESH_API_KEY", default="", help="Default: this machine's development key."
        ),
        click.option("--url", envvar="LENSMESH_URL", default="", help="The REST door; default: this machine's mesh."),
    ):
        command = option(command)
    return command


def mesh_command(command: Callable[..., int]) -> Callable[..., int]:
    """A command that is given a `Session` before its own arguments, and returns its exit code.

    Raises, when run:
        SystemExit: with the code; errors are one sentence on stderr.
    """

    @mesh_options
    @functools.wraps(command)
    def run(url: str, api_key: str, namespace: str, as_json: bool, **given: Any) -> int:
        try:
            connection = find(url, api_key, namespace)
            with RestClient(connection.url, connection.api_key, namespace=connection.namespace) as client:
                code = command(Session(client, as_json=as_json), **given)
        except NoMesh as error:
            click.echo(f"lensmesh: {error}", err=True)
            code = exits.UNREACHABLE
        except LensmeshError as error:
            click.echo(complaint(error, as_json=as_json), err=True)
            code = exits.UNREACHABLE if isinstance(error, Unreachable | Unavailable) else exits.FAILED
        except KeyboardInterrupt:
            code = exits.INTERRUPTED
        raise SystemExit(code)

    return run


def complaint(error: LensmeshError, *, as_json: bool) -> str:
    """An error as people or machines read it."""
    if as_json:
        return json.dumps({"error": failure(error)}, ensure_ascii=False)
    return f"lensmesh: {error.message} ({error.type})"


def failure(error: LensmeshError) -> dict[str, object]:
    """An error as JSON values."""
    violations = [{"field": each.field, "message": each.message, "rule": each.rule} for each in error.violations]
    return {
        "type": error.type,
        "message": error.message,
        "retryable": error.retryable,
        "violations": violations,
    }


def cut(text: object, chars: int) -> str:
    """A text in one line of at most so many characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= chars else f"{line[: chars - 1]}…"


def json_object(context: click.Context, parameter: click.Parameter, text: str | None) -> Mapping[str, Any] | None:
    """An option that is a JSON object.

    Raises:
        click.BadParameter: it is none.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.BadParameter("must be a JSON object")
    return value
