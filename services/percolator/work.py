"""The last hop: match the new vectors, store the matches, close the task.

How matching works, `engine` knows; where matches go, `matches`.
"""

from __future__ import annotations

import time
from itertools import accumulate

from lensmesh.v1 import engine_pb2, match_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline

from services.mesh.bus import topology
from services.mesh.bus.tasks import Versioned, close_task, now
from services.mesh.bus.worker import Outcome
from services.mesh.extractors import done
from services.mesh.tenancy import Tenant, derived_uuid
from services.percolator.matcher import Matcher
from services.percolator.matches import Matches

# api default of percolate.max_candidates.
CANDIDATES_DEFAULT = 100
# Bytes of matches in a task's record; with the request, which has at most 200 kB, it fits NATS' 1 MB.
MATCH_BYTES_MAX = 500_000


class PercolatorWork:
    """What the percolator does with a task."""

    hop = topology.PERCOLATOR
    needs = pipeline.STAGE_STORED
    finishes = pipeline.STAGE_CLOSED
    step = "percolate"

    def __init__(self, matcher: Matcher, matches: Matches) -> None:
        self._matcher = matcher
        self._matches = matches

    async def run(self, known: Versioned, attempt: int, last_attempt: bool) -> Outcome:
        """Match one asset."""
        record, wanted = known.record, known.record.request.percolate
        tenant = Tenant(record.namespace_id)
        started = time.perf_counter()
        asset = engine_pb2.PercolatedAsset(job=record.percolate, limit=wanted.max_candidates or CANDIDATES_DEFAULT)
        if wanted.HasField("min_score"):
            asset.min_score = wanted.min_score
        answer = await self._matcher.match(tenant, asset)
        stored = await self._matches.store(tenant, [_match(tenant, record, each) for each in answer.found])
        shown = _fitting(stored)
        note = None
        if len(shown) < len(stored):
            note = f"{len(stored)} matches in all; the task shows the best {len(shown)}, the listing of matches all"
        step = done((time.perf_counter() - started) * 1e3, attempt, note)
        step.stats.CopyFrom(answer.stats)

        def apply(changed: pipeline.TaskRecord) -> None:
            changed.task.steps["percolate"].CopyFrom(step)
            del changed.task.matches[:]
            changed.task.matches.extend(shown)
            close_task(changed)

        return Outcome(apply)

    async def abandon(self, record: pipeline.TaskRecord) -> None:
        """Nothing is held: the asset is stored, and its matches stay."""


def _match(tenant: Tenant, record: pipeline.TaskRecord, found: engine_pb2.FoundQuery) -> match_pb2.Match:
    job = record.percolate
    match = match_pb2.Match(
        match_id=derived_uuid("match", tenant.namespace_id, found.percolator_id, job.asset_id, job.feature_id),
        percolator_id=found.percolator_id,
        asset_id=job.asset_id,
        feature_id=job.feature_id,
        collection_id=job.collection_id,
        task_id=record.task.task_id,
        score=found.score,
        metadata=found.metadata,
        created_at=now(),
    )
    for index, score in zip(found.vector_indexes, found.query_scores, strict=True):
        match.query_scores.add(vector_index=index, score=score)
    return match


def _fitting(found: list[match_pb2.Match]) -> list[match_pb2.Match]:
    """The first ones that a task's record has room for: their metadata are the caller's, and may be large."""
    sizes = accumulate(each.ByteSize() for each in found)
    return found[: sum(size <= MATCH_BYTES_MAX for size in sizes)]
