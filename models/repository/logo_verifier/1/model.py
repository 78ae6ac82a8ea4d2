"""Says which of a few marks the regions of a picture show: the marks of a namespace, by the bar of those that ship."""

from __future__ import annotations

import json
from typing import Any

from lensmesh_models.logo_marks import OWN, Gallery, distinct, judge, read_mark, read_region
from lensmesh_models.serving import BadInput, Model, Tensors, documents, values

# The caller passes the nearest few; each costs about 2 ms a region that it is near to.
_MARKS_MAX = 256


class TritonPythonModel(Model):
    """REGIONS (of ``logos``) and MARKS BYTES [B,1] (list of {name} and what ``logo_mark`` gave) -> LOGOS BYTES [B,1].

    LOGOS is a JSON list of {name, confidence, quad}, best first, as ``logos`` gives it.
    """

    def answer(self, request: Any) -> Tensors:
        pairs = zip(values(request, "REGIONS"), values(request, "MARKS"), strict=True)
        return {"LOGOS": documents(_logos(*pair) for pair in pairs)}


def _logos(regions: bytes, marks: bytes) -> list[dict[str, Any]]:
    try:
        places = [read_region(each) for each in json.loads(regions)]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"REGIONS is not what logos gives: {error}") from error
    try:
        known = [read_mark(each) for each in json.loads(marks)]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"MARKS is no list of named documents of logo_mark: {error}") from error
    if len(known) > _MARKS_MAX:
        raise BadInput(f"{len(known)} marks, at most {_MARKS_MAX} are compared")
    near = zip(places, Gallery(known).nearest(places), strict=True)
    return distinct([found for place, few in near if (found := judge(place, few, OWN)) is not None])
