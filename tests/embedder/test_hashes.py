"""Hashes as vectors: the store's cosine gives the number of different bits exactly."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.embedder.hashes import BITS, NO_VECTOR, distance, vector

numbers = st.integers(0, 2**BITS - 1)


def cosine(one: list[float], other: list[float]) -> float:
    """As a store computes it, in float32 after scaling both to unit length."""
    left, right = (np.array(each, np.float32) / np.float32(np.linalg.norm(each)) for each in (one, other))
    return float(np.sum(left * right, dtype=np.float32))


@given(numbers, numbers)
def test_the_cosine_gives_the_distance(one: int, other: int) -> None:
    """The distance is the number of bits that differ."""
    found = distance(cosine(vector(f"{one:016x}"), vector(f"{other:016x}")))
    assert (one ^ other).bit_count() == found


def test_no_hash_has_a_vector_of_its_own() -> None:
    """An empty hash has a vector that no hash has."""
    assert NO_VECTOR == vector("")
    assert {-1.0, 1.0} == set(vector("00000000ffffffff"))
