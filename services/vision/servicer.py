"""The gRPC door of vision: a translator without logic."""

from __future__ import annotations

from typing import Any

from lensmesh.v1 import vision_pb2, vision_pb2_grpc

from services.mesh.blobs import BlobStore
from services.mesh.errors import NotFound
from services.mesh.tenancy import Tenant
from services.vision.acquire import Acquirer, NormalisedImage
from services.vision.analyse import Analyser
from services.vision.claims import Claims
from services.vision.logos import Logos
from services.vision.work import image_ref


class VisionServicer(vision_pb2_grpc.VisionServiceServicer):
    """Serves lensmesh.v1.VisionService."""

    def __init__(self, acquirer: Acquirer, blobs: BlobStore, analyser: Analyser, logos: Logos, claims: Claims) -> None:
        self._claims = claims
        self._acquirer = acquirer
        self._blobs = blobs
        self._analyser = analyser
        self._logos = logos

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
        tenant = Tenant(request.namespace_id)
        image = await self._acquire(tenant, request.source)
        analysis = await self._analyser.analyse(tenant, image.content, request.feature_extractors)
        return vision_pb2.AnalyseImageResponse(image=image_ref(image), analysis=analysis.found, steps=analysis.steps)

    async def PutLogo(self, request: vision_pb2.PutLogoRequest, context: Any) -> vision_pb2.PutLogoResponse:
        """Store a logo."""
        tenant = Tenant(request.namespace_id)
        content = await self._file(tenant, request.source)
        return vision_pb2.PutLogoResponse(logo=await self._logos.put(tenant, request.name, content))

    async def ScanLogos(self, request: vision_pb2.ScanLogosRequest, context: Any) -> vision_pb2.ScanLogosResponse:
        """List logos."""
        logos = self._logos.all(Tenant(request.namespace_id))
        page = logos[request.offset : request.offset + request.limit]
        return vision_pb2.ScanLogosResponse(logos=page, total=len(logos))

    async def ReadLogo(self, request: vision_pb2.ReadLogoRequest, context: Any) -> vision_pb2.ReadLogoResponse:
        """Read a logo."""
        return vision_pb2.ReadLogoResponse(logo=self._logos.get(Tenant(request.namespace_id), request.logo_id))

    async def RemoveLogo(self, request: vision_pb2.RemoveLogoRequest, context: Any) -> vision_pb2.RemoveLogoResponse:
        """Remove a logo."""
        await self._logos.remove(Tenant(request.namespace_id), request.logo_id)
        return vision_pb2.RemoveLogoResponse()

    async def ForgetNamespace(
        self, request: vision_pb2.VisionServiceForgetNamespaceRequest, context: Any
    ) -> vision_pb2.VisionServiceForgetNamespaceResponse:
        """Remove logos and claims."""
        tenant = Tenant(request.namespace_id)
        await self._logos.forget(tenant)
        await self._claims.forget(tenant)
        return vision_pb2.VisionServiceForgetNamespaceResponse()

    async def _acquire(self, tenant: Tenant, source: vision_pb2.ImageSource) -> NormalisedImage:
        return await self._acquirer.from_bytes(await self._file(tenant, source))

    async def _file(self, tenant: Tenant, source: vision_pb2.ImageSource) -> bytes:
        kind = source.WhichOneof("source")
        if kind == "url":
            return await self._acquirer.fetch(source.url)
        if kind == "content":
            return source.content
        if not tenant.owns_blob(source.blob_key):
            raise NotFound("no such file in this namespace")
        return await self._blobs.get(source.blob_key)
