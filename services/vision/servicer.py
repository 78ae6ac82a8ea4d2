"""The gRPC door of vision: a translator without logic."""

from __future__ import annotations

from typing import Any

from lensmesh.v1 import vision_pb2, vision_pb2_grpc

from services.mesh.blobs import BlobStore
from services.mesh.errors import NotFound
from services.mesh.tenancy import Tenant
from services.vision.acquire import Acquirer, NormalisedImage
from services.vision.analyse import Analyser
from services.vision.work import image_ref


class VisionServicer(vision_pb2_grpc.VisionServiceServicer):
    """Serves lensmesh.v1.VisionService."""

    def __init__(self, acquirer: Acquirer, blobs: BlobStore, analyser: Analyser) -> None:
        self._acquirer = acquirer
        self._blobs = blobs
        self._analyser = analyser

    async def AcquireImage(
        self, request: vision_pb2.AcquireImageRequest, context: Any
    ) -> vision_pb2.AcquireImageResponse:
        """Fetch and normalise an image."""
        image = await self._acquire(Tenant(request.namespace_id), request.source)
        return vision_pb2.AcquireImageResponse(image=image_ref(image), content=image.content)

    async def AnalyseImage(
        self, request: vision_pb2.AnalyseImageRequest, context: Any
    ) -> vision_pb2.AnalyseImageResponse:
        """Fetch an image and say what it shows."""
        image = await self._acquire(Tenant(request.namespace_id), request.source)
        analysis = await self._analyser.analyse(image.content, request.feature_extractors)
        return vision_pb2.AnalyseImageResponse(image=image_ref(image), analysis=analysis.found, steps=analysis.steps)

    async def _acquire(self, tenant: Tenant, source: vision_pb2.ImageSource) -> NormalisedImage:
        kind = source.WhichOneof("source")
        if kind == "url":
            return await self._acquirer.from_url(source.url)
        if kind == "content":
            return await self._acquirer.from_bytes(source.content)
        if not tenant.owns_blob(source.blob_key):
            raise NotFound("no such file in this namespace")
        return await self._acquirer.from_bytes(await self._blobs.get(source.blob_key))
