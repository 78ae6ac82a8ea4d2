"""The nearest rows to a vector: features by one query, assets by the likeness of their pictures.

What is made of several queries' results, `search` knows; what rows hold, `rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lensmesh.v1 import asset_pb2, embedder_pb2

from services.embedder import hashes, rows
from services.embedder.milvus import Milvus, Row
from services.embedder.store import HEX, QUERY_LIMIT_MAX, Store
from services.embedder.vectors import KEYWORD
from services.mesh.errors import InvalidArgument
from services.mesh.filters import Condition, matches
from services.mesh.filters import compile as compile_filter
from services.mesh.tenancy import Tenant

# Candidates read beyond the limit when a filter can only be checked after the search.
_OVERSAMPLING = 10
# Rows that one search looks at, whatever its filter: some seconds of a Milvus server.
_SEEN_MAX = 500_000
# Scores are compared after rounding, as the percolator's are: equal vectors in float32 meet a min_score of 1.0.
SCORE_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Hit:
    """A feature found by one query."""

    feature_id: str
    score: float


class Nearest:
    """Searches in Milvus."""

    def __init__(self, milvus: Milvus, store: Store) -> None:
        self._milvus = milvus
        self._store = store

    async def features(
        self,
        tenant: Tenant,
        query: embedder_pb2.EmbeddedVector,
        collection_ids: Sequence[str],
        condition: Condition,
        limit: int,
    ) -> list[Hit]:
        """The best features of one query, best first, each once, with scores of 0..1.

        Raises:
            InvalidArgument: a filter that only we can check selects too few of too many rows.
        """
        if query.vector_index == KEYWORD and not query.vector.indices:
            return []
        version = query.model_version
        name = rows.index_collection(tenant, query.vector_index, version)
        compiled = compile_filter(condition, columns=rows.FILTER_COLUMNS)
        scope = rows.every((rows.among("collection_id", collection_ids), compiled.expression))
        wanted = limit if compiled.exact else min(limit * _OVERSAMPLING, QUERY_LIMIT_MAX)
        while True:
            found = await self._nearest(name, query, scope, wanted, compiled.exact)
            best = _best(found, None if compiled.exact else condition)
            # Several vectors may be one feature's, and the filter may have taken some: then there is more behind.
            if len(best) >= limit or len(found) < wanted:
                break
            if wanted == QUERY_LIMIT_MAX:
                best = await self._best_of_all(name, query, scope, None if compiled.exact else condition)
                break
            wanted = min(wanted * _OVERSAMPLING, QUERY_LIMIT_MAX)
        hits = [Hit(feature_id, score) for feature_id, score in best.items()]
        return sorted(hits, key=lambda hit: (-hit.score, hit.feature_id))[:limit]

    async def _nearest(
        self, name: str, query: embedder_pb2.EmbeddedVector, expression: str, limit: int, exact: bool
    ) -> list[Row]:
        return await self._milvus.search(
            name,
            rows.milvus_vector(query),
            metric="IP" if query.vector_index == KEYWORD else "COSINE",
            limit=limit,
            expression=expression,
            fields=["feature_id"] if exact else [*rows.FILTER_COLUMNS, "metadata"],
        )

    async def _best_of_all(
        self, name: str, query: embedder_pb2.EmbeddedVector, scope: str, condition: Condition | None
    ) -> dict[str, float]:
        """The scores of all features in a scope that is larger than one search may return: by the ids' first digits."""
        best: dict[str, float] = {}
        seen, prefixes = 0, list(HEX)
        while prefixes:
            prefix = prefixes.pop()
            part = rows.every((scope, f"id like {rows.quoted(prefix + '%')}"))
            found = await self._nearest(name, query, part, QUERY_LIMIT_MAX, condition is None)
            if len(found) == QUERY_LIMIT_MAX:
                prefixes += [prefix + digit for digit in HEX]
            else:
                for feature_id, score in _best(found, condition).items():
                    # Vectors of one feature may be in different parts.
                    best[feature_id] = max(score, best.get(feature_id, 0.0))
            seen += len(found)
            if seen > _SEEN_MAX:
                raise InvalidArgument.field(
                    "filters",
                    f"select too few of more than {_SEEN_MAX} rows; choose fewer collections, or add a condition that"
                    " compares with eq, in, gt, lt, gte or lte",
                    "rows.max",
                )
        return best

    async def duplicates(
        self, tenant: Tenant, asset: asset_pb2.Asset, collection_ids: Sequence[str], max_distance: int, limit: int
    ) -> list[tuple[asset_pb2.Asset, int]]:
        """Other assets whose perceptual hash differs in at most `max_distance` bits, nearest first, then by id.

        Args:
            collection_ids: where to look; none: in the whole namespace.

        Raises:
            InvalidArgument: the asset has no hash.
        """
        if not asset.perceptual_hash:
            raise InvalidArgument.field("asset_id", "has no perceptual hash; index the image again", "asset.hash")
        scope = f"{rows.equals('kind', rows.ASSET)} and id != {rows.quoted(asset.asset_id)}"
        if collection_ids:
            scope += f" and {rows.among('collection_id', collection_ids)}"
        vector, wanted = hashes.vector(asset.perceptual_hash), limit + 1
        while True:
            nearest = await self._milvus.search(
                rows.documents_collection(tenant),
                vector,
                metric="COSINE",
                limit=wanted,
                expression=scope,
                fields=["id"],
            )
            found = [(hashes.distance(float(row["distance"])), str(row["id"])) for row in nearest]
            near = sorted({each for each in found if each[0] <= max_distance})
            # Among equally near ones the store chooses as it likes: all of them are needed to choose by id.
            if len(near) < wanted or near[limit - 1][0] < near[-1][0] or wanted == QUERY_LIMIT_MAX:
                break
            wanted = min(wanted * _OVERSAMPLING, QUERY_LIMIT_MAX)
        assets = await self._store.assets_by_id(tenant, [asset_id for _, asset_id in near[:limit]])
        # One that vanished meanwhile is left out, and so is one without a hash, whose distance means nothing.
        shown = [(assets[each], distance) for distance, each in near[:limit] if each in assets]
        return [(each, distance) for each, distance in shown if each.perceptual_hash]


def _best(found: Sequence[Row], condition: Condition | None) -> dict[str, float]:
    """The best score of each feature, 0..1, of those that fulfil a condition that the search has not tested."""
    best: dict[str, float] = {}
    for row in found:
        entity = row["entity"]
        if condition is None or matches(condition, entity):
            score = round(min(max(float(row["distance"]), 0.0), 1.0), SCORE_DECIMALS)
            best[entity["feature_id"]] = max(score, best.get(entity["feature_id"], 0.0))
    return best
