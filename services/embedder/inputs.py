"""Embeds what an asset is made of: texts, and images from the blob store, each image read once.

Which versions are wanted, the caller says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from lensmesh.v1 import embedder_pb2, feature_pb2

from services.embedder import keywords
from services.embedder.vectors import KEYWORD, Index, Vectors
from services.mesh.blobs import BlobStore
from services.mesh.tenancy import Tenant


def info_of(vector: embedder_pb2.NamedVector) -> feature_pb2.VectorInfo:
    """What a feature says of a vector that it has."""
    return feature_pb2.VectorInfo(
        field_name=vector.field_name,
        vector_index=vector.embedded.vector_index,
        model_version=vector.embedded.model_version,
        input=vector.input,
    )


def words_of_metadata(metadata: Struct, versions: Sequence[str]) -> list[embedder_pb2.NamedVector]:
    """The keyword vector of the metadata's own words, of each version; none when there are no words."""
    text = keywords.words_of(MessageToDict(metadata))
    vector = keywords.encode_document(text)
    if not vector.indices:
        return []
    return [
        embedder_pb2.NamedVector(
            field_name=keywords.METADATA,
            embedded=embedder_pb2.EmbeddedVector(vector_index=KEYWORD, model_version=version, vector=vector),
            input=feature_pb2.VectorInput(text=text),
        )
        for version in versions
    ]


class Inputs:
    """The inputs of one asset."""

    def __init__(self, vectors: Vectors, blobs: BlobStore, tenant: Tenant) -> None:
        self._vectors = vectors
        self._blobs = blobs
        self._tenant = tenant
        self._images: dict[str, asyncio.Task[bytes]] = {}

    async def vector(
        self, index: Index, field_name: str, given: feature_pb2.VectorInput, version: str
    ) -> embedder_pb2.NamedVector:
        """The vector of one input.

        Raises:
            NotFound: the image is not stored any more.
            LensmeshError: as `Vectors.of_text` and `Vectors.of_image`.
        """
        if given.image_sha256:
            image = await self._image(given.image_sha256)
            if given.landmarks:
                embedded = await self._vectors.of_face(image, given.landmarks, version)
            else:
                embedded = await self._vectors.of_image(index, image, version, given.text)
        else:
            embedded = await self._vectors.of_text(index, given.text, version)
        return embedder_pb2.NamedVector(field_name=field_name, embedded=embedded, input=given)

    async def _image(self, sha256: str) -> bytes:
        if sha256 not in self._images:
            self._images[sha256] = asyncio.create_task(self._blobs.get(self._tenant.image(sha256)))
        # Shielded: several vectors may wait for one image, and one of them giving up must not take it from the others.
        return await asyncio.shield(self._images[sha256])
