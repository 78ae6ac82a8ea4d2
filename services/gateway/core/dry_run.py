"""Which stored assets a stored query would have matched: embedder has their vectors, percolator gives the scores."""

from __future__ import annotations

from collections.abc import Sequence

from lensmesh.v1 import embedder_pb2, embedder_pb2_grpc, engine_pb2, engine_pb2_grpc
from lensmesh.v1 import percolator_pb2 as api
from lensmesh.v1 import pipeline_pb2 as pipeline

from services.gateway.auth import Caller
from services.gateway.config import GatewaySettings

LIMIT_DEFAULT = 100
BINS = 20
# Features that are scored by one call.
_TOGETHER = 1_000
# Scores have six decimals: in millionths they are whole, and no bin's edge is missed by a rounding.
_MILLIONTHS = 1_000_000


class DryRun:
    """Tries stored queries on what is stored."""

    def __init__(
        self,
        engine: engine_pb2_grpc.PercolatorEngineServiceAsyncStub,
        embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub,
        settings: GatewaySettings,
    ) -> None:
        self._engine = engine
        self._embedder = embedder
        self._settings = settings

    async def run(self, caller: Caller, request: api.DryRunStoredQueryRequest) -> api.DryRunStoredQueryResponse:
        """Score every feature of the stored query's collections, part by part."""
        namespace_id = caller.tenant.namespace_id
        known = await self._engine.ReadStoredQuery(
            engine_pb2.ReadStoredQueryRequest(namespace_id=namespace_id, percolator_id=request.percolator_id)
        )
        stored = known.stored_query
        spaces = {(each.vector_index, each.model_version) for each in known.vectors}
        scan = self._embedder.ScanFeatureVectors(
            embedder_pb2.ScanFeatureVectorsRequest(
                namespace_id=namespace_id,
                collection_ids=stored.collection_ids,
                spaces=[
                    embedder_pb2.VectorSpace(vector_index=index, model_version=version)
                    for index, version in sorted(spaces)
                ],
                limit=self._settings.dry_run_features_max,
            )
        )
        min_score = request.min_score if request.HasField("min_score") else stored.min_score
        tally = _Tally(stored, min_score, request.limit or LIMIT_DEFAULT)
        truncated = False
        try:
            async for part in scan:
                truncated = truncated or part.truncated
                for start in range(0, len(part.features), _TOGETHER):
                    some = part.features[start : start + _TOGETHER]
                    tally.add(some, await self._scores(namespace_id, request.percolator_id, some))
        finally:
            scan.cancel()
        return tally.answer(truncated)

    async def _scores(
        self, namespace_id: str, percolator_id: str, features: Sequence[embedder_pb2.ScannedFeature]
    ) -> Sequence[engine_pb2.AssetScore]:
        answer = await self._engine.ScoreAssets(
            engine_pb2.ScoreAssetsRequest(
                namespace_id=namespace_id, percolator_id=percolator_id, assets=[_job(each) for each in features]
            )
        )
        return answer.scores


class _Tally:
    """The best results so far, and the counts of all."""

    def __init__(self, stored: api.StoredQuery, min_score: float, limit: int) -> None:
        self._indexes = [each.vector_index for each in stored.queries]
        self._min_score = min_score
        self._limit = limit
        self._best: list[api.DryRunResult] = []
        self._bins = [0] * BINS
        self._matched = 0

    def add(self, features: Sequence[embedder_pb2.ScannedFeature], scores: Sequence[engine_pb2.AssetScore]) -> None:
        for feature, score in zip(features, scores, strict=True):
            if not score.satisfies:
                continue
            self._bins[min(round(score.score * _MILLIONTHS) * BINS // _MILLIONTHS, BINS - 1)] += 1
            if score.score >= self._min_score:
                self._matched += 1
                self._best.append(self._result(feature, score))
        self._best.sort(key=lambda each: (-each.score, each.feature_id))
        del self._best[self._limit :]

    def answer(self, truncated: bool) -> api.DryRunStoredQueryResponse:
        histogram = [
            api.ScoreBin(low=number / BINS, high=(number + 1) / BINS, count=count)
            for number, count in enumerate(self._bins)
        ]
        return api.DryRunStoredQueryResponse(
            results=self._best,
            matched=self._matched,
            evaluated=sum(self._bins),
            truncated=truncated,
            histogram=histogram,
        )

    def _result(self, feature: embedder_pb2.ScannedFeature, score: engine_pb2.AssetScore) -> api.DryRunResult:
        result = api.DryRunResult(
            asset_id=feature.asset_id,
            feature_id=feature.feature_id,
            collection_id=feature.collection_id,
            score=score.score,
            metadata=feature.metadata,
        )
        for index, each in zip(self._indexes, score.query_scores, strict=True):
            result.query_scores.add(vector_index=index, score=each)
        return result


def _job(feature: embedder_pb2.ScannedFeature) -> pipeline.PercolateJob:
    return pipeline.PercolateJob(
        asset_id=feature.asset_id,
        feature_id=feature.feature_id,
        collection_id=feature.collection_id,
        metadata=feature.metadata,
        vectors=feature.vectors,
        modality=feature.modality,
    )
