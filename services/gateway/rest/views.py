"""Answers in the shape that a request asked for: groups in the place of results, and the selected fields alone.

gRPC has groups in a field of their own; in JSON they stand under `results`, each value under its field's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

# Returned whatever is selected: without them a result could not be asked for again.
_IDS = ("asset_id", "feature_id")


def shaped(request: Message, answer: Any) -> Any:
    """The JSON of an answer, shaped as its request says."""
    if not isinstance(answer, dict) or "results" not in answer:
        return answer
    fields = request.DESCRIPTOR.fields_by_name
    selected = tuple(getattr(request, "select", ()))
    groups = answer.pop("groups", None)
    if "group_by" in fields and request.HasField("group_by"):
        answer["results"] = [_group(each, selected) for each in groups]
    elif selected:
        answer["results"] = [select(each, selected) for each in answer["results"]]
    return answer


def select(document: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """The parts of a document under some dotted paths, and its ids; paths that lead nowhere give nothing."""
    chosen: dict[str, Any] = {name: document[name] for name in _IDS if name in document}
    for path in paths:
        names = path.split(".")
        found: Any = document
        for name in names:
            found = found.get(name, _NOTHING) if isinstance(found, Mapping) else _NOTHING
        if found is _NOTHING:
            continue
        place = chosen
        for name in names[:-1]:
            place = place.setdefault(name, {})
        if isinstance(place, dict):
            place[names[-1]] = found
    return chosen


def _group(group: Mapping[str, Any], selected: Sequence[str]) -> dict[str, Any]:
    kind = "assets" if "assets" in group else "features"
    members = [select(each, selected) if selected else each for each in group[kind]]
    return {group["field"]: group["value"], kind: members}


_NOTHING = object()
