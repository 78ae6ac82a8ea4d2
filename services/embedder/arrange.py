"""The order and the groups of found documents; pure, so that listings and searches mean the same by them.

Which documents are found, and where their fields come from, is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lensmesh.v1 import common_pb2, embedder_pb2

from services.mesh.filters import METADATA

# Fields of the document itself; any other name is a key of its metadata, as in filters.
_DOCUMENT_FIELDS = frozenset(
    {"created_at", "updated_at", "asset_id", "feature_id", "collection_id", "modality", "score"}
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A found document: its id, the fields that it may be sorted or grouped by, and its score if it was searched."""

    id: str
    fields: Mapping[str, Any]
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """Documents that have a value in common, the first of them."""

    value: Any
    members: Sequence[Entry]


def needs_fields(arrangement: embedder_pb2.Arrangement) -> bool:
    """Whether more than ids and scores is needed to arrange."""
    return arrangement.HasField("sort") or bool(arrangement.group_field)


def ordered(entries: Sequence[Entry], sort: common_pb2.Sort | None) -> list[Entry]:
    """The entries in the order asked for; equal ones as they were given.

    Truth values come before numbers, numbers before texts, texts before the rest, and what lacks the field last,
    whatever the direction.
    """
    if sort is None:
        return list(entries)
    keyed = [(_rank(_value(each, sort.field)), each) for each in entries]
    present = [each for each in keyed if each[0] is not None]
    descending = sort.direction == common_pb2.SORT_DIRECTION_DESC
    # Python's sort is stable in reverse, too.
    present.sort(key=lambda each: each[0] or (), reverse=descending)
    return [each for _, each in present] + [each for key, each in keyed if key is None]


def grouped(entries: Sequence[Entry], arrangement: embedder_pb2.Arrangement) -> list[Group]:
    """The groups, in the order of their first members; those without the field form one group of their own."""
    groups: dict[str, tuple[Any, list[Entry]]] = {}
    for each in entries:
        value = _value(each, arrangement.group_field)
        groups.setdefault(json.dumps(value, sort_keys=True), (value, []))[1].append(each)
    inner = arrangement.group_sort if arrangement.HasField("group_sort") else None
    return [Group(value, ordered(found, inner)[: arrangement.group_members_max]) for value, found in groups.values()]


def _value(entry: Entry, path: str) -> Any:
    """The value at a dotted path; None when there is none, or null."""
    if path == "score":
        return entry.score
    if path in _DOCUMENT_FIELDS:
        return entry.id if path == "feature_id" and path not in entry.fields else entry.fields.get(path)
    value: Any = entry.fields.get(METADATA)
    for name in path.removeprefix(f"{METADATA}.").split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _rank(value: Any) -> tuple[int, Any] | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return (0, value)
    if isinstance(value, int | float):
        return (1, value)
    if isinstance(value, str):
        return (2, value)
    return (3, json.dumps(value, sort_keys=True))
