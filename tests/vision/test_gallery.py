"""Which marks are near, and which findings stand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vision.gallery import CANDIDATES_MAX, COSINE_MIN, MARKS_MAX, Finding, Gallery, Vectors, merged


def unit(rows: int, seed: int, dimensions: int = 16) -> Vectors:
    """Unit vectors float32 [rows, dimensions]."""
    vectors = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def plainly(marks: dict[str, Vectors], regions: Vectors) -> list[str]:
    """The nearest marks of each region, found one by one."""
    best: dict[str, float] = {}
    for region in regions:
        nearest = sorted(((float((vectors @ region).max()), name) for name, vectors in marks.items()), reverse=True)
        for cosine, name in nearest[:CANDIDATES_MAX]:
            if cosine >= COSINE_MIN:
                best[name] = max(best.get(name, -1.0), cosine)
    return sorted(best, key=lambda name: -best[name])[:MARKS_MAX]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 10**6))
def test_the_nearest_marks_are_those_of_a_plain_search(count: int, regions: int, seed: int) -> None:
    """Every mark is compared by its nearest view, exactly."""
    marks = {f"mark {each}": unit(1 + each % 3, seed + each) for each in range(count)}
    gallery = Gallery()
    for name, vectors in marks.items():
        gallery.put(name, vectors)
    seen = unit(regions, seed + 1_000_000)
    assert plainly(marks, seen) == gallery.near(seen)


def test_a_picture_has_a_limit_of_marks() -> None:
    """However many regions and marks are alike, at most MARKS_MAX are compared, the nearest ones."""
    gallery, vectors = Gallery(), unit(100, 1, dimensions=128)
    for number, vector in enumerate(vectors):
        gallery.put(str(number), vector[None])
    found = gallery.near(vectors)
    assert MARKS_MAX == len(found) == len(set(found))


def test_a_mark_is_replaced_and_removed() -> None:
    """What is near follows every change; a gallery without marks has nothing near."""
    gallery, (first, second) = Gallery(), unit(2, 2, dimensions=128)
    assert [] == gallery.near(first[None])
    gallery.put("a", first[None])
    assert ["a"] == gallery.near(first[None])
    gallery.put("a", second[None])
    assert ([], ["a"]) == (gallery.near(first[None]), gallery.near(second[None]))
    gallery.remove("a")
    gallery.remove("a")
    assert ([], 0) == (gallery.near(second[None]), len(gallery))


@pytest.mark.parametrize("shape", [(16,), (0, 16), (1, 8), (1, 0)])
def test_vectors_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """A mark has at least one vector, of as many dimensions as the others."""
    gallery = Gallery()
    gallery.put("a", unit(1, 3))
    with pytest.raises(ValueError, match="shape"):
        gallery.put("b", np.zeros(shape, np.float32))
    assert 1 == len(gallery)


def square(left: float, top: float, side: float) -> list[list[float]]:
    """The corners of a square."""
    return [[left, top], [left + side, top], [left + side, top + side], [left, top + side]]


def test_of_two_findings_in_one_place_the_surer_stays() -> None:
    """A namespace's own wins a tie; what lies apart stays; the surest is first."""
    own = Finding("Mine", 0.8, square(10, 10, 50), "id")
    for confidence, kept in ((0.9, "Theirs"), (0.8, "Mine"), (0.7, "Mine")):
        assert [kept] == [each.name for each in merged([own], [Finding("Theirs", confidence, square(12, 12, 50))])]
    apart = Finding("Theirs", 0.9, square(200, 10, 50))
    assert [apart, own] == merged([own], [apart])


def test_the_lettering_inside_of_a_mark_of_one_name_is_the_mark() -> None:
    """A small finding inside of a surer one goes where both have one name, and stays where they have two."""
    whole, part = Finding("Acme", 0.9, square(0, 0, 100), "id"), square(10, 10, 20)
    assert [whole] == merged([whole], [Finding("Acme", 0.6, part)])
    assert 2 == len(merged([whole], [Finding("Inner", 0.6, part)]))
