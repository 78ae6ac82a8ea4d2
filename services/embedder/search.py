"""Searches with one or several vectors; several are fused by reciprocal rank.

Reciprocal rank fusion: Cormack, Clarke and Buettcher, SIGIR 2009, with their k = 60.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from lensmesh.v1 import embedder_pb2, feature_pb2

from services.embedder.store import Hit, Store
from services.mesh.filters import AllOf, Condition, from_proto
from services.mesh.tenancy import Tenant

RRF_K = 60


def fuse(rankings: Sequence[Sequence[Hit]]) -> list[Hit]:
    """One ranking of several; a single one keeps its scores."""
    if len(rankings) == 1:
        return list(rankings[0])
    scores: dict[str, float] = defaultdict(float)
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            scores[hit.feature_id] += 1 / (RRF_K + rank)
    hits = [Hit(feature_id, score) for feature_id, score in scores.items()]
    return sorted(hits, key=lambda hit: (-hit.score, hit.feature_id))


async def search(store: Store, request: embedder_pb2.SearchVectorsRequest) -> tuple[list[feature_pb2.Feature], int]:
    """The page of features, best first with their scores, and the number of candidates in all."""
    tenant = Tenant(request.namespace_id)
    common = from_proto(request.filters)
    rankings = await asyncio.gather(
        *(
            _one(store, tenant, request, position, AllOf((common, from_proto(query.filters))))
            for position, query in enumerate(request.queries)
        )
    )
    hits = fuse(rankings)
    page = hits[request.offset : request.offset + request.limit]
    features = await store.features_by_id(tenant, [hit.feature_id for hit in page])
    found = []
    for hit in page:
        if hit.feature_id in features:
            feature = features[hit.feature_id]
            feature.score = hit.score
            found.append(feature)
    return found, len(hits)


async def _one(
    store: Store,
    tenant: Tenant,
    request: embedder_pb2.SearchVectorsRequest,
    position: int,
    condition: Condition,
) -> list[Hit]:
    query = request.queries[position]
    hits = await store.search(tenant, query.query, request.collection_ids, condition, query.limit)
    return [hit for hit in hits if hit.score >= query.min_score]
