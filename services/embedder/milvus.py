"""Milvus behind a small interface: collections made when first written, upserts of many callers sent together.

Which rows mean what, `store` knows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from pymilvus import AsyncMilvusClient, DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from services.embedder.config import MilvusSettings
from services.mesh.errors import Unavailable

log = structlog.get_logger()

# Milvus' own error codes: the collection does not exist; it is not loaded (Lite forgets that when it restarts).
_NO_COLLECTION = frozenset({4, 100})
_NOT_LOADED = 101
_GRPC_OPTIONS = {
    # Lite answers pymilvus' default pings, one in 10 s, with GOAWAY.
    "grpc.keepalive_time_ms": 300_000,
    # A restarted server is found again within a second; gRPC's own longest wait is two minutes.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of a collection beside `id`: strings, the JSON `metadata`, and one vector."""

    # Of at most 255 characters.
    strings: tuple[str, ...]
    # Dimensions of the dense vector; 0: a sparse one.
    dim: int
    # Of at most 65,535 bytes.
    texts: tuple[str, ...] = ()
    integers: tuple[str, ...] = ()
    # Whether searches must find the nearest rows for certain: all are compared, no index is asked.
    exact: bool = False


@dataclass(slots=True)
class _Pending:
    rows: dict[str, Row] = field(default_factory=dict)
    written: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True)
class _Unflushed:
    rows: int = 0
    written_at: float = 0.0


class Milvus:
    """A connection to Milvus or Milvus Lite."""

    def __init__(self, uri: str, settings: MilvusSettings) -> None:
        # pymilvus logs every error it raises with a stack trace; ours are logged where they are handled.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        self._uri = uri
        self._settings = settings
        self._client: AsyncMilvusClient | None = None
        self._known: set[str] = set()
        self._creating = asyncio.Lock()
        self._pending: dict[str, _Pending] = {}
        self._sending: set[str] = set()
        # Batches whose wait is over while an upsert to their collection runs.
        self._due: dict[str, list[_Pending]] = defaultdict(list)
        # When each collection was last asked to take rows.
        self._asked: dict[str, float] = {}
        self._unflushed: dict[str, _Unflushed] = defaultdict(_Unflushed)

    async def ping(self) -> None:
        """Raise unless the server answers."""
        await self._call(lambda client: client.list_collections())

    async def upsert(self, collection: str, schema: Schema | None, rows: Sequence[Row]) -> None:
        """Write rows; returns when they are stored. Rows of concurrent callers share a call.

        Args:
            schema: how the collection is made when there is none; None: the rows were read from it.
        """
        if schema and collection not in self._known:
            await self._create(collection, schema)
        joined: dict[int, _Pending] = {}
        wait_s = self._wait_s(collection)
        for row in rows:
            pending = self._pending.get(collection)
            if pending is None or len(pending.rows) >= self._settings.batch_rows_max:
                pending = self._pending[collection] = _Pending()
                asyncio.get_running_loop().call_later(wait_s, self._send_soon, collection, pending)
            pending.rows[row["id"]] = row
            joined[id(pending)] = pending
        for pending in joined.values():
            # Shielded: one caller that is cancelled must not cancel the others' write.
            await asyncio.shield(pending.written)

    async def search(
        self, collection: str, vector: Any, *, metric: str, limit: int, expression: str, fields: Sequence[str]
    ) -> list[dict[str, Any]]:
        """The nearest rows, best first; none when nothing was ever written."""
        result = await self._call(
            lambda client: client.search(
                collection,
                data=[vector],
                anns_field="vector",
                search_params={"metric_type": metric},
                limit=limit,
                filter=expression,
                output_fields=list(fields),
                consistency_level="Strong",
            ),
            collection=collection,
            absent=[[]],
        )
        return list(result[0])

    async def query(
        self, collection: str, expression: str, fields: Sequence[str], limit: int = 1_000
    ) -> list[dict[str, Any]]:
        """Rows by a filter, each primary key once."""
        rows = await self._call(
            lambda client: client.query(
                collection,
                filter=expression,
                output_fields=list(fields),
                limit=limit,
                consistency_level="Strong",
            ),
            collection=collection,
            absent=[],
        )
        # After a crash Lite may show a row twice until its next flush.
        return list({row["id"]: dict(row) for row in rows}.values())

    async def count(self, collection: str, expression: str) -> int:
        """How many rows a filter selects."""
        rows = await self._call(
            lambda client: client.query(
                collection, filter=expression, output_fields=["count(*)"], consistency_level="Strong"
            ),
            collection=collection,
            absent=[{"count(*)": 0}],
        )
        return int(rows[0]["count(*)"])

    async def delete(self, collection: str, expression: str) -> None:
        """Remove the rows that a filter selects."""
        await self._call(
            lambda client: client.delete(collection, filter=expression), collection=collection, absent=None
        )

    async def names(self, prefix: str) -> list[str]:
        """The names of the collections that begin with a prefix."""
        return sorted(each for each in await self._call(lambda c: c.list_collections()) if each.startswith(prefix))

    async def drop(self, collection: str) -> None:
        """Remove a collection with all its rows."""
        self._known.discard(collection)
        self._unflushed.pop(collection, None)
        await self._call(lambda client: client.drop_collection(collection), collection=collection, absent=None)

    async def flush_regularly(self) -> None:
        """Flush collections that have gathered many rows, or are not written to any more; for ever."""
        while self._settings.flush_s:
            await asyncio.sleep(self._settings.flush_s)
            for collection, unflushed in list(self._unflushed.items()):
                quiet = time.monotonic() - unflushed.written_at >= self._settings.flush_s
                if unflushed.rows >= self._settings.flush_rows or quiet:
                    await self._flush(collection)

    async def _flush(self, collection: str) -> None:
        self._unflushed.pop(collection, None)
        try:
            await self._call(lambda client: client.flush(collection))
        except Unavailable as error:
            # Counted as written to again, so that it is tried again.
            self._unflushed[collection].written_at = time.monotonic()
            log.info("flush put off", error=str(error))

    async def close(self) -> None:
        """Disconnect."""
        if self._client:
            await self._client.close()

    def _wait_s(self, collection: str) -> float:
        """How long rows wait for company: not at all when nobody wrote here a moment ago, for then nobody will soon."""
        now, longest_s = time.monotonic(), self._settings.batch_wait_ms / 1e3
        alone = now - self._asked.get(collection, -longest_s) >= longest_s
        self._asked[collection] = now
        return 0.0 if alone else longest_s

    def _send_soon(self, collection: str, pending: _Pending) -> None:
        if collection in self._sending:
            # One upsert a collection at a time: until it is done, the next one gathers rows.
            self._due[collection].append(pending)
            return
        if self._pending.get(collection) is pending:
            del self._pending[collection]
        self._sending.add(collection)
        task = asyncio.get_running_loop().create_task(self._send(collection, list(pending.rows.values())))
        task.add_done_callback(lambda done: _settle(pending.written, done))

    async def _send(self, collection: str, rows: list[Row]) -> None:
        try:
            await self._call(lambda client: client.upsert(collection, rows), collection=collection)
        finally:
            self._sending.discard(collection)
            for pending in self._due.pop(collection, []):
                self._send_soon(collection, pending)
        unflushed = self._unflushed[collection]
        unflushed.rows += len(rows)
        unflushed.written_at = time.monotonic()

    async def _call(
        self, call: Callable[[AsyncMilvusClient], Awaitable[Any]], *, collection: str = "", absent: Any = ...
    ) -> Any:
        """One call with a deadline.

        Args:
            collection: the collection that is loaded when it turns out not to be.
            absent: what to answer when the collection does not exist.

        Raises:
            Unavailable: the server does not answer, or refuses.
        """
        if self._client is None:
            self._client = AsyncMilvusClient(self._uri, grpc_options=_GRPC_OPTIONS)
        try:
            return await asyncio.wait_for(call(self._client), timeout=self._settings.call_s_max)
        except TimeoutError:
            raise Unavailable("Milvus does not answer in time") from None
        except MilvusException as error:
            if error.code in _NO_COLLECTION:
                # Dropped behind our back: made again before the next write.
                self._known.discard(collection)
                if absent is not ...:
                    return absent
            if error.code == _NOT_LOADED and collection:
                await self._in_thread(_load_collection, self._uri, collection)
                return await self._call(call, absent=absent)
            log.debug("milvus refused", code=error.code, error=error.message[:300])
            raise Unavailable(f"Milvus does not take the request now (code {error.code})") from error
        except Exception as error:
            log.warning("milvus not answering", error=str(error)[:300] or type(error).__name__)
            raise Unavailable("Milvus does not answer") from error

    async def _in_thread(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run a change of the schema with the synchronous client. Raises Unavailable."""
        try:
            await asyncio.wait_for(asyncio.to_thread(function, *arguments), timeout=self._settings.call_s_max)
        except Exception as error:
            log.warning("milvus schema call failed", call=function.__name__, error=str(error)[:300])
            raise Unavailable("Milvus does not answer") from error

    async def _create(self, collection: str, schema: Schema) -> None:
        async with self._creating:
            if collection not in self._known:
                await self._in_thread(_create_collection, self._uri, collection, schema)
                self._known.add(collection)


def _settle(future: asyncio.Future[None], task: asyncio.Task[None]) -> None:
    if future.done():
        return
    error = task.exception()
    if error:
        future.set_exception(error)
        # Whoever waited may have been cancelled meanwhile; the error is not lost on anybody then.
        future.exception()
    else:
        future.set_result(None)


def _load_collection(uri: str, name: str) -> None:
    client = MilvusClient(uri, grpc_options=_GRPC_OPTIONS)
    try:
        client.load_collection(name)
    finally:
        client.close()


def _create_collection(uri: str, name: str, schema: Schema) -> None:
    # The synchronous client: the asynchronous one needs a call for new indexes that Lite does not have.
    client = MilvusClient(uri, grpc_options=_GRPC_OPTIONS)
    try:
        if client.has_collection(name):
            client.load_collection(name)
            return
        columns = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        columns.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
        for string in schema.strings:
            columns.add_field(string, DataType.VARCHAR, max_length=255)
        for text in schema.texts:
            columns.add_field(text, DataType.VARCHAR, max_length=65_535)
        for integer in schema.integers:
            columns.add_field(integer, DataType.INT64)
        columns.add_field("metadata", DataType.JSON)
        index = MilvusClient.prepare_index_params()
        if schema.dim:
            columns.add_field("vector", DataType.FLOAT_VECTOR, dim=schema.dim)
            index.add_index("vector", index_type="FLAT" if schema.exact else "AUTOINDEX", metric_type="COSINE")
        else:
            columns.add_field("vector", DataType.SPARSE_FLOAT_VECTOR)
            index.add_index("vector", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
        client.create_collection(name, schema=columns, index_params=index, consistency_level="Strong")
        client.load_collection(name)
    finally:
        client.close()
