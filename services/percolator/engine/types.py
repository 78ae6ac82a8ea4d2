"""What the engine takes and gives, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.mesh.filters import Condition

# An index and the version of the model that made its vectors; only vectors of one space are compared.
Space = tuple[int, str]
Dense = NDArray[np.float32]
Sparse = Mapping[int, float]

#: Scores are rounded to so many decimals and then compared with thresholds, so that every way of computing one agrees.
SCORE_DECIMALS = 6
#: Of a stored query that does not expire.
NEVER_NS = 2**63 - 1


class Query(NamedTuple):
    """One query of a stored query. Dense vectors have unit length; sparse weights sum to 1."""

    space: Space
    dense: Dense | None = None
    sparse: Sparse | None = None
    # The query scores 0 for assets that do not satisfy it.
    condition: Condition | None = None


class StoredQuery(NamedTuple):
    """What one percolator looks for."""

    percolator_id: str
    collection_ids: frozenset[str]
    queries: tuple[Query, ...]
    # Inclusive, 0..1.
    min_score: float
    condition: Condition
    # One that is not enabled is kept, listed and counted, and matches nothing.
    enabled: bool = True
    # Nanoseconds since 1970.
    created_ns: int = 0
    expires_ns: int = NEVER_NS
    # Which part of all stored queries it belongs to, 0..255.
    partition: int = 0
    # Comes back with its matches, and takes no part in matching.
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Asset:
    """A new asset: its vectors by space, several where several fields share one index."""

    collection_id: str
    # What conditions are tested against: the document's fields, and its metadata under "metadata".
    document: Mapping[str, object]
    dense: Mapping[Space, Sequence[Dense]]
    sparse: Mapping[Space, Sequence[Sparse]]


@dataclass(frozen=True, slots=True)
class Probe:
    """An asset to be matched, and which of its matches are wanted."""

    asset: Asset
    # Scores below are dropped, 0..1, whatever a stored query's own threshold is.
    min_score: float = 0.0
    # At most this many are returned, the best ones.
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Found:
    """A stored query that an asset matches. Scores are 0..1."""

    percolator_id: str
    score: float
    query_scores: tuple[float, ...]
    # The index of each query.
    indexes: tuple[int, ...] = ()
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Stats:
    """What matching one asset came to, in numbers of stored queries."""

    stored: int
    # Those that the first pass, which never drops a match, could not rule out.
    candidates: int
    # Those of them that were scored exactly.
    evaluated: int
    # The other candidates: of other collections, expired, or with a filter that the asset does not satisfy.
    filtered: int
    # Those that reached the threshold.
    matched: int


@dataclass(frozen=True, slots=True)
class Matched:
    """The matches of one asset, best first, equal scores by id."""

    found: tuple[Found, ...]
    stats: Stats
