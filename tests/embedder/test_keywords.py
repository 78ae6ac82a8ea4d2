"""Keyword vectors: scores of 0..1 that grow with what a document has of a query."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lensmesh.v1 import common_pb2

from services.embedder.keywords import TERMS_MAX, encode_document, encode_query, term_id, tokens

words = st.sampled_from(["red", "shoe", "blue", "hat", "Straße", "7", "größe", "東京", "a_b"])
texts = st.lists(words, max_size=60).map(" ".join)


def score(query: str, document: str) -> float:
    """The inner product, which is the score."""
    weights = dict(zip(*_parts(encode_document(document)), strict=True))
    return sum(weight * weights.get(term, 0.0) for term, weight in zip(*_parts(encode_query(query)), strict=True))


def _parts(vector: common_pb2.Vector) -> tuple[list[int], list[float]]:
    return list(vector.indices), list(vector.values)


@given(st.text(max_size=200), st.text(max_size=200))
def test_scores_are_within_bounds(query: str, document: str) -> None:
    """Any two texts score within 0..1."""
    assert 0 <= score(query, document) <= 1


@given(texts, texts)
def test_a_document_that_has_nothing_scores_nothing(query: str, document: str) -> None:
    """The score is 0 exactly when no word is shared."""
    assert (score(query, document) > 0) == bool(set(tokens(query)) & set(tokens(document)))


@given(words, st.lists(words, min_size=1, max_size=30))
def test_own_words_score_highest(word: str, document: list[str]) -> None:
    """A query of the document's words scores higher than the same with a word that it lacks."""
    own = " ".join(document)
    assert score(own, own) > score(f"{own} unheard", own)


@given(texts, words)
def test_more_of_a_word_scores_more(filler: str, word: str) -> None:
    """Of two documents of one length, the one that has the word more often scores higher."""
    assert score(word, f"{filler} {word} {word}") > score(word, f"{filler} {word} other")


@given(texts.filter(bool))
def test_a_longer_document_scores_less(text: str) -> None:
    """The same words among many others count less."""
    assert score(text, text) > score(text, text + " filler" * 50)


@given(st.text(max_size=300))
def test_vectors_are_well_formed(text: str) -> None:
    """Term ids ascend without repetition, within what Milvus takes; a query's weights sum to 1."""
    for vector in (encode_document(text), encode_query(text)):
        ids, weights = _parts(vector)
        assert sorted(set(ids)) == ids
        assert all(0 <= each < 2**32 - 1 for each in ids)
        assert all(0 < each <= 1 for each in weights)
        assert bool(tokens(text)) == bool(ids)
    weights = list(encode_query(text).values)
    assert not weights or abs(sum(weights) - 1) < 1e-5


@pytest.mark.parametrize(
    ("query", "document"), [("STRASSE", "Straße"), ("ｆｕｌｌ", "full"), ("ﬁne", "FINE"), ("red,shoe!", "shoe red")]
)
def test_spelling_does_not_matter(query: str, document: str) -> None:
    """Case, width, ligatures and punctuation make no difference."""
    assert set(encode_query(query).indices) == set(encode_document(document).indices)


def test_a_text_without_words_has_no_vector() -> None:
    """Blanks and punctuation alone give an empty vector."""
    assert ([], []) == _parts(encode_document(" ?! "))
    assert ([], []) == _parts(encode_query(""))


def test_a_document_keeps_its_most_frequent_words() -> None:
    """Of very many words, the most frequent are kept."""
    text = " ".join([*(f"w{each}" for each in range(3 * TERMS_MAX)), "often", "often"])
    vector = encode_document(text)
    assert TERMS_MAX == len(vector.indices)
    assert term_id("often") in vector.indices
