"""Sorting and grouping against what they are said to mean, over made-up documents."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from lensmesh.v1 import common_pb2, embedder_pb2

from services.embedder.arrange import Entry, grouped, ordered

VALUES = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(-2, 2), st.text("ab", max_size=2))
KINDS: dict[type, int] = {bool: 0, int: 1, float: 1, str: 2}


def entries(values: list[Any]) -> list[Entry]:
    """A document for each value of `metadata.v`; None: it has none."""
    return [
        Entry(str(n), {"metadata": {} if value is None else {"v": value}}, score=n) for n, value in enumerate(values)
    ]


@given(st.lists(VALUES, max_size=12), st.booleans())
def test_order(values: list[Any], descending: bool) -> None:
    """Sorted by kind and value, what lacks the field last in both directions, equal ones as they were."""
    direction = common_pb2.SORT_DIRECTION_DESC if descending else common_pb2.SORT_DIRECTION_ASC
    found = ordered(entries(values), common_pb2.Sort(field="metadata.v", direction=direction))
    positions = [int(each.id) for each in found]
    assert sorted(positions) == list(range(len(values)))
    keys = [None if values[n] is None else (KINDS[type(values[n])], values[n]) for n in positions]
    present = [key for key in keys if key is not None]
    assert keys == present + [None] * (len(keys) - len(present))
    assert present == sorted(present, reverse=descending)
    for one, other, key, following in zip(positions, positions[1:], keys, keys[1:], strict=False):
        assert key != following or one < other


@given(st.lists(VALUES, max_size=12), st.integers(1, 3))
def test_groups(values: list[Any], members: int) -> None:
    """Each document is in the group of its value, groups come in the order of their first members, at most so many."""
    arrangement = embedder_pb2.Arrangement(group_field="v", group_members_max=members)
    groups = grouped(entries(values), arrangement)
    expected: dict[Any, list[str]] = {}
    for n, value in enumerate(values):
        expected.setdefault((type(value), value), []).append(str(n))
    assert [ids[:members] for ids in expected.values()] == [[each.id for each in group.members] for group in groups]
    assert [key[1] for key in expected] == [group.value for group in groups]


def test_by_score_and_document_fields() -> None:
    """Scores and the document's own fields are sorted by their names; other names are keys of the metadata."""
    given_entries = [
        Entry("a", {"asset_id": "2", "metadata": {"asset_id": 1}}, 0.1),
        Entry("b", {"asset_id": "1", "metadata": {"asset_id": 2}}, 0.9),
    ]
    for field, first in (("score", "a"), ("asset_id", "b"), ("metadata.asset_id", "a"), ("feature_id", "a")):
        assert first == ordered(given_entries, common_pb2.Sort(field=field))[0].id
