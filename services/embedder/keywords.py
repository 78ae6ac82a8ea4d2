"""Sparse vectors for lexical retrieval: BM25's term saturation and length normalisation, scores in 0..1.

A document's weight of a term is BM25's tf part (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009)
divided by its bound k1 + 1; a query's terms weigh 1 / (number of distinct terms). The inner product is therefore the
mean saturation of the query's terms, 0..1, and the same for a search and for a stored query. There is no idf part yet.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter

from lensmesh.v1 import common_pb2

VERSION = "bm25-tf-1"

# The name of an asset's metadata among its keyword vectors; no request can give this name.
METADATA = "$metadata"

# The values that Robertson and Zaragoza recommend.
K1 = 1.2
B = 0.75
# Tokens of a typical document here: a description and a few lines of read text.
AVERAGE_TOKENS = 32
# Distinct terms kept of one document, the most frequent first: what fits in a row.
TERMS_MAX = 2_000

_TOKEN = re.compile(r"\w+")


def tokens(text: str) -> list[str]:
    """Words in compatibility-normalised, case-folded form."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def term_id(token: str) -> int:
    """A 32-bit id of a token; two of 10,000 different tokens share one with a chance of about 1 %."""
    # Milvus refuses 2**32 - 1.
    return int.from_bytes(hashlib.blake2b(token.encode(), digest_size=4).digest(), "little") % (2**32 - 1)


def encode_document(text: str) -> common_pb2.Vector:
    """The document's weights; empty for a text without words."""
    words = tokens(text)
    norm = K1 * (1 - B + B * len(words) / AVERAGE_TOKENS)
    counts = Counter(words).most_common(TERMS_MAX)
    return _vector({term_id(word): count / (count + norm) for word, count in counts})


def encode_query(text: str) -> common_pb2.Vector:
    """The query's weights, which sum to 1; empty for a text without words."""
    words = sorted(set(tokens(text)))[:TERMS_MAX]
    return _vector({term_id(word): 1 / len(words) for word in words})


def words_of(metadata: object) -> str:
    """The texts of an asset's metadata, however deep, one a line; keys, numbers and truth values are for filters."""
    if isinstance(metadata, str):
        return metadata
    values = metadata.values() if isinstance(metadata, dict) else metadata if isinstance(metadata, list) else ()
    return "\n".join(filter(None, map(words_of, values)))


def _vector(weights: dict[int, float]) -> common_pb2.Vector:
    ids = sorted(weights)
    return common_pb2.Vector(indices=ids, values=[weights[each] for each in ids])
