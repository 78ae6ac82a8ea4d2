"""`lensmesh query dry-run` and `percolate`: what would match, without anything being indexed or stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from lensmesh.rest import inputs, outputs
from rich.text import Text

from cli import exits
from cli.queries import INDEXES, Index, query
from cli.session import Session, cut, json_object, mesh_command

# Columns of the longest bar of a histogram.
_BAR_COLUMNS = 50


@click.command("dry-run")
@click.argument("percolator_id", metavar="ID")
@click.option("--min-score", type=click.FloatRange(0, 1), help="The threshold to try; default: its own.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Show at most so many.")
@mesh_command
def dry_run(session: Session, percolator_id: str, min_score: float | None, limit: int) -> int:
    """Show which stored images a stored query would have matched, and how the scores of all are spread."""
    found = session.client.percolators.dry_run_stored_query(
        percolator_id=percolator_id, min_score=min_score, limit=limit
    )
    if session.as_json:
        session.document(found)
        return exits.DONE
    session.console.print(_histogram(found["histogram"]))
    more = "; there are more than are looked at" if found["truncated"] else ""
    session.console.print(f"{found['matched']} of {found['evaluated']} would have matched{more}\n")
    rows = [
        (f"{each['score']:.3f}", each["asset_id"], cut(each["metadata"], 60) if each["metadata"] else None)
        for each in found["results"]
    ]
    session.table(["score", "asset", "metadata"], rows)
    return exits.DONE


@click.command("percolate")
@click.option("--collection", default="default", show_default=True, help="Whose stored queries are asked.")
@click.option("--text", "texts", multiple=True, help="May be given several times, as --image.")
@click.option("--image", "images", multiple=True, help="An image: its URL, or a file here.")
@click.option("--index", type=click.Choice(INDEXES), default="multimodal", show_default=True)
@click.option("--metadata", callback=json_object, help="A JSON object, which filters are tested against.")
@click.option("--min-score", type=click.FloatRange(0, 1), help="Matches below are dropped.")
@click.option("--limit", type=click.IntRange(1, 10_000), help="At most; default: 100.")
@mesh_command
def percolate_command(
    session: Session,
    collection: str,
    texts: tuple[str, ...],
    images: tuple[str, ...],
    index: Index,
    metadata: Mapping[str, Any] | None,
    min_score: float | None,
    limit: int | None,
) -> int:
    """Match texts and images, together one asset, against the stored queries; nothing is indexed."""
    given = [_input(query(each, None, index)) for each in texts]
    given += [_input(query(None, each, index)) for each in images]
    if not given:
        raise click.UsageError("give at least one --text or --image")
    found = session.client.percolators.percolate(
        collection_id=collection,
        inputs=given,
        metadata=dict(metadata) if metadata is not None else None,
        min_score=min_score,
        max_candidates=limit,
    )
    if session.as_json:
        session.document(found)
        return exits.DONE
    session.table(
        ["score", "query", "name"],
        [(f"{each['score']:.3f}", each["percolator_id"], each["name"] or None) for each in found["matches"]],
    )
    session.console.print(f"{found['stats']['matched']} of {found['stats']['stored']} stored queries match")
    return exits.DONE


def _input(given: inputs.SearchQuery) -> inputs.PercolateInput:
    return {"vector_index": given["vector_index"], "type": given["type"], "value": given["value"]}


def _histogram(bins: Sequence[outputs.ScoreBin]) -> Text:
    most = max(each["count"] for each in bins) or 1
    text = Text()
    for each in bins:
        bar = "█" * -(-each["count"] * _BAR_COLUMNS // most)
        text.append(f"{each['low']:.2f}..{each['high']:.2f} ")
        text.append(bar, style="cyan")
        text.append(f" {each['count']}\n" if each["count"] else "\n")
    return text
