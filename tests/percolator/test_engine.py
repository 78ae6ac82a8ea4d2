"""The engine equals a plain reading of its definition, bit for bit, whatever was put, replaced and removed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lensmesh.v1 import common_pb2

from services.mesh.filters import MATCH_ALL, AllOf, AnyOf, Condition, NoneOf, from_proto, matches
from services.percolator.engine import (
    NEVER_NS,
    Asset,
    Engine,
    Found,
    IntegerProduct,
    Matched,
    Probe,
    Query,
    StoredQuery,
    core,
    exact_rows,
    first_pass,
)

DENSE = ((1, "v1"), (2, "v1"), (2, "v2"))
SPARSE = ((4, "bm25"),)
DIM = 4
COLLECTIONS = ("c1", "c2", "c3")
DECIMALS = 6
PRODUCT = IntegerProduct()


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
    enabled=st.sampled_from([True, True, True, False]),
    created_ns=st.just(0),
    expires_ns=st.just(NEVER_NS),
    partition=st.just(0),
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
            float(query.dense.astype(np.float64) @ each.astype(np.float64)) for each in asset.dense.get(query.space, ())
        ]
    else:
        products = [
            sum(weight * each.get(term, 0.0) for term, weight in (query.sparse or {}).items())
            for each in asset.sparse.get(query.space, ())
        ]
    return float(np.round(min(max([0.0, *products]), 1.0), DECIMALS))


def oracle(stored: Mapping[str, StoredQuery], probe: Probe) -> list[Found]:
    """Every stored query that the asset matches, best first, scored one by one."""
    found = []
    for each in stored.values():
        asset = probe.asset
        in_scope = asset.collection_id in each.collection_ids and matches(each.condition, asset.document)
        if not each.enabled or not in_scope:
            continue
        scores = tuple(query_score(query, asset) for query in each.queries)
        mean = float(np.round(sum(scores) / len(scores), DECIMALS))
        if mean >= max(each.min_score, probe.min_score):
            found.append(Found(each.percolator_id, mean, scores))
    return sorted(found, key=lambda each: (-each.score, each.percolator_id))[: probe.limit]


def assert_same(expected: Sequence[Found], found: Sequence[Found]) -> None:
    """The same stored queries in the same order, scores equal to 1e-5."""
    assert [each.percolator_id for each in expected] == [each.percolator_id for each in found]
    assert are_same(expected, found)


def are_same(expected: Sequence[Found], found: Sequence[Found]) -> bool:
    """Whether they are the same stored queries in the same order, scores equal to 1e-5."""
    return len(expected) == len(found) and all(
        (one.percolator_id, len(one.query_scores)) == (other.percolator_id, len(other.query_scores))
        and np.allclose((one.score, *one.query_scores), (other.score, *other.query_scores), rtol=0, atol=1e-5)
        for one, other in zip(expected, found, strict=True)
    )


def new_engine() -> Engine:
    """An engine without stored queries."""
    return Engine(PRODUCT)


@settings(max_examples=300, deadline=None)
@given(operations, st.lists(assets, min_size=1, max_size=4), thresholds, st.integers(1, 12))
def test_the_engine_equals_the_definition(
    changes: list[StoredQuery | str], given_assets: list[Asset], min_score: float, limit: int
) -> None:
    """After any puts, replacements and removals, the engine finds what the definition says, with its scores."""
    engine, stored = new_engine(), dict[str, StoredQuery]()
    for change in changes:
        if isinstance(change, str):
            engine.remove(change)
            stored.pop(change, None)
        else:
            engine.put([change])
            stored[change.percolator_id] = change
        assert len(stored) == len(engine)
    probes = [Probe(each, min_score, limit) for each in given_assets]
    for probe, matched in zip(probes, engine.match(probes), strict=True):
        assert_same(oracle(stored, probe), matched.found)
        assert len(stored) == matched.stats.stored


class Draw:
    """Stored queries and assets of an application with many of them, from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.dim = int(self.random.choice([8, 64, 512]))
        # Directions that stored queries and assets share, so that scores are spread over 0..1.
        self.directions = self.random.normal(size=(6, self.dim))

    def vector(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A unit vector near one of the directions."""
        noise = self.random.normal(size=self.dim) * self.random.choice([0.0, 0.3, 1.0, 3.0])
        return unit((self.directions[self.random.integers(6)] + noise).tolist())

    def condition(self) -> Condition:
        """A filter such as applications have: one of a few shapes, with values of its own."""
        price, word = float(self.random.integers(0, 40)) / 4, f"w{self.random.integers(0, 12)}"
        either = [leaf("word", "EQ", word), leaf("price", "LT", price)]
        return (
            MATCH_ALL,
            leaf("price", str(self.random.choice(["GT", "GTE", "LT", "LTE", "EQ", "NE"])), price),
            leaf("word", str(self.random.choice(["EQ", "NE", "GT", "LTE"])), word),
            leaf("word", str(self.random.choice(["IN", "NIN"])), [word, "w1", "w2"]),
            leaf("text", "TEXT", f"{word} w3"),
            leaf("word", "REGEX", f"{word}$"),
            AllOf(tuple(either)),
            AnyOf(tuple(either)),
            NoneOf(tuple(either)),
            leaf("flag", "EQ", bool(self.random.integers(2))),
            leaf("price", "EXISTS", bool(self.random.integers(2))),
        )[self.random.integers(11)]

    def query(self) -> Query:
        """A query of any kind."""
        condition = self.condition() if self.random.random() < 0.2 else None
        if self.random.random() < 0.25:
            terms = set(self.random.integers(0, 40, self.random.integers(0, 4)).tolist())
            return Query(SPARSE[0], sparse={each: 1 / len(terms) for each in terms}, condition=condition)
        return Query(DENSE[self.random.integers(2)], dense=self.vector(), condition=condition)

    def stored_query(self, number: int) -> StoredQuery:
        """A stored query."""
        return StoredQuery(
            percolator_id=f"p{number:05}",
            collection_ids=frozenset(self.random.choice(COLLECTIONS, self.random.integers(1, 3)).tolist()),
            queries=tuple(self.query() for _ in range(self.random.choice([1, 1, 1, 2, 5]))),
            min_score=float(self.random.choice([0.0, 0.3, 0.5, 0.8, 1.0, np.round(self.random.random(), 6)])),
            condition=self.condition(),
            enabled=bool(self.random.random() < 0.95),
            partition=number % 10,
        )

    def probe(self) -> Probe:
        """An asset."""
        values = {
            "price": float(self.random.integers(0, 40)) / 4,
            "word": f"w{self.random.integers(0, 12)}",
            "text": " ".join(f"w{each}" for each in self.random.integers(0, 12, 6)),
            "flag": bool(self.random.integers(2)),
        }
        kept = {key: value for key, value in values.items() if self.random.random() < 0.8}
        collection = str(self.random.choice(COLLECTIONS))
        terms = self.random.integers(0, 40, 8).tolist()
        asset = Asset(
            collection,
            {"collection_id": collection, "metadata": kept},
            {space: [self.vector() for _ in range(self.random.integers(1, 3))] for space in DENSE[:2]},
            {SPARSE[0]: [{each: float(self.random.random()) for each in terms}]},
        )
        return Probe(asset, float(self.random.choice([0.0, 0.0, 0.6])), int(self.random.choice([1, 10, 100])))


# An asset against the stored queries of one example, over one number of shards, is a case.
CASES = 10_000
SHARDS = (1, 2, 5)
cases_seen = 0


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 33, 64, 64, 64, 64]))
def test_shards_together_equal_the_definition(seed: int, batch: int) -> None:
    """However many shards the stored queries are spread over, what they find together is what the definition says."""
    global cases_seen
    draw = Draw(seed)
    stored = {each.percolator_id: each for each in map(draw.stored_query, range(int(draw.random.integers(1, 120))))}
    probes = [draw.probe() for _ in range(batch)]
    expected = [oracle(stored, probe) for probe in probes]
    for shards in SHARDS:
        engines = [new_engine() for _ in range(shards)]
        for number, engine in enumerate(engines):
            engine.put(each for each in stored.values() if each.partition % shards == number)
        found = [engine.match(probes) for engine in engines]
        for position, probe in enumerate(probes):
            together = [match for each in found for match in each[position].found]
            together.sort(key=lambda each: (-each.score, each.percolator_id))
            assert_same(expected[position], together[: probe.limit])
            assert len(stored) == sum(each[position].stats.stored for each in found)
            cases_seen += 1


def test_vectors_of_next_to_nothing_hide_nobody() -> None:
    """Zeros, and numbers too small to be scaled, are coded without overflow, and what stands beside them is found."""
    engine, rows = new_engine(), [unit([1, 2, 3, 4]), np.zeros(DIM, np.float32), np.full(DIM, 1e-40, np.float32)]
    with np.errstate(all="raise", under="ignore"):
        engine.put(
            StoredQuery(f"p{n}", frozenset({"c1"}), (Query(DENSE[0], dense=row),), 0.5, MATCH_ALL)
            for n, row in enumerate(rows)
        )
        found = engine.match([Probe(Asset("c1", {"metadata": {}}, {DENSE[0]: [rows[0]]}, {}))] * 64)
    assert [["p0"]] * 64 == [[each.percolator_id for each in one.found] for one in found]


def test_the_definition_was_held_often_enough() -> None:
    """The examples above came to at least ten thousand cases."""
    assert cases_seen >= CASES, cases_seen


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_thresholds_at_the_score_itself_are_met(seed: int) -> None:
    """Among thousands of stored queries, one whose threshold is its score is found, one a millionth above it is not."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(3000, 96)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    probe = unit((vectors[7] + 0.1 * random.normal(size=96)).tolist())
    scores = np.round(np.clip(vectors.astype(np.float64) @ probe.astype(np.float64), 0, 1), DECIMALS)
    engine = new_engine()
    above = random.random(3000) < 0.5
    floors = np.where(above, np.round(scores + 1e-6, DECIMALS), scores)
    engine.put(
        StoredQuery(f"p{n:04}", frozenset({"c1"}), (Query(DENSE[0], dense=vectors[n]),), float(floors[n]), MATCH_ALL)
        for n in range(3000)
    )
    (matched,) = engine.match([Probe(Asset("c1", {"metadata": {}}, {DENSE[0]: [probe]}, {}), 0.0, 3000)])
    assert {f"p{n:04}" for n in np.flatnonzero(~above)} == {each.percolator_id for each in matched.found}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_was_removed_leaves_no_trace(seed: int) -> None:
    """After thousands of random puts, replacements and removals, the engine is as if only what is left had been put."""
    draw = Draw(seed)
    engine, stored = new_engine(), dict[str, StoredQuery]()
    for _ in range(150):
        number = int(draw.random.integers(60))
        if draw.random.random() < 0.3:
            engine.remove(f"p{number:05}")
            stored.pop(f"p{number:05}", None)
        else:
            query = draw.stored_query(number)
            engine.put([query])
            stored[query.percolator_id] = query
    engine.remove_partition(3)
    stored = {key: each for key, each in stored.items() if each.partition != 3}
    probes = [draw.probe() for _ in range(9)]
    for probe, matched in zip(probes, engine.match(probes), strict=True):
        assert_same(oracle(stored, probe), matched.found)
    some = [0, 4, 8]
    for probe, matched in zip(probes, engine.match(probes, partitions=some), strict=True):
        assert_same(oracle({key: each for key, each in stored.items() if each.partition in some}, probe), matched.found)
    assert len(stored) == len(engine)


@pytest.mark.parametrize("exact_ns", [2_000.0, 1e15], ids=["what is cheaper first", "first pass first"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_changes_in_the_middle_of_matching(monkeypatch: pytest.MonkeyPatch, exact_ns: float, seed: int) -> None:
    """Each asset is matched against the stored queries as they were at some moment since matching began."""
    # Many small blocks, so that there are many steps between which something changes.
    monkeypatch.setattr(core, "_EXACT_NS", exact_ns)
    monkeypatch.setattr(first_pass, "_TILE_ROWS", 4)
    monkeypatch.setattr(first_pass, "BLOCK_ROWS", 16)
    monkeypatch.setattr(first_pass, "_FIRST_ROWS", 4)
    draw = Draw(seed)
    engine, stored = new_engine(), dict[str, StoredQuery]()

    def change() -> None:
        some = [draw.stored_query(int(draw.random.integers(60))) for _ in range(draw.random.integers(1, 5))]
        if draw.random.random() < 0.4:
            for each in some:
                engine.remove(each.percolator_id)
                stored.pop(each.percolator_id, None)
        else:
            engine.put(some)
            stored.update((each.percolator_id, each) for each in some)

    for _ in range(int(draw.random.integers(1, 25))):
        change()
    probes = [draw.probe() for _ in range(draw.random.integers(1, 5))]
    steps, moments = engine.steps(probes), [dict(stored)]
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: list[Matched] = end.value
            break
        assert engine.is_matching
        if draw.random.random() < 0.5:
            change()
            moments.append(dict(stored))
    assert not engine.is_matching
    for probe, matched in zip(probes, found, strict=True):
        assert any(are_same(oracle(moment, probe), matched.found) for moment in moments)


@settings(max_examples=50, deadline=None)
@given(operations, assets, st.integers(1, 4))
def test_the_best_come_first(changes: list[StoredQuery | str], asset: Asset, limit: int) -> None:
    """Matches are in order of score, then id, and the limit keeps the best."""
    engine = new_engine()
    for change in changes:
        if not isinstance(change, str):
            engine.put([change])
    every = found_by(engine, asset, limit=1000)
    assert sorted(every, key=lambda each: (-each.score, each.percolator_id)) == every
    assert every[:limit] == found_by(engine, asset, limit=limit)


def found_by(engine: Engine, asset: Asset, min_score: float = 0.0, limit: int = 9) -> list[Found]:
    """What one asset matches."""
    return list(engine.match([Probe(asset, min_score, limit)])[0].found)


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
    engine = new_engine()
    engine.put([stored("same", 1.0, Query(DENSE[0], dense=unit(vector)))])
    assert [("same", 1.0)] == [(each.percolator_id, each.score) for each in found_by(engine, asset_with(vector))]
    assert 1 == len(found_by(engine, asset_with(vector), 1.0))


def test_the_mean_counts_queries_whose_index_the_asset_lacks() -> None:
    """A query without a vector to compare with counts 0, so that two queries of which one is met score a half."""
    engine = new_engine()
    met, lacking = Query(DENSE[0], dense=unit([1, 0, 0, 0])), Query(SPARSE[0], sparse={1: 1.0})
    engine.put([stored("half", 0.5, met, lacking)])
    engine.put([stored("more", 0.51, met, lacking)])
    found = found_by(engine, asset_with([1, 0, 0, 0]))
    assert [("half", 0.5, (1.0, 0.0))] == [(each.percolator_id, each.score, each.query_scores) for each in found]


def test_opposite_vectors_score_zero() -> None:
    """A negative cosine is clipped, so that it can't drag the mean of other queries down."""
    engine = new_engine()
    both = (Query(DENSE[0], dense=unit([1, 0, 0, 0])), Query(DENSE[0], dense=unit([-1, 0, 0, 0])))
    engine.put([stored("both", 0.5, *both)])
    assert [(1.0, 0.0)] == [each.query_scores for each in found_by(engine, asset_with([1, 0, 0, 0]))]


def test_vectors_of_another_model_version_are_not_compared() -> None:
    """The same index with another version of the model is another space."""
    engine = new_engine()
    engine.put([stored("old", 0.1, Query((1, "v0"), dense=unit([1, 0, 0, 0])))])
    assert [] == found_by(engine, asset_with([1, 0, 0, 0]))


def test_many_stored_queries_grow_and_shrink_the_tables() -> None:
    """Rows that became free are used again, and no removed query leaves a trace in another's score."""
    engine, generator = new_engine(), np.random.default_rng(7)
    kept = {}
    for number in range(700):
        vector = unit(generator.normal(size=DIM).tolist())
        engine.put([stored(f"q{number}", 0.9, Query(DENSE[0], dense=vector), Query(DENSE[0], dense=vector))])
        kept[f"q{number}"] = vector
        if number % 3 == 0:
            engine.remove(f"q{number // 2}")
            kept.pop(f"q{number // 2}", None)
    probe = unit(generator.normal(size=DIM).tolist())
    expected = {name for name, vector in kept.items() if float(vector @ probe) >= 0.9}
    assert expected == {each.percolator_id for each in found_by(engine, asset_with(probe.tolist()), limit=1000)}
    assert len(kept) == len(engine)
    assert expected


def test_a_stored_query_ends_when_it_expires() -> None:
    """What has expired is matched no more, and named to be removed."""
    engine, now_ns = new_engine(), 10**18
    one = stored("soon", 0.5, Query(DENSE[0], dense=unit([1, 0, 0, 0])))
    engine.put([one._replace(expires_ns=now_ns + 1), one._replace(percolator_id="never")])
    probes = [Probe(asset_with([1, 0, 0, 0]))]
    names = [[each.percolator_id for each in engine.match(probes, now_ns=at)[0].found] for at in (now_ns, now_ns + 1)]
    assert [["never", "soon"], ["never"]] == names
    assert [[], ["soon"]] == [engine.expired(at) for at in (now_ns, now_ns + 1)]


def test_keys_come_oldest_first() -> None:
    """A listing is in the order of creation, and knows how many there are; stale ones have another model's vector."""
    engine = new_engine()
    one = stored("x", 0.5, Query(DENSE[1], dense=unit([1, 0, 0, 0])))
    other = stored("y", 0.5, Query(DENSE[2], dense=unit([1, 0, 0, 0])))
    engine.put(one._replace(percolator_id=f"p{n}", created_ns=100 - n, partition=n % 2) for n in range(5))
    engine.put([other._replace(percolator_id="new", created_ns=1)])
    assert ([(1, "new"), (96, "p4"), (97, "p3")], 6) == engine.keys(3)
    assert ([(97, "p3"), (99, "p1")], 2) == engine.keys(9, partitions=[1])
    assert ([(1, "new")], 1) == engine.keys(9, stale=DENSE[1])
    assert 5 == engine.keys(0, stale=DENSE[2])[1]


def test_vectors_beyond_memory_are_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are the same when the exact vectors have moved to a file, which has no name and goes with the engine."""
    monkeypatch.setattr(exact_rows, "MEMORY_BYTES_MAX", 4096)
    engine, random = Engine(PRODUCT, tmp_path), np.random.default_rng(3)
    vectors = [unit(random.normal(size=32).tolist()) for _ in range(500)]
    for start in range(0, 500, 50):
        engine.put(stored(f"p{n:03}", 0.2, Query(DENSE[0], dense=vectors[n])) for n in range(start, start + 50))
    probe = Probe(asset_with(vectors[9].tolist()), 0.0, 500)
    known = {f"p{n:03}": stored(f"p{n:03}", 0.2, Query(DENSE[0], dense=vectors[n])) for n in range(500)}
    assert_same(oracle(known, probe), engine.match([probe])[0].found)
    assert [] == list(tmp_path.iterdir())
    engine.close()


@pytest.mark.parametrize("count", [1, 70, 118, 256, 257, 258, 1029, 4200])
def test_rows_that_were_never_taken_are_no_candidates(count: int) -> None:
    """Whatever the number of stored queries, the room behind them is not mistaken for some."""
    engine, random = new_engine(), np.random.default_rng(count)
    vectors = [unit(random.normal(size=512).tolist()) for _ in range(count)]
    engine.put(stored(f"p{n:04}", 0.9, Query(DENSE[0], dense=vectors[n])) for n in range(count))
    probes = [Probe(Asset("c1", {"metadata": {}}, {DENSE[0]: [vectors[n % count]]}, {})) for n in range(64)]
    for n, matched in enumerate(engine.match(probes)):
        assert [f"p{n % count:04}"] == [each.percolator_id for each in matched.found]
    pairs = [pair for rows in engine.spaces[0].coded.scan(np.stack(vectors[:1]), 0.0, count) for pair in rows[1]]
    assert [0] == pairs
