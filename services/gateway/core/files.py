"""Files that requests bring along, uploaded or inline: they move to the blob store before anything is recorded."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from google.protobuf.json_format import MessageToJson
from google.protobuf.struct_pb2 import Struct
from lensmesh.v1 import namespace_pb2

from services.gateway.auth import Caller
from services.gateway.config import GatewaySettings
from services.gateway.spool import Incoming, SpooledFile
from services.mesh.blobs import BlobStore
from services.mesh.errors import InvalidArgument, PayloadTooLarge
from services.mesh.tenancy import Tenant

_DATA_URL = re.compile(r"^data:[^,;]*(;[^,;]*)*;base64,", re.IGNORECASE)
_FILE_ID = re.compile(r"[0-9a-f]{64}")


class Files:
    """Stores and finds files."""

    def __init__(self, blobs: BlobStore, settings: GatewaySettings) -> None:
        self._blobs = blobs
        self._settings = settings

    async def upload(
        self, caller: Caller, request: namespace_pb2.UploadFileRequest | Incoming
    ) -> namespace_pb2.UploadFileResponse:
        """Store a file: one that comes with the request, or the bytes in its message."""
        if isinstance(request, Incoming):
            file = self.checked(request.file, "content")
            await self._blobs.put_file(caller.tenant.blob(file.sha256), file.file, file.size_bytes)
            return namespace_pb2.UploadFileResponse(file_id=file.sha256, size_bytes=file.size_bytes)
        file_id = await self.store(caller.tenant, request.content, "content")
        return namespace_pb2.UploadFileResponse(file_id=file_id, size_bytes=len(request.content))

    def checked(self, file: SpooledFile, path: str) -> SpooledFile:
        """The file. Raises InvalidArgument for one without bytes."""
        if not file.size_bytes:
            raise InvalidArgument.field(path, "is required: the file has no bytes", "required")
        return file

    async def keep_upload(self, tenant: Tenant, file: SpooledFile) -> None:
        """Store a file that is to be indexed."""
        await self._blobs.put_file(tenant.upload(file.sha256), file.file, file.size_bytes)

    async def store(self, tenant: Tenant, content: bytes, path: str) -> str:
        """Store content; returns the file's id, its SHA-256."""
        if len(content) > self._settings.file_bytes_max:
            limit = self._settings.file_bytes_max
            raise PayloadTooLarge(f"{path}: the file has {len(content)} bytes; at most {limit} are taken")
        file_id = hashlib.sha256(content).hexdigest()
        await self._blobs.put(tenant.blob(file_id), content)
        return file_id

    async def read(self, tenant: Tenant, file_id: str) -> bytes:
        """The content of a stored file. Raises NotFound."""
        return await self._blobs.get(tenant.blob(file_id))

    async def check(self, tenant: Tenant, file_id: str, path: str) -> None:
        """Raise InvalidArgument unless a file of that id is stored in the namespace."""
        if not _FILE_ID.fullmatch(file_id) or not await self._blobs.exists(tenant.blob(file_id)):
            raise InvalidArgument.field(path, "is not the id of an uploaded file in this namespace", "file.id")

    def check_metadata(self, metadata: Struct) -> None:
        """Raise InvalidArgument for metadata that is too large to be kept in a record."""
        size, limit = len(MessageToJson(metadata, indent=None)), self._settings.metadata_bytes_max
        if size > limit:
            raise InvalidArgument.field("metadata", f"has {size} bytes as JSON; at most {limit}", "metadata.bytes")

    def decode(self, text: str, path: str) -> bytes:
        """The bytes of base64 text, bare or as a data: URL. Raises InvalidArgument."""
        try:
            content = base64.b64decode(_DATA_URL.sub("", text, count=1), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidArgument.field(path, "is neither base64 nor a base64 data: URL", "base64") from None
        if not content:
            raise InvalidArgument.field(path, "holds no bytes", "base64.empty")
        if len(content) > self._settings.file_bytes_max:
            limit = self._settings.file_bytes_max
            raise PayloadTooLarge(f"{path}: the file has {len(content)} bytes; at most {limit} are taken")
        return content
