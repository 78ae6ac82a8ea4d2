"""The last hop: match the new vectors, store the matches, close the task.

How matching works, `engine` knows; where matches go, `matches`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from itertools import accumulate

from google.protobuf.json_format import MessageToDict
from lensmesh.v1 import match_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline

from services.mesh.bus import topology
from services.mesh.bus.tasks import Versioned, close_task, now
from services.mesh.bus.worker import Outcome
from services.mesh.extractors import done
from services.mesh.tenancy import Tenant, derived_uuid
from services.percolator.engine import Asset, Dense, Found, Space, Sparse
from services.percolator.matches import Matches
from services.percolator.registry import Registry, dense_of, is_sparse, space_of, sparse_of

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

    def __init__(self, registry: Registry, matches: Matches) -> None:
        self._registry = registry
        self._matches = matches

    async def run(self, known: Versioned, attempt: int, last_attempt: bool) -> Outcome:
        """Match one asset."""
        record, job = known.record, known.record.percolate
        tenant = Tenant(record.namespace_id)
        started = time.perf_counter()
        wanted = record.request.percolate
        found = self._registry.engine(tenant).match(
            _asset(job),
            wanted.min_score if wanted.HasField("min_score") else None,
            wanted.max_candidates or CANDIDATES_DEFAULT,
        )
        stored = await self._matches.store(tenant, [self._match(tenant, record, each) for each in found])
        shown = _fitting(stored)
        note = None
        if len(shown) < len(stored):
            note = f"{len(stored)} matches in all; the task shows the best {len(shown)}, the listing of matches all"
        step = done((time.perf_counter() - started) * 1e3, attempt, note)

        def apply(changed: pipeline.TaskRecord) -> None:
            changed.task.steps["percolate"].CopyFrom(step)
            del changed.task.matches[:]
            changed.task.matches.extend(shown)
            close_task(changed)

        return Outcome(apply)

    async def abandon(self, record: pipeline.TaskRecord) -> None:
        """Nothing is held: the asset is stored, and its matches stay."""

    def _match(self, tenant: Tenant, record: pipeline.TaskRecord, found: Found) -> match_pb2.Match:
        job = record.percolate
        stored = self._registry.get(tenant, found.percolator_id).stored_query
        match = match_pb2.Match(
            match_id=derived_uuid("match", tenant.namespace_id, found.percolator_id, job.asset_id, job.feature_id),
            percolator_id=found.percolator_id,
            asset_id=job.asset_id,
            feature_id=job.feature_id,
            collection_id=job.collection_id,
            task_id=record.task.task_id,
            score=found.score,
            metadata=stored.metadata,
            created_at=now(),
        )
        for query, score in zip(stored.queries, found.query_scores, strict=True):
            match.query_scores.add(vector_index=query.vector_index, score=score)
        return match


def _fitting(found: list[match_pb2.Match]) -> list[match_pb2.Match]:
    """The first ones that a task's record has room for: their metadata are the caller's, and may be large."""
    sizes = accumulate(each.ByteSize() for each in found)
    return found[: sum(size <= MATCH_BYTES_MAX for size in sizes)]


def _asset(job: pipeline.PercolateJob) -> Asset:
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
