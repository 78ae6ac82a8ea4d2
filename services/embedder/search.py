"""Searches with one or several vectors; several are fused by reciprocal rank.

Reciprocal rank fusion: Cormack, Clarke and Buettcher, SIGIR 2009, with their k = 60.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from google.protobuf.json_format import ParseDict
from lensmesh.v1 import embedder_pb2, feature_pb2

from services.embedder.arrange import Entry, grouped, needs_fields, ordered
from services.embedder.nearest import Hit, Nearest
from services.embedder.store import Store
from services.mesh.errors import LensmeshError, at
from services.mesh.filters import AllOf, Condition, from_proto
from services.mesh.tenancy import Tenant

RRF_K = 60

Embed = Callable[[embedder_pb2.EmbedInput], Awaitable[embedder_pb2.EmbeddedVector]]


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


async def search(
    store: Store, nearest: Nearest, embed: Embed, request: embedder_pb2.SearchVectorsRequest
) -> embedder_pb2.SearchVectorsResponse:
    """A page of features or groups, best first with their scores, and the number of candidates or groups in all.

    Raises:
        LensmeshError: a query can't be embedded; the place says which.
    """
    tenant = Tenant(request.namespace_id)
    common = from_proto(request.filters)
    rankings = await asyncio.gather(
        *(
            _one(nearest, embed, tenant, request, position, AllOf((common, from_proto(query.filters))))
            for position, query in enumerate(request.queries)
        )
    )
    hits = fuse(rankings)
    arrangement, scores = request.arrangement, {hit.feature_id: hit.score for hit in hits}
    entries = [Entry(hit.feature_id, {}, hit.score) for hit in hits]
    if needs_fields(arrangement):
        fields = await store.fields_by_id(tenant, list(scores))
        # One that was removed since it was found has no fields any more.
        entries = [Entry(each.id, fields[each.id], each.score) for each in entries if each.id in fields]
        entries = ordered(entries, arrangement.sort if arrangement.HasField("sort") else None)
    last = request.offset + request.limit
    if not arrangement.group_field:
        page = [each.id for each in entries[request.offset : last]]
        features = await _scored(store, tenant, request, page, scores)
        return embedder_pb2.SearchVectorsResponse(
            features=[features[each] for each in page if each in features], total=len(entries)
        )
    groups = grouped(entries, arrangement)
    answer = embedder_pb2.SearchVectorsResponse(total=len(groups))
    shown = groups[request.offset : last]
    features = await _scored(store, tenant, request, [each.id for group in shown for each in group.members], scores)
    for group in shown:
        members = [features[each.id] for each in group.members if each.id in features]
        ParseDict(group.value, answer.groups.add(field=arrangement.group_field, features=members).value)
    return answer


async def _scored(
    store: Store,
    tenant: Tenant,
    request: embedder_pb2.SearchVectorsRequest,
    feature_ids: Sequence[str],
    scores: Mapping[str, float],
) -> Mapping[str, feature_pb2.Feature]:
    features = await store.features_by_id(tenant, feature_ids, include_vectors=request.include_vectors)
    for feature_id, feature in features.items():
        feature.score = scores[feature_id]
    return features


async def _one(
    nearest: Nearest,
    embed: Embed,
    tenant: Tenant,
    request: embedder_pb2.SearchVectorsRequest,
    position: int,
    condition: Condition,
) -> list[Hit]:
    query = request.queries[position]
    try:
        vector = await embed(query.input)
    except LensmeshError as error:
        raise at(f"queries.{position}", error) from error
    hits = await nearest.features(tenant, vector, request.collection_ids, condition, query.limit)
    return [hit for hit in hits if hit.score >= query.min_score]
