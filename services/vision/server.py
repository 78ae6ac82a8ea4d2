"""Puts the vision service together."""

from __future__ import annotations

from functools import partial

from lensmesh.v1 import embedder_pb2_grpc, vision_pb2_grpc

from services.mesh.blobs import NatsBlobStore
from services.mesh.bus import topology
from services.mesh.bus.tasks import TaskStore
from services.mesh.bus.worker import Worker
from services.mesh.config import load
from services.mesh.models import ModelSet, TritonModels, TritonSettings
from services.mesh.rpc import RpcServer, channel
from services.mesh.service import Frame, Parts
from services.vision.acquire import Acquirer, AcquireSettings
from services.vision.analyse import Analyser, AnalyseSettings
from services.vision.claims import Claims
from services.vision.config import VisionWorkerSettings
from services.vision.copies import Copies
from services.vision.logos import Logos, LogoSettings
from services.vision.marks import Marks
from services.vision.servicer import VisionServicer
from services.vision.vlm import Vlm, VlmSettings
from services.vision.work import VisionWork

ROLES = ("ocr", "caption", "faces", "logos", "structure")


async def build(frame: Frame) -> Parts:
    """The service's parts. Returns when all uploaded logos are loaded: none is ever missed."""
    model_set = ModelSet.read(frame.mesh.model_set)
    models = TritonModels(frame.mesh.triton_address, load(TritonSettings))
    names = [name for role in ROLES for name in model_set.roles[role].models]
    acquirer = Acquirer(load(AcquireSettings))
    await acquirer.warm()
    blobs = await NatsBlobStore.open(frame.bus)
    tasks = await TaskStore.open(frame.bus)
    vlm = Vlm.of(load(VlmSettings))
    logos = await Logos.open(frame.bus, blobs, acquirer, Marks(models, model_set), load(LogoSettings))
    analyser = Analyser(models, model_set, logos, load(AnalyseSettings), vlm)
    embedder = channel(frame.mesh.embedder_address, frame.rpc)
    stub = embedder_pb2_grpc.EmbedderServiceStub(embedder)
    claims = Claims(frame.bus, await frame.bus.bucket(topology.CLAIMS), tasks, stub)
    copies = Copies(tasks, stub, analyser, logos)
    work = VisionWork(tasks, acquirer, claims, copies, blobs, analyser)
    rpc = RpcServer(frame.rpc)
    rpc.add_servicer(
        vision_pb2_grpc.add_VisionServiceServicer_to_server,
        VisionServicer(acquirer, blobs, analyser, logos, claims),
        "lensmesh.v1.VisionService",
    )
    return Parts(
        rpc=rpc,
        rpc_address=frame.mesh.vision_address,
        pings={"nats": frame.bus.ping, "triton": lambda: models.ready(names), "uploaded logos": logos.ping},
        runnables=[Worker(frame.bus, tasks, work, load(VisionWorkerSettings))],
        closers=[
            logos.close,
            acquirer.close,
            models.close,
            partial(embedder.close, None),
            *([vlm.close] if vlm else []),
        ],
    )
