"""Many stored queries at once: imported line by line, and exported as an import takes them."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from lensmesh.v1 import percolator_pb2

from services.gateway.rest.codec import decode
from tests.api.doors import rpc_stream
from tests.api.test_percolation import store, text, with_texts
from tests.conftest import Api, PhotoHost, picture

IMPORT = "/percolators/queries/import"
EXPORT = "/percolators/queries/export"


def line(collection: str, *queries: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A stored query as an import takes it."""
    return {"collection_ids": [collection], "queries": list(queries or (text("one"),))} | more


async def send(client: Api, content: bytes | AsyncIterator[bytes]) -> list[dict[str, Any]]:
    """The progress of an import by REST."""
    told = []
    async with client.http.stream("POST", IMPORT, content=content) as response:
        assert 200 == response.status_code, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        async for each in response.aiter_lines():
            assert "event: error" != each
            if each.startswith("data: "):
                told.append(json.loads(each.removeprefix("data: ")))
    return told


async def by_rest(client: Api, lines: Iterable[Any]) -> tuple[int, int, int, list[dict[str, Any]]]:
    """What an import by REST came to: read, stored, failed, failures."""
    told = await send(client, b"".join(orjson.dumps(each) + b"\n" for each in lines))
    assert [False] * (len(told) - 1) + [True] == [each["finished"] for each in told]
    failures = [failure for each in told for failure in each["failures"]]
    return told[-1]["read"], told[-1]["stored"], told[-1]["failed"], failures


async def by_grpc(client: Api, lines: Iterable[Any]) -> tuple[int, int, int, list[dict[str, Any]]]:
    """The same by gRPC."""
    requests = []
    for each in lines:
        request = percolator_pb2.ImportStoredQueriesRequest()
        decode(each, request.stored_query)
        requests.append(request)
    told = [each async for each in exchange(client, iter(requests))]
    failures = [{"line": one.line, "type": one.type, "message": one.message} for each in told for one in each.failures]
    assert told[-1].finished
    return told[-1].read, told[-1].stored, told[-1].failed, failures


def exchange(client: Api, requests: Any) -> Any:
    """The call of the gRPC door."""
    call = client.channel.stream_stream(
        "/lensmesh.v1.PercolatorService/ImportStoredQueries",
        request_serializer=percolator_pb2.ImportStoredQueriesRequest.SerializeToString,
        response_deserializer=percolator_pb2.ImportStoredQueriesResponse.FromString,
    )
    return call(requests, metadata=client.metadata, timeout=60)


async def export(client: Api) -> list[dict[str, Any]]:
    """All lines of an export by REST."""
    response = await client.http.get(EXPORT)
    assert (200, "application/x-ndjson") == (response.status_code, response.headers["content-type"])
    return [json.loads(each) for each in response.text.splitlines()]


def sorted_by_id(lines: Iterable[dict[str, Any]], *without: str) -> list[dict[str, Any]]:
    """Lines in the order of their ids, without some keys."""
    kept = [{key: value for key, value in each.items() if key not in without} for each in lines]
    return sorted(kept, key=lambda each: str(each.get("percolator_id")))


@pytest.mark.parametrize("how", [by_rest, by_grpc])
async def test_a_bad_line_is_told_and_the_others_are_stored(
    space: Api, collection: str, photos: PhotoHost, number: int, how: Any
) -> None:
    """Every refused line comes with its number, its error's type, its field and the rule; what is stored matches."""
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    wrong = {"vector_index": "text", "type": "vector", "vector": [1.0]}
    zero = {"vector_index": "text", "type": "vector", "vector": [0.0] * 64}
    lines = [
        line(collection, metadata={"n": 1}),
        line(collection, min_score=2),
        line(collection, text("...", "keyword")),
        line(collection, text("x", "face")),
        line(collection, filters={"key": "a", "operator": "in", "value": 1}),
        line(collection, expires_at=yesterday),
        line(collection, text("ok"), wrong),
        line(collection, zero),
        line(collection, {"vector_index": "image", "type": "url", "value": photos.url("nowhere.jpg")}),
        line(collection, metadata={"large": "x" * 60_001}),
        line(collection, percolator_id="no-uuid"),
        line(collection, text("one"), text("TRIVIAL", "keyword"), min_score=0.1, metadata={"n": 12}),
    ]
    read, stored, failed, failures = await how(space, lines)
    assert (12, 2, 10) == (read, stored, failed)
    by_line = {each["line"]: (each["type"], each["message"].partition(":")[0]) for each in failures}
    assert {
        2: ("validation_error", "min_score"),
        3: ("validation_error", "queries.0.value"),
        4: ("validation_error", "queries.0"),
        5: ("validation_error", "filters.value"),
        6: ("validation_error", "expires_at"),
        7: ("validation_error", "queries.1.vector"),
        8: ("validation_error", "queries.0.vector"),
        9: ("fetch_failed", "queries.0"),
        10: ("validation_error", "metadata"),
        11: ("validation_error", "percolator_id"),
    } == by_line
    task = await space.run(with_texts(photos, collection, number, "one"))
    assert [1, 12] == sorted(each["metadata"]["n"] for each in task["matches"])


async def test_lines_that_are_no_json_are_told(space: Api, collection: str) -> None:
    """Blank lines count as lines and are passed over; a line that is too long is not kept, and the next one is read."""
    good = orjson.dumps(line(collection))
    content = b"\n".join([b"", good, b"{", b"  ", b"[]", b'{"nope": 1}', b'"' + b"x" * 1_000_001 + b'"', b"\r", good])
    told = await send(space, content)
    assert (6, 2, 4) == tuple(told[-1][key] for key in ("read", "stored", "failed"))
    failures = {each["line"]: each for one in told for each in one["failures"]}
    assert {3: "bad_request", 5: "validation_error", 6: "validation_error", 7: "payload_too_large"} == {
        number: each["type"] for number, each in failures.items()
    }
    assert "nope: is not a field here" in failures[6]["message"]
    assert [{"read": 0, "stored": 0, "failed": 0, "failures": [], "finished": True}] == await send(space, b"")


async def test_an_import_again_changes_nothing(tenant: Api) -> None:
    """Under the ids that are given stored queries are replaced, and keep the time when they were first stored."""
    lines = [line("c", text(f"word {n}"), percolator_id=str(uuid.uuid4())) for n in range(3)]
    assert (3, 3, 0, []) == await by_rest(tenant, lines)
    first = sorted_by_id(await export(tenant))
    assert (3, 3, 0, []) == await by_grpc(tenant, lines)
    assert first == sorted_by_id(await export(tenant))
    assert (3, 3, 0, []) == await by_rest(tenant, [lines[0] | {"name": name} for name in ("a", "b", "last")])
    assert 3 == (await tenant.http.get("/percolators/queries")).json()["pagination"]["total"]
    changed = (await tenant.http.get(f"/percolators/queries/{lines[0]['percolator_id']}")).json()
    before = next(each for each in first if each["percolator_id"] == lines[0]["percolator_id"])
    assert ("last", before["created_at"]) == (changed["name"], changed["created_at"])


async def test_what_is_exported_can_be_imported(tenant: Api, number: int) -> None:
    """Vectors, filters, inline images, expiry and what is disabled come back as they were, by both doors."""
    inline = {"vector_index": "image", "type": "base64", "value": base64.b64encode(picture(number)).decode()}
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    filters = {"AND": [{"key": "metadata.a", "operator": "is_null"}, {"key": "metadata.b", "value": 1}]}
    await store(tenant, "c", text("a"), text("b c", "keyword", filters=filters), filters=filters, name="all")
    await store(tenant, "c", inline, min_score=0.0, enabled=False, metadata={"nothing": None, "deep": {"x": [1, 2.5]}})
    await store(tenant, "d", {"vector_index": "text", "type": "vector", "vector": [3.0] + [4.0] * 63}, expires_at=later)
    lines = await export(tenant)
    assert 3 == len(lines)
    by_name = {each["queries"][0]["type"]: each for each in lines}
    assert inline == by_name["base64"]["queries"][0]
    assert (False, 0.0, {"nothing": None, "deep": {"x": [1, 2.5]}}) == tuple(
        by_name["base64"][key] for key in ("enabled", "min_score", "metadata")
    )
    assert "filters" not in by_name["base64"]
    assert {"indices", "values"} == set(by_name["text"]["vectors"][1]["vector"])
    request = percolator_pb2.ExportStoredQueriesRequest()
    streamed = [each async for each in rpc_stream(tenant, "ExportStoredQueries", request)]
    assert sorted(each["percolator_id"] for each in lines) == sorted(e.stored_query.percolator_id for e in streamed)
    for each in lines:
        assert 200 == (await tenant.http.delete(f"/percolators/queries/{each['percolator_id']}")).status_code
    assert (3, 3, 0, []) == await by_rest(tenant, lines)
    assert sorted_by_id(lines, "created_at") == sorted_by_id(await export(tenant), "created_at")
    told = [each async for each in exchange(tenant, iter(map(again, streamed)))]
    assert (3, 0) == (told[-1].stored, told[-1].failed)
    assert sorted_by_id(lines, "created_at") == sorted_by_id(await export(tenant), "created_at")


def again(exported: percolator_pb2.ExportStoredQueriesResponse) -> percolator_pb2.ImportStoredQueriesRequest:
    """What was exported, to be imported."""
    return percolator_pb2.ImportStoredQueriesRequest(stored_query=exported.stored_query)


async def test_webhooks_stay(tenant: Api, photos: PhotoHost) -> None:
    """An export holds no webhook, importing it takes none away, and a line may bring one."""
    delivery = {"webhook_url": photos.url("hook"), "secret": "s" * 24}
    kept = await store(tenant, "c", text("a"), delivery=delivery)
    lines = await export(tenant)
    assert ["delivery" in each for each in lines] == [False]
    new = line("c", percolator_id=str(uuid.uuid4()), delivery=delivery | {"cooldown_s": 5})
    bad = line("c", delivery=delivery | {"webhook_url": "http://10.0.0.1/"})
    _, stored, _, failures = await by_rest(tenant, [*lines, new, bad])
    assert (2, ["delivery.webhook_url"]) == (stored, [each["message"].partition(":")[0] for each in failures])
    listed = (await tenant.http.get("/percolators/queries")).json()["results"]
    shown = {each["percolator_id"]: each["delivery"] for each in listed}
    assert (photos.url("hook"), "active", 0) == tuple(
        shown[kept][key] for key in ("webhook_url", "state", "cooldown_s")
    )
    assert 5 == shown[new["percolator_id"]]["cooldown_s"]


async def test_vectors_that_come_along_are_taken(tenant: Api) -> None:
    """A vector of the model in use is kept instead of the text's own; one of another model is made anew."""
    await store(tenant, "c", text("own"))
    version = (await export(tenant))[0]["vectors"][0]["model_version"]
    given = [1.0] + [0.0] * 63

    def with_vector(**vector: Any) -> dict[str, Any]:
        return line("c", text("own"), percolator_id=str(uuid.uuid4()), vectors=[vector])

    taken, scaled = (
        with_vector(model_version=version, vector=given),
        with_vector(model_version=version, vector=[5] + [0] * 63),
    )
    anew = with_vector(model_version="older", vector=[1.0])
    bad = [
        with_vector(model_version=version, vector=[1.0]),
        with_vector(model_version=version, vector=[0.0] * 64),
        with_vector(model_version=version, vector=[1e300] + [0.0] * 63),
        line("c", text("own"), vectors=[anew["vectors"][0]] * 2),
        with_vector(model_version=version, vector="x"),
        with_vector(model_version=version, vector=[None]),
    ]
    read, stored, failed, failures = await by_rest(tenant, [taken, scaled, anew, *bad])
    assert (9, 3, 6) == (read, stored, failed)
    fields = {each["line"]: each["message"].partition(":")[0] for each in failures}
    assert {4: "vectors.0.vector", 5: "vectors.0.vector", 6: "vectors.0.vector", 7: "vectors"} == {
        number: field for number, field in fields.items() if number < 8
    }
    assert ["vectors.0.vector"] * 2 == [fields[8], fields[9]]
    vectors = {each["percolator_id"]: each["vectors"][0]["vector"] for each in await export(tenant)}
    assert given == vectors[taken["percolator_id"]] == vectors[scaled["percolator_id"]]
    assert given != vectors[anew["percolator_id"]]


async def test_the_quota_holds(tenant: Api, api: Api) -> None:
    """Lines beyond what the namespace may have are refused by that name; those that replace are not."""
    name = (await tenant.http.get("/namespaces")).json()[0]["namespace_name"]
    changed = await api.http.put(f"/namespaces/{name}", json={"limits": {"stored_queries_max": 3}})
    assert 200 == changed.status_code, changed.text
    lines = [line("c", text("x"), percolator_id=str(uuid.uuid4())) for _ in range(5)]
    _, stored, failed, failures = await by_rest(tenant, lines)
    assert (3, 2) == (stored, failed)
    assert [(4, "quota_exceeded"), (5, "quota_exceeded")] == [(each["line"], each["type"]) for each in failures]
    assert (3, 3, 0, []) == await by_rest(tenant, lines[:3])


async def test_progress_comes_while_lines_are_sent(space: Api, collection: str) -> None:
    """Who sends slowly is told of what is stored before the next line, and who hangs up keeps what is stored."""
    sent: asyncio.Queue[percolator_pb2.ImportStoredQueriesRequest] = asyncio.Queue()

    async def requests() -> AsyncIterator[percolator_pb2.ImportStoredQueriesRequest]:
        while True:
            yield await sent.get()

    request = percolator_pb2.ImportStoredQueriesRequest()
    kept = str(uuid.uuid4())
    decode(line(collection, percolator_id=kept), request.stored_query)
    call = exchange(space, requests())
    await sent.put(request)
    async for told in call:
        if told.stored:
            break
    assert (1, 1, False) == (told.read, told.stored, told.finished)
    call.cancel()
    assert 200 == (await space.http.get(f"/percolators/queries/{kept}")).status_code


async def test_more_than_a_batch_is_stored_in_order(tenant: Api) -> None:
    """Of 1,200 lines progress is told about every 500, more failures than fit a message come in several."""
    bad = [line("c", min_score=3)] * 250
    good = [line("c", text(f"word{n}", "keyword"), percolator_id=str(uuid.uuid4())) for n in range(950)]
    told = await send(tenant, b"".join(orjson.dumps(each) + b"\n" for each in good + bad))
    assert (1200, 950, 250, True) == tuple(told[-1][key] for key in ("read", "stored", "failed", "finished"))
    assert 3 <= len(told)
    assert all(len(each["failures"]) <= 100 for each in told)
    assert list(range(951, 1201)) == [failure["line"] for each in told for failure in each["failures"]]
    listed = (await tenant.http.get("/percolators/queries?page_size=1")).json()["pagination"]
    assert 950 == listed["total"] == len(await export(tenant))


async def test_an_import_reaches_no_other_namespace(tenant: Api, space: Api, collection: str) -> None:
    """The ids of another namespace are free in one's own: what is stored there stays, and is exported there alone."""
    theirs = await store(space, collection, text("theirs"), name="theirs")
    theirs_collection = (await space.http.get(f"/collections/{collection}")).json()["collection_id"]
    assert (1, 1, 0, []) == await by_rest(tenant, [line(theirs_collection, percolator_id=theirs, name="mine")])
    assert ["mine"] == [each["name"] for each in await export(tenant)]
    assert "theirs" == (await space.http.get(f"/percolators/queries/{theirs}")).json()["name"]
    assert [theirs_collection] != (await export(tenant))[0]["collection_ids"]
