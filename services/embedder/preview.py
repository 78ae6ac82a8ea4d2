"""The vectors that an asset would get if it were indexed now; nothing is stored.

How an asset that is indexed gets them, `work` knows.
"""

from __future__ import annotations

import asyncio

from lensmesh.v1 import embedder_pb2

from services.embedder.generations import Generations
from services.embedder.inputs import words_of_metadata
from services.embedder.vectors import KEYWORD, Vectors
from services.mesh.errors import LensmeshError, at
from services.mesh.tenancy import Tenant


async def asset_vectors(
    vectors: Vectors, generations: Generations, request: embedder_pb2.EmbedAssetRequest
) -> list[embedder_pb2.EmbeddedVector]:
    """Every vector of the asset.

    Raises:
        LensmeshError: an input can't be embedded; the path names which.
    """
    tenant = Tenant(request.namespace_id)

    async def of_input(position: int, given: embedder_pb2.EmbedInput) -> list[embedder_pb2.EmbeddedVector]:
        try:
            return await _of_input(vectors, generations, tenant, given)
        except LensmeshError as error:
            raise at(f"inputs.{position}", error) from None

    made = await asyncio.gather(*(of_input(position, each) for position, each in enumerate(request.inputs)))
    found = [each for several in made for each in several]
    if any(each.vector_index == KEYWORD for each in found):
        # As an asset that is found by words is by those of its metadata.
        words = words_of_metadata(request.metadata, generations.written(tenant, KEYWORD))
        found += [each.embedded for each in words]
    return found


async def _of_input(
    vectors: Vectors, generations: Generations, tenant: Tenant, given: embedder_pb2.EmbedInput
) -> list[embedder_pb2.EmbeddedVector]:
    index, kind = given.vector_index, given.WhichOneof("input")
    if kind == "vector":
        # It is of one model only; which one, nobody says.
        return [vectors.given(index, given.vector, generations.lasting(tenant, index))]
    versions = generations.written(tenant, index)
    if kind == "text":
        return list(await asyncio.gather(*(vectors.of_text(index, given.text, each) for each in versions)))
    return list(await asyncio.gather(*(vectors.of_image(index, given.image, each) for each in versions)))
