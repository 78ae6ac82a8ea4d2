"""Compiled filters on a real Milvus Lite server, held against the evaluator."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pymilvus import DataType, MilvusClient, MilvusException

from services.mesh.filters import AllOf, AnyOf, Compiled, Condition, Leaf, NoneOf, Operator, compile, matches

COLLECTION = "documents"
INJECTIONS = [
    '" or 1 == 1 or "" == "',
    "' or asset_id != '",
    '\\" or true or \\"',
    "\\",
    '"]',
    '"] == 1 or metadata["a',
    "line\nbreak",
    "\ttab\r",
    "nul\x00",
    "{value}",
    "%",
    "$meta",
    "ünï—日本",
    '["listed"]',
    "listed",
    "",
]
NAMES = ["a", "b", "c", "0", "a/b", "a~b", '"] or true', "\\", "ü"]
WORDS = ["red", "Red", "blue", *INJECTIONS]
SCALARS = [*WORDS, 0, 1, 2, 2.5, -1, -2.5, 1e20, 2**53 - 1, True, False]


def random_value(chance: random.Random, depth: int = 0) -> Any:
    """A value of JSON, with the types that comparisons could confuse."""
    kind = chance.random()
    if kind < 0.15 and depth < 2:
        return {name: random_value(chance, depth + 1) for name in chance.sample(NAMES, 3)}
    if kind < 0.3:
        return [chance.choice([*SCALARS, None]) for _ in range(chance.randrange(4))]
    return None if kind < 0.4 else chance.choice(SCALARS)


def random_documents(count: int) -> list[dict[str, Any]]:
    """Documents with ids 0 to count - 1."""
    chance = random.Random(count)
    return [
        {
            "id": number,
            "vector": [1.0, 0.0],
            "collection_id": chance.choice(["col_1", "col_2"]),
            "asset_id": chance.choice(WORDS),
            "feature_id": f"f{number}",
            "modality": chance.choice(["image", "text"]),
            "metadata": {name: random_value(chance) for name in NAMES if chance.random() < 0.7},
        }
        for number in range(count)
    ]


DOCUMENTS = random_documents(200)


def started(uri: str, server: subprocess.Popen[bytes]) -> MilvusClient:
    """A client as soon as the server answers."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return MilvusClient(uri, grpc_options={"grpc.keepalive_time_ms": 300_000}, timeout=5)
        except MilvusException:
            if server.poll() is not None or time.monotonic() > deadline:
                raise


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusClient]:
    """A collection of DOCUMENTS in a server of its own."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    binary = Path(sys.executable).parent / "milvus-lite"
    data: Path = tmp_path_factory.mktemp("milvus")
    arguments = ["server", "--data-dir", str(data), "--host", "127.0.0.1", "--port", str(port), "--max-workers", "1"]
    server = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = started(f"http://127.0.0.1:{port}", server)
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
        for name in ("collection_id", "asset_id", "feature_id", "modality"):
            schema.add_field(name, DataType.VARCHAR, max_length=200)
        schema.add_field("metadata", DataType.JSON)
        indexes = client.prepare_index_params()
        indexes.add_index("vector", index_type="FLAT", metric_type="COSINE")
        client.create_collection(COLLECTION, schema=schema, index_params=indexes, consistency_level="Strong")
        client.insert(COLLECTION, DOCUMENTS)
        client.flush(COLLECTION)
        client.load_collection(COLLECTION)
        yield client
        client.close()
    finally:
        server.kill()
        server.wait()


def selected(milvus: MilvusClient, compiled: Compiled) -> set[int]:
    """The ids of the rows that the server selects."""
    rows = milvus.query(COLLECTION, filter=compiled.expression, output_fields=["id"], limit=1000)
    return {row["id"] for row in rows}


def wanted(condition: Condition) -> set[int]:
    """The ids of the documents that the evaluator selects."""
    return {document["id"] for document in DOCUMENTS if matches(condition, document)}


def check(milvus: MilvusClient, condition: Condition) -> Compiled:
    """Assert that the server misses nothing, and that nothing needs filtering where that is claimed."""
    compiled = compile(condition)
    found, expected = selected(milvus, compiled), wanted(condition)
    assert expected <= found, f"{compiled} misses {sorted(expected - found)}"
    if compiled.exact:
        assert expected == found, f"{compiled} is not exact"
    return compiled


paths = st.one_of(
    st.sampled_from([("collection_id",), ("asset_id",), ("modality",), ("feature_id",)]),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(lambda names: ("metadata", *names)),
)
scalars = st.sampled_from([*SCALARS, "col_1", "image"]) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ordered = scalars.filter(lambda value: not isinstance(value, bool))
sensitive = st.booleans()
leaves = st.one_of(
    st.builds(Leaf, paths, st.sampled_from([Operator.EQ, Operator.NE]), scalars, sensitive),
    st.builds(Leaf, paths, st.sampled_from([Operator.GT, Operator.LT, Operator.GTE, Operator.LTE]), ordered, sensitive),
    st.builds(
        Leaf, paths, st.sampled_from([Operator.IN, Operator.NIN]), st.lists(scalars, max_size=4).map(tuple), sensitive
    ),
    st.builds(Leaf, paths, st.sampled_from([Operator.IS_NULL, Operator.EXISTS]), st.booleans()),
    st.builds(Leaf, paths, st.just(Operator.TEXT), st.sampled_from(["red", "listed"])),
    st.builds(Leaf, paths, st.just(Operator.REGEX), st.sampled_from(["^r", "e", "\\d"]), sensitive),
)
speakable = st.one_of(
    st.builds(Leaf, paths, st.just(Operator.EQ), scalars),
    st.builds(Leaf, paths, st.sampled_from([Operator.GT, Operator.LT, Operator.GTE, Operator.LTE]), ordered),
    st.builds(Leaf, paths, st.just(Operator.IN), st.lists(scalars, min_size=1, max_size=4).map(tuple)),
)


def grouped(inner: st.SearchStrategy[Condition], *kinds: type) -> st.SearchStrategy[Condition]:
    """Leaves, and groups of them inside each other."""
    return st.recursive(
        inner,
        lambda members: st.builds(
            lambda kind, chosen: kind(tuple(chosen)), st.sampled_from(kinds), st.lists(members, min_size=1, max_size=3)
        ),
        max_leaves=6,
    )


PROPERTY = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@PROPERTY
@given(condition=grouped(leaves, AllOf, AnyOf, NoneOf))
def test_a_compiled_filter_never_loses_a_match(milvus: MilvusClient, condition: Condition) -> None:
    """Whatever the filter, the server returns every matching row, and only those where the compiler says so."""
    check(milvus, condition)


@PROPERTY
@given(condition=grouped(speakable, AllOf, AnyOf))
def test_what_milvus_can_say_is_pushed_down_unharmed(milvus: MilvusClient, condition: Condition) -> None:
    """Filters of the operators that are pushed down, in groups of AND and OR, lose no match either."""
    assume(compile(condition).expression)

    check(milvus, condition)


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize("operator", [Operator.EQ, Operator.GTE])
def test_text_is_data(milvus: MilvusClient, text: str, operator: Operator) -> None:
    """A text made to break out of its literal is compared like any other, as value and as key."""
    check(milvus, Leaf(("asset_id",), operator, text))
    check(milvus, Leaf(("metadata", "a"), operator, text))
    check(milvus, Leaf(("metadata", text), operator, "red"))


@pytest.mark.parametrize("value", SCALARS)
def test_every_scalar_can_be_looked_for(milvus: MilvusClient, value: Any) -> None:
    """Equality and membership work for each type, in fields and in lists."""
    check(milvus, Leaf(("metadata", "a"), Operator.EQ, value))
    check(milvus, Leaf(("metadata", "b"), Operator.IN, (value, "red")))


def test_a_long_list_is_pushed_down(milvus: MilvusClient) -> None:
    """The longest list that a filter may have is an expression that the server reads."""
    compiled = check(milvus, Leaf(("metadata", "a"), Operator.IN, tuple(f"value {number}" for number in range(500))))

    assert compiled.expression


@pytest.mark.parametrize(
    ("expected", "condition"),
    [
        (Compiled("", True), AllOf()),
        (
            Compiled('collection_id in ["col_1"]', True),
            Leaf(("collection_id",), Operator.EQ, "col_1"),
        ),
        (
            Compiled('metadata["a"]["b"] > "x"', True),
            Leaf(("metadata", "a", "b"), Operator.GT, "x"),
        ),
        (
            Compiled('metadata["a"] == 1 or json_contains_any(metadata["a"], [1])', False),
            Leaf(("metadata", "a"), Operator.EQ, 1),
        ),
        (
            Compiled('collection_id in ["c"]', False),
            AllOf((Leaf(("collection_id",), Operator.EQ, "c"), Leaf(("metadata", "a"), Operator.NE, 1))),
        ),
        (
            Compiled("", False),
            AnyOf((Leaf(("collection_id",), Operator.EQ, "c"), Leaf(("metadata", "a"), Operator.NE, 1))),
        ),
        (Compiled("", False), NoneOf((Leaf(("collection_id",), Operator.EQ, "c"),))),
        (
            Compiled('(asset_id in ["x"]) or (asset_id >= "y\\"")', True),
            AnyOf((Leaf(("asset_id",), Operator.EQ, "x"), Leaf(("asset_id",), Operator.GTE, 'y"'))),
        ),
    ],
)
def test_what_is_said_in_milvus(expected: Compiled, condition: Condition) -> None:
    """What Milvus can say is said exactly, what it can't is left out where that only adds rows."""
    assert expected == compile(condition)


def test_a_column_that_is_not_there_is_left_out() -> None:
    """A collection without a column gets no expression about it."""
    assert Compiled("", False) == compile(Leaf(("modality",), Operator.EQ, "image"), columns={"asset_id"})
