"""What was extracted from the same file before, so that no model has to be asked again.

Who has the file, `claims` knows; vectors and features are the embedder's, which is asked for them.
"""

from __future__ import annotations

import grpc
import structlog
from lensmesh.v1 import embedder_pb2, embedder_pb2_grpc, feature_pb2, index_pb2, task_pb2, vision_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline

from services.mesh.bus.tasks import TaskStore
from services.mesh.errors import NotFound
from services.mesh.extractors import effective, vision_steps
from services.mesh.tenancy import Tenant
from services.vision.analyse import Analyser
from services.vision.logos import Logos

log = structlog.get_logger()

# Seconds to wait for the embedder, whose reads take tenths: by then extracting anew would be done.
_ASK_S_MAX = 5.0
# The steps that name logos.
_SEE_LOGOS = frozenset({"logos", "json_output"})


class Copies:
    """Finds what can be copied."""

    def __init__(
        self,
        tasks: TaskStore,
        embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub,
        analyser: Analyser,
        logos: Logos,
    ) -> None:
        self._tasks = tasks
        self._embedder = embedder
        self._analyser = analyser
        self._logos = logos

    async def find(
        self, tenant: Tenant, extractors: index_pb2.FeatureExtractors, claim: pipeline.DuplicateClaim
    ) -> pipeline.EmbedJob | None:
        """The findings and vectors of the task that brought the file in.

        Args:
            extractors: what is asked for now; only the very same have the same outcome.

        Returns:
            A job of what is copied alone. None when that task asked for something else, failed or is not done yet; when
            what it stored is gone, or of models that are not in use any more; when it may show uploaded logos that are
            gone or lack ones that came since; and when the embedder does not answer, as copying is no help then.
        """
        try:
            theirs = (await self._tasks.read(tenant, claim.task_id)).record
        except NotFound:
            return None
        if theirs.task.status != task_pb2.TASK_STATUS_DONE or effective(theirs.request) != extractors:
            return None
        feature_id = theirs.task.outputs[0].feature_id
        try:
            answer = await self._embedder.ReadFeatureVectors(
                embedder_pb2.ReadFeatureVectorsRequest(namespace_id=tenant.namespace_id, feature_id=feature_id),
                timeout=_ASK_S_MAX,
            )
        except grpc.aio.AioRpcError as error:
            log.info("features not copied", asset=claim.asset_id, reason=error.details())
            return None
        steps = vision_steps(extractors)
        made_by = {step: self._analyser.made_by(step, extractors, is_text=theirs.is_text) for step in steps}
        if any(answer.feature.models[step] != version for step, version in made_by.items()):
            return None
        found = _analysis(answer.feature)
        own = [each.logo_id for each in found.detect.logos if each.HasField("logo_id")]
        sees_logos = not theirs.is_text and not _SEE_LOGOS.isdisjoint(steps)
        if sees_logos and not self._logos.unchanged(tenant, theirs.task.created_at, own):
            return None
        return pipeline.EmbedJob(analysis=found, copied_from=claim.asset_id, copied=answer.vectors)


def _analysis(feature: feature_pb2.Feature) -> vision_pb2.ImageAnalysis:
    """What was found, from where it was stored."""
    return vision_pb2.ImageAnalysis(
        text=feature.text if feature.HasField("text") else None,
        lines=feature.lines,
        description=feature.description if feature.HasField("description") else None,
        detect=feature.detect if feature.HasField("detect") else None,
        json_output=feature.json_output if feature.HasField("json_output") else None,
        models=feature.models,
    )
