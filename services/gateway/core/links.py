"""Links to images that work without a key for a while: signed with a secret of the mesh (HMAC-SHA256).

What a link leads to is checked when it is followed; here is only who may follow it, and until when.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time

from lensmesh.v1 import embedder_pb2, embedder_pb2_grpc
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from services.gateway.config import GatewaySettings
from services.mesh.blobs import BlobStore
from services.mesh.bus import topology
from services.mesh.bus.topology import Bus
from services.mesh.errors import NotFound
from services.mesh.tenancy import Tenant

# Where the REST door serves what links lead to.
PATH = "/previews"
_SECRET_KEY = "links"
_SECRET_BYTES = 32


class Links:
    """Makes and follows links."""

    def __init__(
        self,
        secret: bytes,
        embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub,
        blobs: BlobStore,
        settings: GatewaySettings,
    ) -> None:
        self._secret = secret
        self._embedder = embedder
        self._blobs = blobs
        self._settings = settings

    @classmethod
    async def open(
        cls,
        bus: Bus,
        embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub,
        blobs: BlobStore,
        settings: GatewaySettings,
    ) -> Links:
        """Read the secret that all gateways share; the first one makes it."""
        bucket = await bus.bucket(topology.SECRETS)
        try:
            secret = (await bucket.get(_SECRET_KEY)).value
        except KeyNotFoundError:
            secret = secrets.token_bytes(_SECRET_BYTES)
            try:
                await bucket.create(_SECRET_KEY, secret)
            except KeyWrongLastSequenceError:
                secret = (await bucket.get(_SECRET_KEY)).value
        return cls(secret or b"", embedder, blobs, settings)

    def to(self, tenant: Tenant, asset_id: str) -> str:
        """A link to an asset's image: a path of the REST door, behind its public address when that is set."""
        expires = int(time.time() + self._settings.link_s)
        signature = self._signature(tenant, asset_id, expires)
        path = f"{PATH}/{tenant.namespace_id}/{asset_id}?expires={expires}&signature={signature}"
        return self._settings.public_url.rstrip("/") + path

    async def follow(self, namespace_id: str, asset_id: str, expires: str, signature: str) -> bytes:
        """The image behind a link, JPEG or PNG.

        Raises:
            NotFound: the link is not one of ours, is no longer good, or its image is gone.
        """
        gone = NotFound("this link is not valid (any more); ask for the asset with return_url again")
        tenant = Tenant(namespace_id)
        if not expires.isdecimal() or int(expires) < time.time():
            raise gone
        if not hmac.compare_digest(self._signature(tenant, asset_id, int(expires)).encode(), signature.encode()):
            raise gone
        answer = await self._embedder.ReadAsset(
            embedder_pb2.ReadAssetRequest(namespace_id=namespace_id, asset_id=asset_id)
        )
        return await self._blobs.get(tenant.image(answer.asset.file_hash))

    def _signature(self, tenant: Tenant, asset_id: str, expires: int) -> str:
        signed = f"{tenant.namespace_id}/{asset_id}/{expires}".encode()
        digest = hmac.new(self._secret, signed, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
