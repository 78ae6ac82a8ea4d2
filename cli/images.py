"""`lensmesh index`, `task` and `search`: images in, and found again."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from lensmesh.rest import inputs, outputs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli import exits
from cli.queries import INDEXES, Index, query
from cli.session import Session, cut, failure, json_object, mesh_command
from lensmesh_client import LensmeshError
from lensmesh_client.errors import Unreachable

EXTRACTORS = ("read", "describe", "faces", "logos")
_ENDED_BADLY = ("FAILED", "CANCELLED")
_Accepted = outputs.IndexImageResponse | outputs.IndexUploadResponse


@click.command("index")
@click.argument("urls", nargs=-1, required=True, metavar="URL|FILE...")
@click.option("--collection", default="default", show_default=True, help="Name or id; made when unknown.")
@click.option("--metadata", callback=json_object, help="A JSON object, kept with each image.")
@click.option("--extract", type=click.Choice(EXTRACTORS), multiple=True, help="May be given several times.")
@click.option("--percolate", is_flag=True, help="Match against the stored queries.")
@click.option("--skip-duplicate", is_flag=True, help="Fail what the collection has already.")
@click.option("--wait", is_flag=True, help="Wait for the ends; exit code 1 when one is not DONE.")
@mesh_command
def index_command(
    session: Session,
    urls: tuple[str, ...],
    collection: str,
    metadata: Mapping[str, Any] | None,
    extract: tuple[str, ...],
    percolate: bool,
    skip_duplicate: bool,
    wait: bool,
) -> int:
    """Index images by their URLs, or files of this machine; "-" reads them from standard input, one a line."""
    options: dict[str, Any] = {
        "collection_id": collection,
        "metadata": dict(metadata) if metadata is not None else None,
        "percolate": {} if percolate else None,
        "skip_duplicate": True if skip_duplicate else None,
        "feature_extractors": _extractors(extract) if extract else None,
    }
    accepted: list[tuple[str, _Accepted | LensmeshError]] = []
    for url in _urls(urls):
        try:
            accepted.append((url, _send(session, url, options)))
        except Unreachable:
            raise
        except LensmeshError as error:
            accepted.append((url, error))
    ended = _ends(session, accepted) if wait else {}
    code = exits.DONE
    rows: list[tuple[object, ...]] = []
    for url, each in accepted:
        task = ended.get(url)
        if isinstance(each, LensmeshError) or (task is not None and task["status"] != "DONE"):
            code = exits.FAILED
        rows.append(_row(url, each, task))
        if session.as_json:
            session.document(_line(url, each, task))
    if not session.as_json:
        session.table(["url", "status", "task", "asset", "matches", "error"], rows)
    return code


def _send(session: Session, url: str, options: Mapping[str, Any]) -> _Accepted:
    path = Path(url).expanduser()
    if not url.lower().startswith(("http://", "https://")) and path.is_file():
        return session.client.index.index_upload(file=path, **options)
    return session.client.index.index_image(url=url, **options)


def _urls(given: tuple[str, ...]) -> Iterator[str]:
    for url in given:
        if url == "-":
            yield from (line.strip() for line in sys.stdin if line.strip())
        else:
            yield url


def _extractors(names: tuple[str, ...]) -> inputs.FeatureExtractors:
    """What is asked for, embedded so that it is searched by."""
    made: inputs.FeatureExtractors = {"embed": [{"type": "url", "vector_index": "multimodal"}]}
    if "read" in names:
        made["read"] = {"vector_index": "keyword"}
    if "describe" in names:
        made["describe"] = {"vector_index": "text"}
    detect: inputs.Detect = {}
    if "faces" in names:
        detect["faces"] = {}
    if "logos" in names:
        detect["logos"] = {}
    if detect:
        made["detect"] = detect
    return made


def _ends(session: Session, accepted: list[tuple[str, _Accepted | LensmeshError]]) -> dict[str, outputs.Task]:
    """The ended task of each URL, waited for one after the other with a bar: the mesh does them side by side."""
    ended: dict[str, outputs.Task] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # On stderr, so that what is piped is the result alone.
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=session.as_json) as bar:
        shown = bar.add_task("indexing", total=len(accepted))
        for url, each in accepted:
            if not isinstance(each, LensmeshError):
                ended[url] = session.client.wait(each["task_id"])
            bar.advance(shown)
    return ended


def _line(url: str, accepted: _Accepted | LensmeshError, task: outputs.Task | None) -> dict[str, object]:
    if isinstance(accepted, LensmeshError):
        return {"url": url, "error": failure(accepted)}
    return {"url": url, **task} if task else {"url": url, "task_id": accepted["task_id"]}


def _row(url: str, accepted: _Accepted | LensmeshError, task: outputs.Task | None) -> tuple[object, ...]:
    if isinstance(accepted, LensmeshError):
        return url, "REFUSED", None, None, None, cut(accepted.message, 80)
    if task is None:
        return url, "QUEUED", accepted["task_id"], None, None, None
    error = task["error"]["message"] if task["error"] else None
    return url, task["status"], task["task_id"], task["asset_id"], len(task["matches"]), error and cut(error, 80)


@click.command("task")
@click.argument("task_id", metavar="ID")
@click.option("--watch", is_flag=True, help="Show each change, up to the end.")
@click.option("--cancel", is_flag=True, help="Cancel it; work that runs stops.")
@mesh_command
def task_command(session: Session, task_id: str, watch: bool, cancel: bool) -> int:
    """Show a task; exit code 1 when it has failed or was cancelled (by another call than this)."""
    if watch and cancel:
        raise click.UsageError("--watch and --cancel exclude each other")
    if cancel:
        task = session.client.tasks.cancel_task(task_id=task_id)
        _show_task(session, task)
        return exits.DONE
    if not watch:
        task = session.client.tasks.get_task(task_id=task_id)
        _show_task(session, task)
    else:
        for task in session.client.watch(task_id):
            if session.as_json:
                session.document(task)
            else:
                steps = (f"{name} {step['state']}" for name, step in sorted(task["steps"].items()))
                session.console.print(f"{task['status']:12} {', '.join(steps)}")
        if not session.as_json:
            _show_task(session, task)
    return exits.FAILED if task["status"] in _ENDED_BADLY else exits.DONE


def _show_task(session: Session, task: outputs.Task) -> None:
    if session.as_json:
        session.document(task)
        return
    rows: list[tuple[object, object]] = [
        ("task", task["task_id"]),
        ("status", task["status"]),
        ("asset", task["asset_id"]),
        ("collection", task["collection_id"]),
        ("updated", task["updated_at"]),
        ("error", task["error"]["message"] if task["error"] else None),
        ("matches", len(task["matches"])),
    ]
    session.table(["", ""], rows)
    steps = [
        (
            name,
            step["state"],
            f"{step['ms']:.0f}",
            step["attempts"],
            step["error"]["message"] if step["error"] else None,
        )
        for name, step in task["steps"].items()
    ]
    session.table(["step", "state", "ms", "attempts", "error"], steps)


@click.command("search")
@click.argument("text", required=False)
@click.option("--image", help="Search by an image: its URL, or a file here.")
@click.option("--index", type=click.Choice(INDEXES), default="multimodal", show_default=True)
@click.option("--collection", multiple=True, help="Name or id; may be given several times; default: the first 100.")
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True)
@mesh_command
def search_command(
    session: Session, text: str | None, image: str | None, index: Index, collection: tuple[str, ...], limit: int
) -> int:
    """Find images by words or by an image, best first."""
    wanted = query(text, image, index)
    where = session.collections(collection)
    found = (
        session.client.features.search_features(queries=[wanted], collection_ids=where, page_size=limit)["results"]
        if where
        else []
    )
    if session.as_json:
        session.document({"results": found})
    else:
        rows = [
            (
                f"{each['score'] or 0:.3f}",
                each["url"] or None,
                cut(each["description"] or each["text"] or "", 60),
                each["asset_id"],
            )
            for each in found
        ]
        session.table(["score", "url", "description", "asset"], rows)
    return exits.DONE
