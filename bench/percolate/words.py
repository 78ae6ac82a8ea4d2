"""Keyword queries with filters, beside mokaccino, a percolator of such queries in Rust."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.percolate.engine import cpu_ms
from services.mesh.filters import AllOf, Leaf, Operator
from services.percolator.engine import Asset, Engine, IntegerProduct, Probe, Query, StoredQuery

COUNT = 100_000
_WORDS, _CATEGORIES, _ASSET_WORDS, _ASSETS = 5_000, 100, 30, 64
_SPACE = (4, "bm25")


def words_row(say: Callable[[str], None]) -> dict[str, Any]:
    """CPU-ms an asset: a word, a category and a price a stored query, all of which must hold."""
    random = np.random.default_rng(1)
    terms, categories = random.integers(0, _WORDS, COUNT), random.integers(0, _CATEGORIES, COUNT)
    prices = random.integers(0, 1000, COUNT)
    engine = Engine(IntegerProduct())
    engine.put(
        StoredQuery(
            f"p{number:06}",
            frozenset({"c"}),
            (Query(_SPACE, sparse={int(terms[number]): 1.0}),),
            0.01,
            AllOf(
                (
                    Leaf(("metadata", "category"), Operator.EQ, f"c{categories[number]}"),
                    Leaf(("metadata", "price"), Operator.GTE, int(prices[number])),
                )
            ),
        )
        for number in range(COUNT)
    )
    documents = [
        (
            set(random.integers(0, _WORDS, _ASSET_WORDS).tolist()),
            f"c{random.integers(_CATEGORIES)}",
            int(random.integers(1000)),
        )
        for _ in range(_ASSETS)
    ]
    probes = [
        Probe(
            Asset("c", {"metadata": {"category": category, "price": price}}, {}, {_SPACE: [dict.fromkeys(held, 0.5)]}),
            limit=COUNT,
        )
        for held, category, price in documents
    ]
    found = [{each.percolator_id for each in matched.found} for matched in engine.match(probes)]
    row: dict[str, Any] = {
        "queries": COUNT,
        "cpu_ms_per_asset": round(cpu_ms(lambda: engine.match(probes)) / _ASSETS, 4),
        "matched": round(float(np.mean([len(each) for each in found])), 2),
    }
    row |= _mokaccino(terms, categories, prices, documents, found)
    beside = row.get("mokaccino_cpu_ms_per_asset", "not installed")
    say(f"  {COUNT:,} keyword queries with filters: {row['cpu_ms_per_asset']} CPU-ms an asset; mokaccino: {beside}")
    return row


def _mokaccino(terms: Any, categories: Any, prices: Any, documents: Any, found: list[set[str]]) -> dict[str, Any]:
    try:
        import mokaccino
    except ImportError:
        return {}
    percolator = mokaccino.Percolator()
    for number in range(COUNT):
        query = mokaccino.Query.from_and(
            [
                mokaccino.Query.from_kv("word", f"w{terms[number]}"),
                mokaccino.Query.from_kv("category", f"c{categories[number]}"),
                mokaccino.Query.from_kge("price", int(prices[number])),
            ]
        )
        percolator.add_query_id(query, number)

    def document(held: set[int], category: str, price: int) -> Any:
        made = mokaccino.Document().with_value("category", category).with_value("price", str(price))
        for each in held:
            made = made.with_value("word", f"w{each}")
        return made

    made = [document(*each) for each in documents]
    for one, ids in zip(made, found, strict=True):
        assert {f"p{each:06}" for each in percolator.percolate_list(one)} == ids, "mokaccino and the engine differ"
    spent = cpu_ms(lambda: [percolator.percolate_list(each) for each in made]) / _ASSETS
    return {"mokaccino_cpu_ms_per_asset": round(spent, 4)}
