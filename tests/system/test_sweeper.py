"""A gateway that dies between the record and the message loses no task."""

from __future__ import annotations

from lensmesh.v1 import index_pb2, task_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline

from runner.mesh import Mesh
from services.mesh.bus import topology
from services.mesh.bus.tasks import TaskStore, now
from services.mesh.bus.topology import BusSettings
from services.mesh.config import load
from services.mesh.tenancy import Tenant, namespace_id
from tests.conftest import Api, PhotoHost


async def test_a_recorded_task_that_was_never_dispatched_is_done(mesh: Mesh, api: Api, photos: PhotoHost) -> None:
    """A record alone, without its message, is found by the sweeper and goes through the mesh."""
    bus = await topology.connect(mesh.endpoints["nats_url"], "test", stream_replicas=1, settings=load(BusSettings))
    tenant = Tenant(namespace_id("default"))
    request = index_pb2.IndexImageRequest(url=photos.picture_url(4711), collection_id=tenant.collection_id("swept"))
    steps = {name: task_pb2.TaskStep(state=task_pb2.STEP_STATE_PENDING) for name in ("fetch", "embed", "store")}
    task = task_pb2.Task(
        task_id="never-dispatched",
        status=task_pb2.TASK_STATUS_QUEUED,
        steps=steps,
        created_at=now(),
        collection_id=request.collection_id,
    )
    record = pipeline.TaskRecord(
        namespace_id=tenant.namespace_id, task=task, stage=pipeline.STAGE_ACCEPTED, request=request
    )
    await (await TaskStore.open(bus)).create(tenant, record)
    await bus.close()
    finished = await api.finished("never-dispatched", within_s=30)
    assert "DONE" == finished["status"]
    assert finished["asset_id"]
