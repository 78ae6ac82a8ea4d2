"""Payloads come back as they were put, whatever was given back and taken again between."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from services.mesh.filters import MATCH_ALL
from services.percolator.engine import Asset, Engine, IntegerProduct, Payloads, Probe, Query, StoredQuery

SPACE = (2, "v1")


def test_payloads_come_back_and_their_room_is_used_again(tmp_path: Path) -> None:
    """After thousands of random changes each is as it was put, in a file no larger than the most that was kept."""
    random, payloads = np.random.default_rng(1), Payloads(tmp_path)
    kept: list[tuple[int, bytes]] = []
    for _ in range(400):
        random.shuffle(kept)
        while len(kept) > 60:
            place, content = kept.pop()
            payloads.free(place, len(content))
        new = [random.bytes(int(random.choice([0, 1, 64, 65, 300, 5000]))) for _ in range(random.integers(1, 12))]
        kept += zip(payloads.put(new).tolist(), new, strict=True)
        assert all(content == payloads.read(place, len(content)) for place, content in kept)
    # At most 71 of each size at a time; if no room were used again, there would be some 400 of each.
    end = int(payloads.put([bytes(10_000)])[0]) * 64
    assert end < 71 * (5056 + 320 + 128 + 64 + 64)
    assert [] == os.listdir(tmp_path)
    payloads.close()


def test_a_match_brings_the_payload_and_the_indexes_of_its_stored_query(tmp_path: Path) -> None:
    """Each match has what its stored query has now, also after it was replaced, and beside another engine's."""
    payloads, vector = Payloads(tmp_path), np.array([1, 0, 0, 0], np.float32)
    engines = [Engine(IntegerProduct(), None, payloads) for _ in range(2)]
    probe = Probe(Asset("c", {"metadata": {}}, {SPACE: [vector]}, {}))

    def put(engine: Engine, name: str, payload: bytes) -> None:
        queries = (Query(SPACE, dense=vector), Query((4, "bm25"), sparse={1: 1.0}))
        engine.put([StoredQuery(name, frozenset("c"), queries, 0.5, MATCH_ALL, payload=payload)])

    def found(engine: Engine) -> dict[str, tuple[bytes, tuple[int, ...]]]:
        return {each.percolator_id: (each.payload, each.indexes) for each in engine.match([probe])[0].found}

    for number, engine in enumerate(engines):
        put(engine, "one", b"first" * (number + 1))
        put(engine, "other", b"")
    put(engines[0], "one", b"longer than one slot" * 10)
    assert {"one": (b"longer than one slot" * 10, (2, 4)), "other": (b"", (2, 4))} == found(engines[0])
    assert {"one": (b"firstfirst", (2, 4)), "other": (b"", (2, 4))} == found(engines[1])
