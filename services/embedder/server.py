"""Puts the embedder together."""

from __future__ import annotations

import asyncio

from lensmesh.v1 import embedder_pb2_grpc

from services.embedder.config import EmbedderWorkerSettings, MilvusSettings
from services.embedder.documents import Documents
from services.embedder.milvus import Milvus
from services.embedder.servicer import EmbedderServicer
from services.embedder.store import Store
from services.embedder.vectors import Vectors
from services.embedder.work import EmbedderWork
from services.mesh.blobs import NatsBlobStore
from services.mesh.bus.tasks import TaskStore
from services.mesh.bus.worker import Worker
from services.mesh.config import load
from services.mesh.models import ModelSet, TritonModels, TritonSettings
from services.mesh.rpc import RpcServer
from services.mesh.service import Frame, Parts


async def build(frame: Frame) -> Parts:
    """The service's parts."""
    models = TritonModels(frame.mesh.triton_address, load(TritonSettings))
    vectors = Vectors(models, ModelSet.read(frame.mesh.model_set))
    settings = load(MilvusSettings)
    milvus = Milvus(frame.mesh.milvus_uri, settings)
    blobs = await NatsBlobStore.open(frame.bus)
    store = Store(milvus, Documents(blobs), vectors, settings)
    tasks = await TaskStore.open(frame.bus)
    rpc = RpcServer(frame.rpc)
    rpc.add_servicer(
        embedder_pb2_grpc.add_EmbedderServiceServicer_to_server,
        EmbedderServicer(vectors, store),
        "lensmesh.v1.EmbedderService",
    )
    flushing = asyncio.create_task(milvus.flush_regularly())

    async def close() -> None:
        flushing.cancel()
        await milvus.close()
        await models.close()

    return Parts(
        rpc=rpc,
        rpc_address=frame.mesh.embedder_address,
        pings={
            "nats": frame.bus.ping,
            "triton": lambda: models.ready(vectors.model_names()),
            "milvus": milvus.ping,
        },
        runnables=[Worker(frame.bus, tasks, EmbedderWork(vectors, store, blobs), load(EmbedderWorkerSettings))],
        closers=[close],
    )
