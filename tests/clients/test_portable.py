"""Our clients import and export stored queries, try them, and match without indexing: REST and gRPC, both kinds."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from lensmesh.rest import inputs, outputs
from lensmesh.v1 import percolator_pb2

from lensmesh_client import AsyncGrpcClient, AsyncRestClient, GrpcClient, RestClient, errors
from runner.mesh import Mesh
from tests.clients.test_rest_client import QUERY, fits
from tests.conftest import Api


@pytest.fixture
async def rest(mesh: Mesh, tenant: Api) -> AsyncIterator[AsyncRestClient]:
    """The asynchronous client, in a namespace of this test's own."""
    key = tenant.http.headers["Authorization"].removeprefix("Bearer ")
    async with AsyncRestClient(mesh.rest_url, key) as client:
        yield client


@pytest.fixture
def blocking(mesh: Mesh, tenant: Api) -> Iterator[RestClient]:
    """The blocking client, in the same namespace."""
    key = tenant.http.headers["Authorization"].removeprefix("Bearer ")
    with RestClient(mesh.rest_url, key) as client:
        yield client


def lines(count: int) -> list[inputs.PortableStoredQuery]:
    """Stored queries as an import takes them; the metadata hold what Unicode calls the end of a line."""
    return [
        {
            "percolator_id": str(uuid.uuid4()),
            "collection_ids": ["c"],
            "queries": [QUERY],
            "metadata": {"n": n, "text": "a\u2028b\u0085c"},
        }
        for n in range(count)
    ]


def by_id(exported: list[Any]) -> dict[str, Any]:
    """Stored queries by their ids."""
    return {each["percolator_id"]: each for each in exported}


async def test_what_is_exported_is_imported(rest: AsyncRestClient) -> None:
    """Dictionaries from a list and from an asynchronous source are stored, exported line by line, and taken again."""
    given = lines(3)
    told = [each async for each in rest.percolators.import_stored_queries(lines=given)]
    for each in told:
        fits(each, outputs.ImportStoredQueriesResponse)
    assert {"read": 3, "stored": 3, "failed": 0, "failures": [], "finished": True} == told[-1]
    exported = [each async for each in rest.percolators.export_stored_queries()]
    assert by_id(given).keys() == by_id(exported).keys()
    assert {"a\u2028b\u0085c"} == {each["metadata"]["text"] for each in exported}

    async def again() -> AsyncIterator[inputs.PortableStoredQuery]:
        for each in exported:
            yield each

    told = [each async for each in rest.percolators.import_stored_queries(lines=again())]
    assert (3, 0) == (told[-1]["stored"], told[-1]["failed"])
    assert by_id(exported) == by_id([each async for each in rest.percolators.export_stored_queries()])


async def test_a_file_is_imported_in_several_requests(
    blocking: RestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines are counted through the whole file, blank and refused ones too, however many requests carry it."""
    monkeypatch.setattr("lensmesh_client.ndjson._LINES_MAX", 2)
    good = lines(4)
    texts = [json.dumps(good[0]), "", "{", *map(json.dumps, good[1:3]), '{"nope": 1}', json.dumps(good[3])]
    (tmp_path / "queries.ndjson").write_text("\n".join(texts), encoding="utf-8")

    def work() -> tuple[list[outputs.ImportStoredQueriesResponse], list[inputs.PortableStoredQuery]]:
        told = list(blocking.percolators.import_stored_queries(lines=tmp_path / "queries.ndjson"))
        return told, list(blocking.percolators.export_stored_queries())

    told, exported = await asyncio.to_thread(work)
    assert (6, 4, 2, True) == tuple(told[-1][key] for key in ("read", "stored", "failed", "finished"))  # type: ignore[literal-required]
    assert [3, 6] == [failure["line"] for each in told for failure in each["failures"]]
    assert [each["read"] for each in told] == sorted(each["read"] for each in told)
    assert by_id(good).keys() == by_id(exported).keys()


async def test_stored_queries_are_tried(rest: AsyncRestClient) -> None:
    """A dry run, a match without indexing and a stored query that was switched off are what their types say."""
    stored = await rest.percolators.create_stored_query(collection_ids=["c"], queries=[QUERY], min_score=0.01)
    found = await rest.percolators.percolate(collection_id="c", inputs=[QUERY])
    fits(found, outputs.PercolateResponse)
    assert [stored["percolator_id"]] == [each["percolator_id"] for each in found["matches"]]
    tried = await rest.percolators.dry_run_stored_query(percolator_id=stored["percolator_id"])
    fits(tried, outputs.DryRunStoredQueryResponse)
    changed = await rest.percolators.update_stored_query(percolator_id=stored["percolator_id"], enabled=False)
    fits(changed, outputs.StoredQuery)
    assert not changed["enabled"]


async def test_refusals_are_errors_of_the_client(mesh: Mesh, rest: AsyncRestClient) -> None:
    """A wrong key ends an import and an export by its error; nobody there is told apart."""
    async with AsyncRestClient(mesh.rest_url, "wrong") as stranger:
        with pytest.raises(errors.Unauthenticated):
            [each async for each in stranger.percolators.import_stored_queries(lines=lines(1))]
        with pytest.raises(errors.Unauthenticated):
            [each async for each in stranger.percolators.export_stored_queries()]
    async with AsyncRestClient("http://127.0.0.1:1", "key") as away:
        with pytest.raises(errors.Unreachable):
            [each async for each in away.percolators.export_stored_queries()]
    assert [] == [each async for each in rest.percolators.export_stored_queries()]


async def test_an_export_that_breaks_is_an_error() -> None:
    """An answer that ends before its end is no whole export."""

    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{}\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(broken, "127.0.0.1", 0)
    url = httpx.URL(scheme="http", host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    async with server, AsyncRestClient(str(url), "key") as client:
        with pytest.raises(errors.Unreachable):
            [each async for each in client.percolators.export_stored_queries()]


async def test_grpc_imports_and_exports(mesh: Mesh, tenant: Api) -> None:
    """The stubs of both gRPC clients send and get streams with the key, and raise errors of the package."""
    key = tenant.http.headers["Authorization"].removeprefix("Bearer ")
    query = percolator_pb2.PortableStoredQuery(percolator_id=str(uuid.uuid4()), collection_ids=["c"])
    query.queries.add(vector_index=4, type=1, value="cup")
    request = percolator_pb2.ImportStoredQueriesRequest(stored_query=query)
    everything = percolator_pb2.ExportStoredQueriesRequest()
    async with AsyncGrpcClient(mesh.grpc_address, key) as client:
        told = [each async for each in client.percolators.ImportStoredQueries(iter([request]))]
        assert (1, True) == (told[-1].stored, told[-1].finished)
        exported = [each async for each in client.percolators.ExportStoredQueries(everything)]
        assert [query.percolator_id] == [each.stored_query.percolator_id for each in exported]

    def work() -> int:
        with GrpcClient(mesh.grpc_address, key) as client:
            return list(client.percolators.ImportStoredQueries(iter([request])))[-1].stored

    assert 1 == await asyncio.to_thread(work)
    async with AsyncGrpcClient(mesh.grpc_address, "wrong") as stranger:
        # Refused at any moment while it is still sending, it says why.
        for _ in range(200):
            with pytest.raises(errors.Unauthenticated):
                [each async for each in stranger.percolators.ImportStoredQueries(iter([request] * 20))]
