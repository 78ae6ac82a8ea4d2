"""Between the contracts' messages and what the engine takes and gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from google.protobuf.json_format import MessageToDict
from lensmesh.v1 import engine_pb2, match_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline

from services.percolator.engine import (
    NEVER_NS,
    Asset,
    Dense,
    Engine,
    IntegerProduct,
    Matched,
    Probe,
    Space,
    Sparse,
    Stats,
)
from services.percolator.records import dense_of, is_sparse, space_of, sparse_of, to_domain


def asset_of(job: pipeline.PercolateJob) -> Asset:
    """The asset of a job."""
    dense: dict[Space, list[Dense]] = defaultdict(list)
    sparse: dict[Space, list[Sparse]] = defaultdict(list)
    for vector in job.vectors:
        if is_sparse(vector):
            sparse[space_of(vector)].append(sparse_of(vector))
        else:
            dense[space_of(vector)].append(dense_of(vector))
    document = {
        "collection_id": job.collection_id,
        "asset_id": job.asset_id,
        "feature_id": job.feature_id,
        # A job of an older version has none.
        "modality": job.modality or "image",
        "metadata": MessageToDict(job.metadata),
    }
    return Asset(job.collection_id, document, dense, sparse)


def probe_of(asset: engine_pb2.PercolatedAsset) -> Probe:
    """An asset to be matched."""
    return Probe(asset_of(asset.job), asset.min_score, asset.limit)


def stats_of(stats: Stats, ms: float) -> match_pb2.PercolationStats:
    """What matching came to."""
    return match_pb2.PercolationStats(
        stored=stats.stored,
        candidates=stats.candidates,
        evaluated=stats.evaluated,
        filtered=stats.filtered,
        matched=stats.matched,
        ms=ms,
    )


def found_queries(matched: Matched, ms: float) -> engine_pb2.FoundQueries:
    """What an asset matches, with what a match says of its stored query."""
    answer = engine_pb2.FoundQueries(stats=stats_of(matched.stats, ms))
    for each in matched.found:
        found = answer.found.add(
            percolator_id=each.percolator_id,
            score=each.score,
            query_scores=each.query_scores,
            vector_indexes=each.indexes,
        )
        found.MergeFromString(each.payload)
    return answer


def joined(parts: Sequence[engine_pb2.FoundQueries], limit: int) -> engine_pb2.FoundQueries:
    """What several replicas found for one asset, as one would have: no stored query is with two of them."""
    found = sorted((each for part in parts for each in part.found), key=lambda each: (-each.score, each.percolator_id))
    stats = match_pb2.PercolationStats(ms=max(part.stats.ms for part in parts))
    for name in ("stored", "candidates", "evaluated", "filtered", "matched"):
        setattr(stats, name, sum(getattr(part.stats, name) for part in parts))
    return engine_pb2.FoundQueries(found=found[:limit], stats=stats)


def scored(record: engine_pb2.StoredQueryRecord, jobs: Sequence[pipeline.PercolateJob]) -> list[engine_pb2.AssetScore]:
    """Each asset's score by one stored query, whatever its threshold and whether it is enabled; filters count."""
    query = to_domain(record)._replace(min_score=0.0, enabled=True, expires_ns=NEVER_NS, payload=b"")
    engine = Engine(IntegerProduct())
    engine.put([query])
    matched = engine.match([Probe(asset_of(job), limit=1) for job in jobs])
    return [
        engine_pb2.AssetScore(
            satisfies=bool(each.found),
            score=each.found[0].score if each.found else 0.0,
            query_scores=each.found[0].query_scores if each.found else (),
        )
        for each in matched
    ]
