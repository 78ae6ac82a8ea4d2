"""Gives many stored queries their vectors: those that came along where they will do, else new ones, many in a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
import numpy as np
from lensmesh.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc, feature_pb2, namespace_pb2, percolator_pb2

from services.gateway.auth import Caller
from services.gateway.core.queries import Queries, check_index
from services.mesh.errors import InternalError, InvalidArgument, LensmeshError, Unavailable, at
from services.mesh.json_names import enum_names
from services.mesh.rpc import from_rpc_error

# Inputs of one call, by its contract; and their bytes, as images are among them.
_INPUTS_MAX = 64
_INPUT_BYTES_MAX = 8_000_000
# Calls, and images that vision fetches, at a time of one import.
_CALLS_MAX = 4
_IMAGES_MAX = 8
# How far a vector's length may be from one and count as one: float32 as models and JSON give it.
_UNIT_TOLERANCE = 1e-6

ItemT = TypeVar("ItemT")


@dataclass(slots=True)
class Pending:
    """A stored query on its way."""

    # Its number among the lines, from 1.
    line: int
    wanted: percolator_pb2.PortableStoredQuery
    collection_ids: list[str] = field(default_factory=list)
    # One for each query; None: to be made.
    vectors: list[embedder_pb2.EmbeddedVector | None] = field(default_factory=list)
    error: LensmeshError | None = None


def passes(error: LensmeshError) -> bool:
    """Whether an error is the mesh's own trouble, and not of one line: then it ends the import."""
    return isinstance(error, Unavailable | InternalError)


def chunks(
    items: Sequence[ItemT], count_max: int, bytes_max: int, size_of: Callable[[ItemT], int]
) -> Iterator[list[ItemT]]:
    """Cut a list into pieces of at most so many items and, unless one alone has more, so many bytes."""
    piece: list[ItemT] = []
    size = 0
    for item in items:
        item_bytes = size_of(item)
        if piece and (len(piece) >= count_max or size + item_bytes > bytes_max):
            yield piece
            piece, size = [], 0
        piece.append(item)
        size += item_bytes
    if piece:
        yield piece


class Vectoring:
    """Fills in vectors."""

    def __init__(self, embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub, queries: Queries) -> None:
        self._embedder = embedder
        self._queries = queries

    async def fill(self, caller: Caller, pending: Sequence[Pending]) -> None:
        """Fill in the vectors of stored queries; what can't be done becomes that one's error.

        Raises:
            LensmeshError: as `passes`.
        """
        answer = await self._embedder.DescribeIndexes(
            embedder_pb2.DescribeIndexesRequest(namespace_id=caller.tenant.namespace_id)
        )
        for each in pending:
            try:
                each.vectors = _taken(caller, each.wanted, answer.lasting)
            except LensmeshError as error:
                each.error = error
        inputs = await self._inputs(caller, [each for each in pending if each.error is None])
        free = asyncio.Semaphore(_CALLS_MAX)

        async def embed(some: list[_Missing]) -> None:
            async with free:
                await self._embed(caller, some)

        pieces = chunks(inputs, _INPUTS_MAX, _INPUT_BYTES_MAX, lambda each: each.input.ByteSize())
        await asyncio.gather(*map(embed, pieces))

    async def _inputs(self, caller: Caller, pending: Sequence[Pending]) -> list[_Missing]:
        """What is to be embedded."""
        free = asyncio.Semaphore(_IMAGES_MAX)

        async def one(each: Pending, position: int) -> _Missing | None:
            try:
                async with free:
                    given = await self._queries.input(caller, each.wanted.queries[position], f"queries.{position}")
            except LensmeshError as error:
                if passes(error):
                    raise
                each.error = error
                return None
            return _Missing(each, position, given)

        missing = [(each, n) for each in pending for n, vector in enumerate(each.vectors) if vector is None]
        return [made for made in await asyncio.gather(*(one(*each) for each in missing)) if made]

    async def _embed(self, caller: Caller, some: list[_Missing]) -> None:
        try:
            answer = await self._embedder.EmbedInputs(
                embedder_pb2.EmbedInputsRequest(
                    inputs=[each.input for each in some], namespace_id=caller.tenant.namespace_id, lasting=True
                )
            )
        except grpc.aio.AioRpcError as error:
            known = from_rpc_error(error, "embedder")
            if passes(known):
                raise known from error
            if len(some) == 1:
                some[0].pending.error = at(f"queries.{some[0].position}", known)
                return
            # One of them is refused: which one, each says by itself.
            for each in some:
                await self._embed(caller, [each])
            return
        for each, vector in zip(some, answer.vectors, strict=True):
            each.pending.vectors[each.position] = vector


@dataclass(frozen=True, slots=True)
class _Missing:
    """A vector to be made."""

    pending: Pending
    position: int
    input: embedder_pb2.EmbedInput


def _taken(
    caller: Caller, wanted: percolator_pb2.PortableStoredQuery, kinds: Mapping[str, namespace_pb2.VectorIndexKind]
) -> list[embedder_pb2.EmbeddedVector | None]:
    """For each query the vector that came along; None where it has to be made."""
    if wanted.vectors and len(wanted.vectors) != len(wanted.queries):
        problem = f"are {len(wanted.vectors)} for {len(wanted.queries)} queries; give one each, or none"
        raise InvalidArgument.field("vectors", problem, "vectors.count")
    taken: list[embedder_pb2.EmbeddedVector | None] = []
    for position, query in enumerate(wanted.queries):
        check_index(caller, query, f"queries.{position}")
        vector = None
        # Keyword vectors are made anew: that costs nothing, and is right whatever made the old ones.
        if wanted.vectors and query.vector_index != common_pb2.VECTOR_INDEX_KEYWORD:
            kind = kinds.get(enum_names(common_pb2.VectorIndex.DESCRIPTOR)[query.vector_index])
            given = wanted.vectors[position]
            if kind is not None and kind.model_version == given.model_version and kind.size:
                vector = _checked(query, given, kind.size, f"vectors.{position}.vector")
        taken.append(vector)
    return taken


def _checked(
    query: feature_pb2.SearchQuery, given: percolator_pb2.ExportedVector, size: int, path: str
) -> embedder_pb2.EmbeddedVector:
    dense = given.vector.dense
    if len(dense) != 4 * size:
        raise InvalidArgument.field(path, f"has {len(dense) / 4:g} dimensions; the index has {size}", "vector.dim")
    values = np.frombuffer(dense, dtype="<f4").astype(np.float64)
    length = float(np.linalg.norm(values))
    if not np.isfinite(length) or length == 0:
        raise InvalidArgument.field(path, "must be finite and not all zeros", "vector.length")
    if abs(length - 1) > _UNIT_TOLERANCE:
        dense = (values / length).astype("<f4").tobytes()
    return embedder_pb2.EmbeddedVector(
        vector_index=query.vector_index, model_version=given.model_version, vector=common_pb2.Vector(dense=dense)
    )
