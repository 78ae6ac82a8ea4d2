"""The engine equals a plain reading of its definition, whatever was put, replaced and removed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from lensmesh.v1 import common_pb2

from services.mesh.filters import MATCH_ALL, Condition, from_proto, matches
from services.percolator.engine import Asset, Engine, Query, StoredQuery

DENSE = ((1, "v1"), (2, "v1"), (2, "v2"))
SPARSE = ((4, "bm25"),)
DIM = 4
COLLECTIONS = ("c1", "c2", "c3")
TOLERANCE = 1e-5


def unit(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A vector of unit length."""
    vector = np.array(values, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def leaf(key: str, operator: str, value: object) -> Condition:
    """A condition with one leaf."""
    body = {"key": f"metadata.{key}", "operator": f"FILTER_OPERATOR_{operator}", "value": value}
    return from_proto(json_format.ParseDict(body, common_pb2.Filter()))


vectors = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]), min_size=DIM, max_size=DIM).filter(any).map(unit)
weights = st.floats(0.0625, 1.0, width=32)
sparse_documents = st.dictionaries(st.integers(0, 8), weights, max_size=5)
sparse_queries = st.sets(st.integers(0, 8), max_size=4).map(lambda terms: {each: 1 / len(terms) for each in terms})
conditions = st.one_of(
    st.just(MATCH_ALL),
    st.integers(0, 3).map(lambda value: leaf("number", "EQ", value)),
    st.integers(0, 3).map(lambda value: leaf("number", "GTE", value)),
    st.just(leaf("word", "EXISTS", True)),
)
queries = st.one_of(
    st.builds(
        lambda space, dense, condition: Query(space, dense=dense, condition=condition),
        st.sampled_from(DENSE), vectors, st.none() | conditions,
    ),
    st.builds(
        lambda space, sparse, condition: Query(space, sparse=sparse, condition=condition),
        st.sampled_from(SPARSE), sparse_queries, st.none() | conditions,
    ),
)  # fmt: skip
thresholds = st.sampled_from([0.0, 0.2, 0.5, 0.75, 1.0]) | st.floats(0, 1)
stored_queries = st.builds(
    StoredQuery,
    percolator_id=st.sampled_from([f"p{number}" for number in range(8)]),
    collection_ids=st.frozensets(st.sampled_from(COLLECTIONS), min_size=1),
    queries=st.lists(queries, min_size=1, max_size=5).map(tuple),
    min_score=thresholds,
    condition=conditions,
)
assets = st.builds(
    lambda collection, number, word, dense, sparse: Asset(
        collection,
        {"collection_id": collection, "metadata": {"number": number} | ({"word": "w"} if word else {})},
        dense,
        sparse,
    ),
    st.sampled_from(COLLECTIONS),
    st.integers(0, 3),
    st.booleans(),
    st.dictionaries(st.sampled_from(DENSE), st.lists(vectors, min_size=1, max_size=3), max_size=3),
    st.dictionaries(st.sampled_from(SPARSE), st.lists(sparse_documents, min_size=1, max_size=2), max_size=1),
)
# A stored query is put; an id is removed.
operations = st.lists(stored_queries | st.sampled_from([f"p{number}" for number in range(8)]), max_size=25)


def query_score(query: Query, asset: Asset) -> float:
    """One query's score, by the definition in the API."""
    if query.condition is not None and not matches(query.condition, asset.document):
        return 0.0
    if query.dense is not None:
        products = [
            sum(float(a) * float(b) for a, b in zip(query.dense, each, strict=True))
            for each in asset.dense.get(query.space, ())
        ]
    else:
        products = [
            sum(weight * each.get(term, 0.0) for term, weight in (query.sparse or {}).items())
            for each in asset.sparse.get(query.space, ())
        ]
    return min(max([0.0, *products]), 1.0)


def oracle(stored: Mapping[str, StoredQuery], asset: Asset) -> dict[str, tuple[float, float]]:
    """Score and threshold less the request's own of every stored query that may match."""
    found = {}
    for each in stored.values():
        if asset.collection_id in each.collection_ids and matches(each.condition, asset.document):
            scores = [query_score(query, asset) for query in each.queries]
            found[each.percolator_id] = (sum(scores) / len(scores), each.min_score)
    return found


@settings(max_examples=300, deadline=None)
@given(operations, st.lists(assets, min_size=1, max_size=4), st.none() | thresholds)
def test_the_engine_equals_the_definition(
    changes: list[StoredQuery | str], given_assets: list[Asset], min_score: float | None
) -> None:
    """After any puts, replacements and removals, the engine finds what the definition says, with its scores."""
    engine, stored = Engine(), dict[str, StoredQuery]()
    for change in changes:
        if isinstance(change, str):
            engine.remove(change)
            stored.pop(change, None)
        else:
            engine.put(change)
            stored[change.percolator_id] = change
        assert len(stored) == len(engine)
    for asset in given_assets:
        found = {each.percolator_id: each for each in engine.match(asset, min_score, 1000)}
        expected = oracle(stored, asset)
        for percolator_id, (score, own) in expected.items():
            threshold = max(own, min_score or 0.0)
            # At the very threshold, float32 products may fall to either side.
            if abs(score - threshold) > TOLERANCE:
                assert (score > threshold) == (percolator_id in found), (percolator_id, score, threshold)
            if percolator_id in found:
                match = found[percolator_id]
                assert abs(score - match.score) <= TOLERANCE
                scores = [query_score(query, asset) for query in stored[percolator_id].queries]
                assert np.allclose(scores, match.query_scores, atol=TOLERANCE)
        assert set(found) <= set(expected)


@settings(max_examples=50, deadline=None)
@given(operations, assets, st.integers(1, 4))
def test_the_best_come_first(changes: list[StoredQuery | str], asset: Asset, limit: int) -> None:
    """Matches are in order of score, then id, and the limit keeps the best."""
    engine = Engine()
    for change in changes:
        if not isinstance(change, str):
            engine.put(change)
    every = engine.match(asset, None, 1000)
    assert sorted(every, key=lambda each: (-each.score, each.percolator_id)) == every
    assert every[:limit] == engine.match(asset, None, limit)


def stored(percolator_id: str, min_score: float, *parts: Query) -> StoredQuery:
    """A stored query of one collection."""
    return StoredQuery(percolator_id, frozenset({"c1"}), parts, min_score, MATCH_ALL)


def asset_with(*dense: Sequence[float], **metadata: object) -> Asset:
    """An asset with vectors in the first space."""
    found = {DENSE[0]: [unit(each) for each in dense]} if dense else {}
    return Asset("c1", {"metadata": metadata}, found, {})


@pytest.mark.parametrize("seed", range(20))
def test_a_threshold_of_one_is_met_by_the_same_vector(seed: int) -> None:
    """An equal vector scores 1, whatever float32 makes of its length, and thresholds are inclusive."""
    vector = np.random.default_rng(seed).normal(size=512).tolist()
    engine = Engine()
    engine.put(stored("same", 1.0, Query(DENSE[0], dense=unit(vector))))
    assert [("same", 1.0)] == [(each.percolator_id, each.score) for each in engine.match(asset_with(vector), None, 9)]
    assert 1 == len(engine.match(asset_with(vector), 1.0, 9))


def test_the_mean_counts_queries_whose_index_the_asset_lacks() -> None:
    """A query without a vector to compare with counts 0, so that two queries of which one is met score a half."""
    engine = Engine()
    met, lacking = Query(DENSE[0], dense=unit([1, 0, 0, 0])), Query(SPARSE[0], sparse={1: 1.0})
    engine.put(stored("half", 0.5, met, lacking))
    engine.put(stored("more", 0.51, met, lacking))
    found = engine.match(asset_with([1, 0, 0, 0]), None, 9)
    assert [("half", 0.5, (1.0, 0.0))] == [(each.percolator_id, each.score, each.query_scores) for each in found]


def test_opposite_vectors_score_zero() -> None:
    """A negative cosine is clipped, so that it can't drag the mean of other queries down."""
    engine = Engine()
    engine.put(
        stored("both", 0.5, Query(DENSE[0], dense=unit([1, 0, 0, 0])), Query(DENSE[0], dense=unit([-1, 0, 0, 0])))
    )
    assert [(1.0, 0.0)] == [each.query_scores for each in engine.match(asset_with([1, 0, 0, 0]), None, 9)]


def test_vectors_of_another_model_version_are_not_compared() -> None:
    """The same index with another version of the model is another space."""
    engine = Engine()
    engine.put(stored("old", 0.1, Query((1, "v0"), dense=unit([1, 0, 0, 0]))))
    assert [] == engine.match(asset_with([1, 0, 0, 0]), None, 9)


def test_many_stored_queries_grow_and_shrink_the_tables() -> None:
    """Rows that became free are used again, and no removed query leaves a trace in another's score."""
    engine, generator = Engine(), np.random.default_rng(7)
    kept = {}
    for number in range(700):
        vector = unit(generator.normal(size=DIM).tolist())
        engine.put(stored(f"q{number}", 0.9, Query(DENSE[0], dense=vector), Query(DENSE[0], dense=vector)))
        kept[f"q{number}"] = vector
        if number % 3 == 0:
            engine.remove(f"q{number // 2}")
            kept.pop(f"q{number // 2}", None)
    probe = unit(generator.normal(size=DIM).tolist())
    expected = {name for name, vector in kept.items() if float(vector @ probe) >= 0.9}
    assert expected == {each.percolator_id for each in engine.match(asset_with(probe.tolist()), None, 1000)}
    assert len(kept) == len(engine)
    assert expected
