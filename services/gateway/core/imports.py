"""Stores many queries that come one after the other: checked, embedded and stored in batches, in the order they came.

While one batch is stored, the next one is read and embedded; there are never more, so that a caller who sends faster is
held back. How far it is goes to the caller beside that, and never holds it up: some listen only when all is sent.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import grpc
from lensmesh.v1 import embedder_pb2_grpc, engine_pb2, engine_pb2_grpc
from lensmesh.v1 import percolator_pb2 as api

from services.gateway.auth import Caller
from services.gateway.config import GatewaySettings
from services.gateway.core.collections import Collections
from services.gateway.core.deliveries import Deliveries
from services.gateway.core.files import Files
from services.gateway.core.queries import Queries
from services.gateway.core.stored import check, check_vectors, full, most, record_of
from services.gateway.core.vectoring import Pending, Vectoring, chunks, passes
from services.mesh.errors import LensmeshError
from services.mesh.rpc import from_rpc_error

# A batch is full with so many lines or bytes, or when its first line has waited so long.
_LINES_MAX = 500
_BATCH_BYTES_MAX = 8_000_000
_BATCH_S_MAX = 0.5
# Progress is told after so many lines or failures, or so much time.
_TELL_LINES = 500
_TELL_S = 1.0
# Stored queries of one call, by its contract; and their bytes.
_RECORDS_MAX = 1_000
_RECORD_BYTES_MAX = 10_000_000
# By its contract.
_FAILURES_A_MESSAGE = 100
# Failures that wait for a caller who does not listen, some 300 bytes each.
_FAILURES_KEPT_MAX = 10_000

# The number of a line, from 1, and what stands there or why that can't be read.
Line: TypeAlias = tuple[int, api.PortableStoredQuery | LensmeshError]


class Imports:
    """Imports stored queries into the caller's namespace."""

    def __init__(
        self,
        engine: engine_pb2_grpc.PercolatorEngineServiceAsyncStub,
        embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub,
        queries: Queries,
        collections: Collections,
        files: Files,
        deliveries: Deliveries,
        settings: GatewaySettings,
    ) -> None:
        self.engine = engine
        self.vectoring = Vectoring(embedder, queries)
        self.queries = queries
        self.collections = collections
        self.files = files
        self.deliveries = deliveries
        self.settings = settings

    async def run(
        self, caller: Caller, lines: AsyncIterator[Sequence[Line]]
    ) -> AsyncIterator[api.ImportStoredQueriesResponse]:
        """Import; yields how far it is. Closing it ends the import, and what was stored stays."""
        return _Import(self, caller, lines).progress()


class _Import:
    """One import."""

    def __init__(self, parts: Imports, caller: Caller, lines: AsyncIterator[Sequence[Line]]) -> None:
        self._parts = parts
        self._caller = caller
        self._lines = lines
        self._collection_ids: dict[str, str] = {}
        self._read = self._stored = self._failed = 0
        self._told_at = 0
        self._failures: deque[api.ImportFailure] = deque()
        self._due = asyncio.Event()

    async def progress(self) -> AsyncIterator[api.ImportStoredQueriesResponse]:
        """The counts now and then, and at the end."""
        work = asyncio.create_task(self._work())
        try:
            while not work.done():
                due = asyncio.create_task(self._due.wait())
                await asyncio.wait({work, due}, timeout=_TELL_S, return_when=asyncio.FIRST_COMPLETED)
                due.cancel()
                if not work.done():
                    yield self._told()
            while len(self._failures) > _FAILURES_A_MESSAGE:
                yield self._told()
            if work.exception():
                # What was stored before it broke.
                yield self._told()
                work.result()
            yield self._told(finished=True)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    def _told(self, *, finished: bool = False) -> api.ImportStoredQueriesResponse:
        self._told_at = self._read
        some = [self._failures.popleft() for _ in range(min(_FAILURES_A_MESSAGE, len(self._failures)))]
        if len(self._failures) < _FAILURES_A_MESSAGE:
            self._due.clear()
        return api.ImportStoredQueriesResponse(
            read=self._read, stored=self._stored, failed=self._failed, failures=some, finished=finished
        )

    async def _work(self) -> None:
        storing: asyncio.Task[None] | None = None
        batches = self._batches()
        try:
            async for batch in batches:
                pending = await self._prepare(batch)
                if storing:
                    await storing
                storing = asyncio.create_task(self._store(pending))
            if storing:
                await storing
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "backing") from error
        finally:
            if storing:
                storing.cancel()
                await asyncio.gather(storing, return_exceptions=True)
            await batches.aclose()

    async def _batches(self) -> AsyncGenerator[list[Line]]:
        """The lines in batches; a caller who sends slowly is not kept waiting for a full one."""
        batch: list[Line] = []
        size, until = 0, 0.0
        arriving: asyncio.Task[Sequence[Line] | None] | None = None
        try:
            while True:
                arriving = arriving or asyncio.ensure_future(anext(self._lines, None))
                timeout = max(0.0, until - time.monotonic()) if batch else None
                await asyncio.wait({arriving}, timeout=timeout)
                if arriving.done():
                    part, arriving = arriving.result(), None
                    if part is None:
                        break
                    until = until if batch else time.monotonic() + _BATCH_S_MAX
                    batch += part
                    size += sum(0 if isinstance(each, LensmeshError) else each.ByteSize() for _, each in part)
                    if len(batch) < _LINES_MAX and size < _BATCH_BYTES_MAX:
                        continue
                yield batch
                batch, size = [], 0
            if batch:
                yield batch
        finally:
            if arriving:
                arriving.cancel()

    async def _prepare(self, batch: Sequence[Line]) -> list[Pending]:
        """The stored queries of a batch with their collections and vectors; those that are refused are told of."""
        pending = []
        for number, line in batch:
            if isinstance(line, LensmeshError):
                self._fail(number, line)
                continue
            try:
                self._parts.deliveries.check(line)
                check(line, self._parts.files)
                ids = [await self._collection_id(name, n) for n, name in enumerate(line.collection_ids)]
            except LensmeshError as error:
                self._fail(number, error)
                continue
            pending.append(Pending(number, line, ids))
        self._read += len(batch)
        if self._read - self._told_at >= _TELL_LINES:
            self._due.set()
        if pending:
            await self._parts.vectoring.fill(self._caller, pending)
        return pending

    async def _collection_id(self, name: str, position: int) -> str:
        if name not in self._collection_ids:
            path = f"collection_ids.{position}"
            self._collection_ids[name] = await self._parts.collections.find_or_create(self._caller, name, path)
        return self._collection_ids[name]

    async def _store(self, pending: Sequence[Pending]) -> None:
        """Store those that can be, each in the place of one with its id; tell of the others."""
        known, room = await self._known(pending), await self._room()
        records: list[engine_pb2.StoredQueryRecord] = []
        for each in pending:
            try:
                records.append(await self._record(each, known, room))
            except LensmeshError as error:
                if passes(error):
                    raise
                self._fail(each.line, error)
        for some in chunks(records, _RECORDS_MAX, _RECORD_BYTES_MAX, lambda each: each.ByteSize()):
            await self._parts.engine.PutStoredQueries(engine_pb2.PutStoredQueriesRequest(records=some))
            self._stored += len(some)

    async def _record(
        self, pending: Pending, known: dict[str, engine_pb2.KnownStoredQuery], room: _Room
    ) -> engine_pb2.StoredQueryRecord:
        if pending.error is not None:
            raise pending.error
        wanted = pending.wanted
        vectors = [each for each in pending.vectors if each is not None]
        check_vectors(wanted.queries, vectors)
        percolator_id = wanted.percolator_id or str(uuid.uuid4())
        kept = await self._parts.queries.kept(self._caller, wanted.queries)
        record = record_of(self._caller, wanted, percolator_id, pending.collection_ids, kept, vectors)
        if percolator_id not in known:
            room.take()
            known[percolator_id] = engine_pb2.KnownStoredQuery(created_at=record.stored_query.created_at)
        before = known[percolator_id]
        record.stored_query.created_at.CopyFrom(before.created_at)
        if wanted.HasField("delivery"):
            self._parts.deliveries.put(record, wanted)
        elif before.HasField("delivery"):
            # Exports leave it out: importing one must not take it away. Without its secret it goes on as it was.
            record.stored_query.delivery.CopyFrom(before.delivery)
        return record

    async def _known(self, pending: Sequence[Pending]) -> dict[str, engine_pb2.KnownStoredQuery]:
        """Those that are there already, by id."""
        given = [each.wanted.percolator_id for each in pending if each.wanted.percolator_id]
        if not given:
            return {}
        answer = await self._parts.engine.FindStoredQueries(
            engine_pb2.FindStoredQueriesRequest(
                namespace_id=self._caller.tenant.namespace_id, percolator_ids=dict.fromkeys(given)
            )
        )
        return dict(answer.known)

    async def _room(self) -> _Room:
        answer = await self._parts.engine.ScanStoredQueries(
            engine_pb2.ScanStoredQueriesRequest(namespace_id=self._caller.tenant.namespace_id)
        )
        return _Room(answer.total, most(self._caller, self._parts.settings))

    def _fail(self, line: int, error: LensmeshError) -> None:
        self._failed += 1
        if len(self._failures) < _FAILURES_KEPT_MAX:
            self._failures.append(api.ImportFailure(line=line, type=error.type, message=error.message))
        if len(self._failures) >= _FAILURES_A_MESSAGE:
            self._due.set()


@dataclass(slots=True)
class _Room:
    """How many stored queries there are, and may be."""

    count: int
    limit: int

    def take(self) -> None:
        """Count one more. Raises QuotaExceeded."""
        if self.count >= self.limit:
            raise full(self.count, self.limit)
        self.count += 1
