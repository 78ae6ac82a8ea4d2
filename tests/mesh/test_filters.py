"""Reading filters and evaluating them: every operator's meaning, and the name of every mistake."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format
from lensmesh.v1 import common_pb2

from services.mesh.errors import InvalidArgument
from services.mesh.filters import (
    MATCH_ALL,
    AllOf,
    AnyOf,
    Condition,
    FilterLimits,
    Leaf,
    NoneOf,
    Operator,
    from_proto,
    matches,
)

DOCUMENT = {
    "collection_id": "col_1",
    "modality": "image",
    "metadata": {
        "name": "Grüne Straße",
        "price": {"amount": 12.5, "currency": "EUR"},
        "stock": 3,
        "sold": True,
        "note": None,
        "tags": ["Red", "wide boots", 7],
        "asset_id": "own",
    },
}


def read(**filter_json: Any) -> Condition:
    """A filter written with the names of the protos, as a condition."""
    return from_proto(json_format.ParseDict(filter_json, common_pb2.Filter()))


def leaf(key: str, operator: str, *value: Any, **more: Any) -> dict[str, Any]:
    """A leaf with or without a value."""
    given = {"value": value[0]} if value else {}
    return {"key": key, "operator": f"FILTER_OPERATOR_{operator.upper()}", **given, **more}


def violations(**filter_json: Any) -> list[str]:
    """The dotted paths that reading complains of."""
    with pytest.raises(InvalidArgument) as caught:
        read(**filter_json)
    return [violation.dotted for violation in caught.value.violations]


@pytest.mark.parametrize(
    ("expected", "filter_json"),
    [
        (True, {}),
        (True, leaf("name", "eq", "Grüne Straße")),
        (False, leaf("name", "eq", "GRÜNE STRASSE")),
        (True, leaf("name", "eq", "GRÜNE STRASSE", case_sensitive=False)),
        (True, leaf("metadata.name", "eq", "Grüne Straße")),
        (True, leaf("price.amount", "eq", 12.5)),
        (False, leaf("price.amount", "eq", "12.5")),
        (True, leaf("stock", "eq", 3)),
        (False, leaf("sold", "eq", 1)),
        (True, leaf("sold", "eq", True)),
        (False, leaf("stock", "eq", True)),
        (True, leaf("tags", "eq", "Red")),
        (True, leaf("tags", "eq", 7)),
        (False, leaf("tags", "eq", "red")),
        (False, leaf("nothing", "eq", "x")),
        (True, leaf("collection_id", "eq", "col_1")),
        (False, leaf("metadata.collection_id", "eq", "col_1")),
        (False, leaf("asset_id", "eq", "own")),
        (True, leaf("metadata.asset_id", "eq", "own")),
        (False, leaf("name", "ne", "Grüne Straße")),
        (True, leaf("nothing", "ne", "x")),
        (True, leaf("note", "ne", "x")),
        (False, leaf("tags", "ne", "Red")),
        (True, leaf("stock", "gt", 2)),
        (False, leaf("stock", "gt", 3)),
        (True, leaf("stock", "gte", 3)),
        (True, leaf("price.amount", "lt", 13)),
        (True, leaf("price.amount", "lte", 12.5)),
        (False, leaf("price.amount", "lte", "99")),
        (True, leaf("price.currency", "gt", "EUQ")),
        (True, leaf("price.currency", "lt", "eus", case_sensitive=False)),
        (False, leaf("sold", "gt", 0)),
        (False, leaf("tags", "gt", 1)),
        (False, leaf("nothing", "lt", 1)),
        (True, leaf("stock", "in", [1, 3])),
        (False, leaf("stock", "in", ["3"])),
        (False, leaf("stock", "in", [])),
        (True, leaf("tags", "in", ["blue", "Red"])),
        (True, leaf("stock", "nin", [1, 2])),
        (True, leaf("nothing", "nin", [1])),
        (False, leaf("tags", "nin", ["Red"])),
        (True, leaf("note", "is_null")),
        (True, leaf("nothing", "is_null", True)),
        (False, leaf("stock", "is_null")),
        (True, leaf("stock", "is_null", False)),
        (True, leaf("note", "exists")),
        (False, leaf("nothing", "exists")),
        (True, leaf("nothing", "exists", False)),
        (False, leaf("name.inner", "exists")),
        (True, leaf("name", "text", "STRASSE grüne")),
        (False, leaf("name", "text", "grüne Wiese")),
        (True, leaf("tags", "text", "Boots")),
        (False, leaf("tags", "text", "red boots")),
        (False, leaf("stock", "text", "3")),
        (True, leaf("name", "regex", "^Gr.ne")),
        (False, leaf("name", "regex", "^gr")),
        (True, leaf("name", "regex", "^gr", case_sensitive=False)),
        (True, leaf("tags", "regex", "^wide")),
        (True, {"and": [leaf("stock", "eq", 3), leaf("sold", "eq", True)]}),
        (False, {"and": [leaf("stock", "eq", 3), leaf("sold", "eq", False)]}),
        (True, {"or": [leaf("stock", "eq", 4), leaf("sold", "eq", True)]}),
        (False, {"or": [leaf("stock", "eq", 4)]}),
        (False, {"nor": [leaf("stock", "eq", 4), leaf("sold", "eq", True)]}),
        (True, {"nor": [leaf("stock", "eq", 4)]}),
        (False, {"and": [leaf("stock", "eq", 3)], "nor": [leaf("sold", "eq", True)]}),
        (True, {"case_sensitive": False, "and": [leaf("tags", "eq", "RED")]}),
        (False, {"case_sensitive": False, "and": [leaf("tags", "eq", "RED", case_sensitive=True)]}),
    ],
)
def test_a_filter_means(expected: bool, filter_json: dict[str, Any]) -> None:
    """Each operator, type, missing key, list and case means one defined thing."""
    assert expected is matches(read(**filter_json), DOCUMENT)


def test_the_empty_filter_is_everything() -> None:
    """A filter without conditions reads as MATCH_ALL."""
    assert MATCH_ALL == read()


def test_an_operator_that_is_not_given_is_eq() -> None:
    """A leaf without an operator compares for equality."""
    assert Leaf(("metadata", "a"), Operator.EQ, 1) == read(key="a", value=1)


def test_groups_beside_each_other_all_hold() -> None:
    """AND, OR and NOR of one filter are joined by and, in this order."""
    one = Leaf(("metadata", "a"), Operator.EQ, 1)

    expected = AllOf((AllOf((one,)), AnyOf((one,)), NoneOf((one,))))

    members = [leaf("a", "eq", 1)]
    assert expected == read(**{"and": members, "or": members, "nor": members})


@pytest.mark.parametrize(
    ("expected", "filter_json"),
    [
        (["filters.value"], leaf("a", "eq")),
        (["filters.value"], leaf("a", "eq", None)),
        (["filters.value"], leaf("a", "eq", {"b": 1})),
        (["filters.value"], leaf("a", "eq", [1])),
        (["filters.value"], leaf("a", "in", 1)),
        (["filters.value.1"], leaf("a", "in", [1, None])),
        (["filters.value"], leaf("a", "nin", list(range(501)))),
        (["filters.value"], leaf("a", "gt", True)),
        (["filters.value"], leaf("a", "is_null", "yes")),
        (["filters.value"], leaf("a", "text", 1)),
        (["filters.value"], leaf("a", "text", " - ")),
        (["filters.value"], leaf("a", "regex", "(")),
        (["filters.value"], leaf("a", "regex", "(?=a)")),
        (["filters.value"], leaf("a", "regex", "((a{100}){100}){100}")),
        (["filters.value"], leaf("a", "regex", "a" * 513)),
        (["filters.value"], leaf("a", "eq", "a" * 4097)),
        (["filters.key"], leaf("a..b", "exists")),
        (["filters.key"], leaf("metadata.", "exists")),
        (["filters.key"], leaf(".".join("a" * 17), "exists")),
        (["filters.key"], {"value": 1}),
        (["filters"], {**leaf("a", "exists"), "and": [leaf("b", "exists")]}),
        (["filters.AND"], {"and": [leaf("a", "exists")] * 21}),
        (
            ["filters.OR.0.value", "filters.NOR.1.value"],
            {"or": [leaf("a", "eq")], "nor": [leaf("b", "exists"), leaf("a", "in")]},
        ),
    ],
)
def test_a_mistake_is_named_by_its_place(expected: list[str], filter_json: dict[str, Any]) -> None:
    """Every mistake is reported at once, each by its dotted path."""
    assert expected == violations(**filter_json)


def test_an_unknown_operator_is_refused() -> None:
    """A number that is no operator is refused at the operator's place."""
    group = common_pb2.Filter()
    getattr(group, "and").add(key="a", operator=99)

    with pytest.raises(InvalidArgument, match=r"filters\.AND\.0\.operator"):
        from_proto(group)


def test_numbers_are_finite() -> None:
    """Infinity, which JSON can't say but protobuf can, is refused."""
    message = common_pb2.Filter(key="a")
    message.value.number_value = float("inf")

    with pytest.raises(InvalidArgument):
        from_proto(message)


def test_nesting_has_an_end() -> None:
    """Groups nested deeper than the limit are refused."""
    message = common_pb2.Filter(key="a", operator=common_pb2.FILTER_OPERATOR_EXISTS)
    for _ in range(9):
        message = common_pb2.Filter(**{"and": [message]})

    with pytest.raises(InvalidArgument, match="nested more than 8 deep"):
        from_proto(message)


def test_conditions_are_counted_in_all() -> None:
    """Groups of groups can't multiply beyond the limit of all conditions."""
    message = common_pb2.Filter(key="a", operator=common_pb2.FILTER_OPERATOR_EXISTS)
    for _ in range(3):
        message = common_pb2.Filter(**{"or": [message] * 20})

    with pytest.raises(InvalidArgument, match="at most 200 conditions") as caught:
        from_proto(message)
    assert 1 == len(caught.value.violations)


def test_limits_and_place_are_the_callers() -> None:
    """Another place in the request and other limits can be given."""
    message = common_pb2.Filter(key="a.b", operator=common_pb2.FILTER_OPERATOR_EXISTS)

    with pytest.raises(InvalidArgument, match=r"queries\.2\.filters\.key: a key has at most 1"):
        from_proto(message, path=("body", "queries", 2, "filters"), limits=FilterLimits(key_parts_max=1))


def test_a_pattern_that_explodes_elsewhere_is_quick() -> None:
    """A pattern that would keep a backtracking engine busy for years answers at once."""
    document = {"metadata": {"a": "a" * 5000 + "!"}}

    assert not matches(read(**leaf("a", "regex", "^(a+)+$")), document)
