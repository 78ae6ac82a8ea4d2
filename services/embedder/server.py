"""Puts the embedder together."""

from __future__ import annotations

import asyncio

from lensmesh.v1 import embedder_pb2_grpc

from services.embedder.changes import Changes
from services.embedder.config import EmbedderWorkerSettings, LeftoverSettings, MilvusSettings, ReembedSettings
from services.embedder.documents import Documents
from services.embedder.generations import Generations
from services.embedder.leftovers import Leftovers
from services.embedder.listing import Listing
from services.embedder.milvus import Milvus
from services.embedder.nearest import Nearest
from services.embedder.reembed import Reembed
from services.embedder.servicer import EmbedderServicer
from services.embedder.store import Store
from services.embedder.vectors import Vectors
from services.embedder.work import EmbedderWork
from services.mesh.blobs import NatsBlobStore
from services.mesh.bus import topology
from services.mesh.bus.tasks import TaskStore
from services.mesh.bus.worker import Worker
from services.mesh.config import load
from services.mesh.models import ModelSet, TritonModels, TritonSettings
from services.mesh.rpc import RpcServer
from services.mesh.service import Frame, Parts


async def build(frame: Frame) -> Parts:
    """The service's parts."""
    models = TritonModels(frame.mesh.triton_address, load(TritonSettings))
    mesh = frame.mesh
    before = [ModelSet.read(name) for name in mesh.model_sets_before.split(",") if name]
    vectors = Vectors(models, ModelSet.read(mesh.model_set), before)
    generations = await Generations.open(frame.bus, vectors)
    milvus = Milvus(mesh.milvus_uri, load(MilvusSettings))
    blobs = await NatsBlobStore.open(frame.bus)
    store = Store(milvus, Documents(blobs), vectors, generations)
    noted = await frame.bus.bucket(topology.LEFTOVERS)
    leftovers = Leftovers(frame.bus, noted, store, blobs, load(LeftoverSettings))
    changes = Changes(milvus, store, generations, leftovers)
    reembed = Reembed(vectors, generations, store, blobs, load(ReembedSettings))
    tasks = await TaskStore.open(frame.bus)
    rpc = RpcServer(frame.rpc)
    rpc.add_servicer(
        embedder_pb2_grpc.add_EmbedderServiceServicer_to_server,
        EmbedderServicer(vectors, generations, store, Nearest(milvus, store), Listing(store), changes, reembed),
        "lensmesh.v1.EmbedderService",
    )
    work = EmbedderWork(vectors, generations, store, changes, blobs)
    regular = [asyncio.create_task(each) for each in (milvus.flush_regularly(), leftovers.remove_regularly())]

    async def close() -> None:
        for each in regular:
            each.cancel()
        await generations.close()
        await milvus.close()
        await models.close()

    return Parts(
        rpc=rpc,
        rpc_address=mesh.embedder_address,
        pings={
            "nats": frame.bus.ping,
            "generations": generations.ping,
            "triton": lambda: models.ready(vectors.model_names()),
            "milvus": milvus.ping,
        },
        runnables=[Worker(frame.bus, tasks, work, load(EmbedderWorkerSettings))],
        closers=[close],
    )
