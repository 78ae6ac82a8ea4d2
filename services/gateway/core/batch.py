"""Several images in one request: each is taken or refused as if it had come alone."""

from __future__ import annotations

import asyncio

import grpc
from google.protobuf.struct_pb2 import Value
from lensmesh.v1 import index_pb2

from services.gateway.auth import Caller
from services.gateway.core.index import Index
from services.mesh.errors import InvalidArgument, LensmeshError
from services.mesh.rpc import as_lensmesh_error, from_rpc_error
from services.mesh.validation import validate

# Items under way at a time: each waits for NATS three times.
_CONCURRENCY = 16


class Batch:
    """Takes batches."""

    def __init__(self, index: Index) -> None:
        self._index = index

    async def index(self, caller: Caller, request: index_pb2.IndexBatchRequest) -> index_pb2.IndexBatchResponse:
        """Take every item that can be taken; one result each, in order."""
        free = asyncio.Semaphore(_CONCURRENCY)

        async def one(position: int, item: index_pb2.IndexImageRequest) -> index_pb2.BatchResult:
            async with free:
                try:
                    validate(item)
                    taken = await self._index.index_image(caller, item)
                except grpc.aio.AioRpcError as error:
                    return _refused(position, from_rpc_error(error, "backing"))
                except Exception as error:
                    return _refused(position, as_lensmesh_error(error, "IndexBatch"))
            return index_pb2.BatchResult(task_id=taken.task_id, message=taken.message)

        results = await asyncio.gather(*(one(position, item) for position, item in enumerate(request.items)))
        return index_pb2.IndexBatchResponse(results=results)


def _refused(position: int, error: LensmeshError) -> index_pb2.BatchResult:
    told = index_pb2.BatchError(message=error.message, type=error.type)
    told.details.update(error.details or {})
    if isinstance(error, InvalidArgument):
        for violation in error.violations:
            told.detail.add(loc=_place(position, *violation.path[1:]), msg=violation.message, type=violation.rule)
    else:
        told.detail.add(loc=_place(position), msg=error.message, type=error.type)
    return index_pb2.BatchResult(error=told)


def _place(position: int, *inside: str | int) -> list[Value]:
    return [
        Value(string_value=part) if isinstance(part, str) else Value(number_value=part)
        for part in ("body", "items", position, *inside)
    ]
