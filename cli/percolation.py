"""`lensmesh query` and `matches`: stored queries, and what matched them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import click
from lensmesh.rest import outputs

from cli import exits
from cli.queries import INDEXES, Index, query
from cli.session import Session, cut, json_object, mesh_command


@click.group("query")
def query_group() -> None:
    """Stored queries: every image that is indexed with --percolate is matched against them."""


@query_group.command("add")
@click.argument("text", required=False)
@click.option("--image", help="Match by an image: its URL, or a file here.")
@click.option("--index", type=click.Choice(INDEXES), default="multimodal", show_default=True)
@click.option("--collection", multiple=True, default=("default",), show_default=True, help="Whose images are matched.")
@click.option("--name", help="For people.")
@click.option("--min-score", type=click.FloatRange(0, 1), help="The threshold; default: 0.5.")
@click.option("--metadata", callback=json_object, help="A JSON object, returned with every match.")
@mesh_command
def add(
    session: Session,
    text: str | None,
    image: str | None,
    index: Index,
    collection: tuple[str, ...],
    name: str | None,
    min_score: float | None,
    metadata: Mapping[str, Any] | None,
) -> int:
    """Store a query; prints its id."""
    stored = session.client.percolators.create_stored_query(
        collection_ids=list(collection),
        queries=[query(text, image, index)],
        name=name,
        min_score=min_score,
        metadata=dict(metadata) if metadata is not None else None,
    )
    if session.as_json:
        session.document(stored)
    else:
        click.echo(stored["percolator_id"])
    return exits.DONE


@query_group.command("list")
@click.option("--page", type=click.IntRange(1), default=1, show_default=True)
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@mesh_command
def list_(session: Session, page: int, limit: int) -> int:
    """List stored queries, oldest first."""
    listed = session.client.percolators.list_stored_queries(page=page, page_size=limit)
    if session.as_json:
        session.document(listed)
        return exits.DONE
    rows = [
        (
            each["percolator_id"],
            each["name"],
            each["min_score"],
            "yes" if each["enabled"] else "no",
            each["expires_at"],
            "; ".join(f"{one['vector_index']}: {cut(one['value'], 40)}" for one in each["queries"]),
            each["created_at"],
        )
        for each in listed["results"]
    ]
    session.table(["id", "name", "min score", "enabled", "expires", "queries", "stored"], rows)
    return exits.DONE


@query_group.command("rm")
@click.argument("percolator_id", metavar="ID")
@mesh_command
def remove(session: Session, percolator_id: str) -> int:
    """Delete a stored query; its matches stay."""
    deleted = session.client.percolators.delete_stored_query(percolator_id=percolator_id)
    if session.as_json:
        session.document(deleted)
    else:
        click.echo(f"deleted {percolator_id}")
    return exits.DONE


@query_group.command("enable")
@click.argument("percolator_id", metavar="ID")
@mesh_command
def enable(session: Session, percolator_id: str) -> int:
    """Have new images matched against a stored query again."""
    return _switch(session, percolator_id, enabled=True)


@query_group.command("disable")
@click.argument("percolator_id", metavar="ID")
@mesh_command
def disable(session: Session, percolator_id: str) -> int:
    """Keep a stored query, and match nothing against it."""
    return _switch(session, percolator_id, enabled=False)


def _switch(session: Session, percolator_id: str, *, enabled: bool) -> int:
    changed = session.client.percolators.update_stored_query(percolator_id=percolator_id, enabled=enabled)
    if session.as_json:
        session.document(changed)
    else:
        click.echo(f"{'enabled' if enabled else 'disabled'} {percolator_id}")
    return exits.DONE


@click.command("matches")
@click.option("--follow", is_flag=True, help="Go on as matches are made, oldest first, one a line.")
@click.option("--cursor", type=click.IntRange(0), help="With --follow: after this one; default: from the first kept.")
@click.option("--query", "percolator_id", help="Of this stored query alone.")
@click.option("--collection", multiple=True, help="Name or id; default: the first 100. Not with --follow.")
@click.option("--limit", type=click.IntRange(1, 100), help="At most; default: 20, with --follow no end.")
@mesh_command
def matches_command(
    session: Session,
    follow: bool,
    cursor: int | None,
    percolator_id: str | None,
    collection: tuple[str, ...],
    limit: int | None,
) -> int:
    """Show matches, newest first; with --follow, as they are made."""
    if follow:
        if collection:
            raise click.UsageError("--follow shows matches of all collections: leave --collection out")
        _follow(session, cursor, percolator_id, limit)
        return exits.DONE
    if cursor is not None:
        raise click.UsageError("--cursor goes with --follow")
    where = session.collections(collection)
    found: list[outputs.Match] = []
    if where:
        found = session.client.matches.list_matches(
            collection_ids=where, percolator_id=percolator_id, page_size=limit or 20
        )["results"]
    if session.as_json:
        session.document({"results": found})
    else:
        rows = [(*_columns(each), each["created_at"]) for each in found]
        session.table(["score", "query", "asset", "task", "made"], rows)
    return exits.DONE


def _follow(session: Session, cursor: int | None, percolator_id: str | None, limit: int | None) -> None:
    stream = session.client.follow_matches(cursor=cursor, percolator_id=percolator_id)
    for each in islice(stream, limit):
        if session.as_json:
            session.document(each)
        else:
            click.echo("  ".join(map(str, (each["cursor"], *_columns(each["match"])))))


def _columns(match: outputs.Match) -> tuple[str, str, str, str]:
    return f"{match['score']:.3f}", match["percolator_id"], match["asset_id"], match["task_id"]
