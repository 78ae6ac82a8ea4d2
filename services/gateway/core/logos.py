"""A namespace's own logos; the vision service owns them."""

from __future__ import annotations

from typing import Literal

import grpc
from lensmesh.v1 import logo_pb2, vision_pb2, vision_pb2_grpc

from services.gateway.auth import Caller
from services.gateway.core.files import Files
from services.gateway.core.index import url_problem
from services.gateway.core.paging import page_of, pagination
from services.mesh.errors import (
    BrokenImage,
    FetchFailed,
    FetchRefused,
    FetchUnavailable,
    FieldViolation,
    FileTooLarge,
    InvalidArgument,
    UnsupportedMediaType,
    at,
)
from services.mesh.rpc import from_rpc_error

# Where the image may come from: a request gives exactly one.
_SOURCES: tuple[Literal["image", "url", "file_id"], ...] = ("image", "url", "file_id")
# What is wrong with the image, and so with the field that it came by.
_IMAGE_ERRORS = (BrokenImage, FetchFailed, FetchRefused, FetchUnavailable, FileTooLarge, UnsupportedMediaType)


class Logos:
    """The uploaded logos of the caller's namespace."""

    def __init__(self, vision: vision_pb2_grpc.VisionServiceAsyncStub, files: Files) -> None:
        self._vision = vision
        self._files = files

    async def create(self, caller: Caller, request: logo_pb2.CreateLogoRequest) -> logo_pb2.CreateLogoResponse:
        """Store a logo: when this returns, new images are matched against it."""
        given = _checked(request)
        put = vision_pb2.PutLogoRequest(namespace_id=caller.tenant.namespace_id, name=request.name)
        if given == "image":
            put.source.content = self._files.decode(request.image, given)
        elif given == "url":
            put.source.url = request.url
        else:
            await self._files.check(caller.tenant, request.file_id, given)
            put.source.blob_key = caller.tenant.blob(request.file_id)
        try:
            answer = await self._vision.PutLogo(put)
        except grpc.aio.AioRpcError as error:
            known = from_rpc_error(error, "vision")
            raise (at(given, known) if isinstance(known, _IMAGE_ERRORS) else known) from error
        return logo_pb2.CreateLogoResponse(logo=answer.logo)

    async def list(self, caller: Caller, request: logo_pb2.ListLogosRequest) -> logo_pb2.ListLogosResponse:
        """List logos, oldest first."""
        offset, size = page_of(request.page, request.page_size)
        answer = await self._vision.ScanLogos(
            vision_pb2.ScanLogosRequest(namespace_id=caller.tenant.namespace_id, offset=offset, limit=size)
        )
        return logo_pb2.ListLogosResponse(results=answer.logos, pagination=pagination(answer.total, offset, size))

    async def get(self, caller: Caller, request: logo_pb2.GetLogoRequest) -> logo_pb2.GetLogoResponse:
        """Read a logo."""
        answer = await self._vision.ReadLogo(
            vision_pb2.ReadLogoRequest(namespace_id=caller.tenant.namespace_id, logo_id=request.logo_id)
        )
        return logo_pb2.GetLogoResponse(logo=answer.logo)

    async def delete(self, caller: Caller, request: logo_pb2.DeleteLogoRequest) -> logo_pb2.DeleteLogoResponse:
        """Delete a logo: when this returns, new images are not matched against it any more."""
        await self._vision.RemoveLogo(
            vision_pb2.RemoveLogoRequest(namespace_id=caller.tenant.namespace_id, logo_id=request.logo_id)
        )
        return logo_pb2.DeleteLogoResponse(logo_id=request.logo_id, deleted=True)


def _checked(request: logo_pb2.CreateLogoRequest) -> str:
    """The field that the image comes by. Raises InvalidArgument with all violations."""
    violations = []
    if not request.name.strip():
        violations.append(FieldViolation.of("name", "must not be blank", "string.blank"))
    given = [name for name in _SOURCES if request.HasField(name)]
    if not given:
        violations.append(FieldViolation.of("image", "is required; or one of url and file_id", "logo.source"))
    elif len(given) > 1:
        message = f"exactly one of {', '.join(_SOURCES)} is taken"
        violations += [FieldViolation.of(name, message, "logo.source") for name in given]
    elif given == ["url"] and (problem := url_problem(request.url)):
        violations.append(FieldViolation.of("url", problem, "url.parts"))
    if violations:
        raise InvalidArgument(violations)
    return given[0]
