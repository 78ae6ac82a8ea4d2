"""Turns the queries of searches and stored queries into vectors: images through vision, all through embedder."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Mapping, Sequence

import grpc
from lensmesh.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc, feature_pb2, vision_pb2, vision_pb2_grpc

from services.gateway.auth import Caller
from services.gateway.core.files import Files
from services.mesh.errors import InvalidArgument, at
from services.mesh.json_names import enum_names
from services.mesh.rpc import from_rpc_error


class Queries:
    """Resolves queries."""

    def __init__(
        self,
        vision: vision_pb2_grpc.VisionServiceAsyncStub,
        embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub,
        files: Files,
    ) -> None:
        self._vision = vision
        self._embedder = embedder
        self._files = files

    async def vectors(
        self, caller: Caller, queries: Sequence[feature_pb2.SearchQuery], *, stored: bool = False
    ) -> list[embedder_pb2.EmbeddedVector]:
        """The vector of each query.

        Args:
            stored: whether the vectors are kept, to be compared with those of assets yet to come.

        Raises:
            InvalidArgument: a query can't be resolved; the path names which.
            LensmeshError: as vision and embedder answer.
        """
        made = await asyncio.gather(
            *(self.vector(caller, each, f"queries.{n}", stored=stored) for n, each in enumerate(queries))
        )
        return list(made)

    async def inputs(self, caller: Caller, queries: Sequence[feature_pb2.SearchQuery]) -> list[embedder_pb2.EmbedInput]:
        """What is to be embedded for each query. Raises as `vectors`."""
        return await self._inputs(caller, {f"queries.{n}": each for n, each in enumerate(queries)})

    async def kept(self, caller: Caller, queries: Sequence[feature_pb2.SearchQuery]) -> list[feature_pb2.SearchQuery]:
        """The queries as a record keeps them: an inline image becomes a file, and its value that file's id."""
        kept = []
        for position, query in enumerate(queries):
            one = feature_pb2.SearchQuery()
            one.CopyFrom(query)
            if query.type == feature_pb2.QUERY_TYPE_BASE64:
                path = f"queries.{position}.value"
                one.value = await self._files.store(caller.tenant, self._files.decode(query.value, path), path)
            kept.append(one)
        return kept

    async def restored(
        self, caller: Caller, queries: Sequence[feature_pb2.SearchQuery]
    ) -> list[feature_pb2.SearchQuery]:
        """The queries that `kept` was given.

        Raises:
            NotFound: an image is not stored any more.
        """
        restored = []
        for query in queries:
            one = feature_pb2.SearchQuery()
            one.CopyFrom(query)
            if query.type == feature_pb2.QUERY_TYPE_BASE64:
                one.value = base64.b64encode(await self._files.read(caller.tenant, query.value)).decode()
            restored.append(one)
        return restored

    async def vector(
        self, caller: Caller, query: feature_pb2.SearchQuery, path: str, *, stored: bool = False
    ) -> embedder_pb2.EmbeddedVector:
        """The vector of one query that stands in the request at a dotted path. Raises as `vectors`."""
        given = await self._inputs(caller, {path: query})
        try:
            answer = await self._embedder.EmbedInputs(
                embedder_pb2.EmbedInputsRequest(inputs=given, namespace_id=caller.tenant.namespace_id, lasting=stored)
            )
        except grpc.aio.AioRpcError as error:
            raise at(path, from_rpc_error(error, "embedder")) from error
        return answer.vectors[0]

    async def input(self, caller: Caller, query: feature_pb2.SearchQuery, path: str) -> embedder_pb2.EmbedInput:
        """What is to be embedded for one query that stands in the request at a dotted path. Raises as `vectors`."""
        return (await self._inputs(caller, {path: query}))[0]

    async def _inputs(
        self, caller: Caller, queries: Mapping[str, feature_pb2.SearchQuery]
    ) -> list[embedder_pb2.EmbedInput]:
        """What is to be embedded for queries by their dotted paths, images fetched all at once. Raises as `vectors`."""
        made = {path: self._given(caller, query, path) for path, query in queries.items()}
        images = [path for path, given in made.items() if not given.WhichOneof("input")]
        contents = await asyncio.gather(*(self._image(caller, queries[path], path) for path in images))
        for path, content in zip(images, contents, strict=True):
            made[path].image = content
        return list(made.values())

    def _given(self, caller: Caller, query: feature_pb2.SearchQuery, path: str) -> embedder_pb2.EmbedInput:
        """What is to be embedded, still without its image."""
        check_index(caller, query, path)
        given = embedder_pb2.EmbedInput(vector_index=query.vector_index)
        if query.type == feature_pb2.QUERY_TYPE_TEXT:
            given.text = query.value
        elif query.type == feature_pb2.QUERY_TYPE_VECTOR:
            given.vector.dense = struct.pack(f"<{len(query.vector)}f", *query.vector[:])
        return given

    async def _image(self, caller: Caller, query: feature_pb2.SearchQuery, path: str) -> bytes:
        source = vision_pb2.ImageSource()
        if query.type == feature_pb2.QUERY_TYPE_URL:
            source.url = query.value
        else:
            source.content = self._files.decode(query.value, f"{path}.value" if path else "value")
        try:
            acquired = await self._vision.AcquireImage(
                vision_pb2.AcquireImageRequest(namespace_id=caller.tenant.namespace_id, source=source)
            )
        except grpc.aio.AioRpcError as error:
            raise at(path, from_rpc_error(error, "vision")) from error
        return acquired.content


def check_index(caller: Caller, query: feature_pb2.SearchQuery, path: str) -> None:
    """Raise InvalidArgument unless the caller's namespace has the index of a query that stands at a dotted path."""
    if query.vector_index not in caller.namespace.vector_indexes:
        name = enum_names(common_pb2.VectorIndex.DESCRIPTOR)[query.vector_index]
        problem = InvalidArgument.field("vector_index", f"the namespace has no index {name!r}", "namespace.index")
        raise at(path, problem)
