"""Bad requests are refused with the same meaning at both doors, naming the field and the rule."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from lensmesh.v1 import common_pb2, namespace_pb2, task_pb2

from tests.api.bad_requests import (
    CASES,
    GOOD,
    INDEX,
    JSON_ONLY,
    PROTO_QUERY,
    QUERY,
    RPC_METHODS,
    SEARCH,
    STORE,
    Case,
    extract,
    leaf,
    search,
)
from tests.api.doors import rest_refusal, rpc_refused
from tests.conftest import Api


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
async def test_a_bad_request_is_refused_by_rest(api: Api, case: Case) -> None:
    """REST answers 422 and names the field's place and the rule."""
    if case.path == SEARCH:
        await api.http.post("/collections", json={"collection_name": "c"})
    refusal = rest_refusal(await api.http.post(case.path, json=case.body))
    assert (422, "validation_error") == (refusal.code, refusal.type)
    assert case.field in refusal.fields, refusal
    assert case.field in refusal.message
    assert case.says in refusal.fields[case.field]


RPC_CASES = {name: case for name, case in CASES.items() if case.message}


@pytest.mark.parametrize("case", RPC_CASES.values(), ids=list(RPC_CASES))
async def test_a_bad_request_is_refused_by_grpc(api: Api, case: Case) -> None:
    """gRPC answers INVALID_ARGUMENT with the same field in its BadRequest."""
    if case.path == SEARCH:
        await api.http.post("/collections", json={"collection_name": "c"})
    assert case.message is not None
    refusal = await rpc_refused(api, RPC_METHODS[case.path], case.message())
    assert (grpc.StatusCode.INVALID_ARGUMENT, "validation_error") == (refusal.code, refusal.type)
    assert case.field in refusal.fields, refusal
    assert refusal.fields[case.field] in refusal.message


@pytest.mark.parametrize(("path", "body", "field", "says"), JSON_ONLY.values(), ids=list(JSON_ONLY))
async def test_json_that_grpc_cannot_say_is_refused(api: Api, path: str, body: Any, field: str, says: str) -> None:
    """Names and types that only JSON can get wrong are refused with 422 and a hint."""
    refusal = rest_refusal(await api.http.post(path, json=body))
    assert (422, "validation_error") == (refusal.code, refusal.type)
    assert says in refusal.fields[field]


async def test_every_mistake_is_named_at_once(api: Api) -> None:
    """All violations of a request come in one answer."""
    body = {"url": 1, "unknown": 2, "skip_duplicate": 3, "percolate": {"min_score": "x"}}
    refusal = rest_refusal(await api.http.post(INDEX, json=body))
    assert {"url", "unknown", "skip_duplicate", "percolate.min_score"} == set(refusal.fields)
    body = {"url": "ftp://x", "percolate": {"min_score": 2, "max_candidates": 0}}
    refusal = rest_refusal(await api.http.post(INDEX, json=body))
    assert {"url", "collection_id", "percolate.min_score", "percolate.max_candidates"} == set(refusal.fields)


@pytest.mark.parametrize(
    "body", [b"{", b"not json", b'{"url": NaN}', b"\xff\xfe", b'{"a": 1} x', b'{"url": "\\ud800"}']
)
async def test_a_body_that_is_not_json_is_a_bad_request(api: Api, body: bytes) -> None:
    """A body that can't be read at all is a 400."""
    refusal = rest_refusal(await api.http.post(INDEX, content=body))
    assert (400, "bad_request") == (refusal.code, refusal.type)
    assert "the body is not JSON" in refusal.message


@pytest.mark.parametrize("body", ["[]", "1", "null", '"x"'])
async def test_a_body_that_is_no_object_is_refused(api: Api, body: str) -> None:
    """JSON that is not an object is a 422 that says so."""
    refusal = rest_refusal(await api.http.post(INDEX, content=body))
    assert (422, "must be an object") == (refusal.code, refusal.fields[""][:17])


@pytest.mark.parametrize(
    ("filters", "place", "message"),
    [
        ({"key": "a", "operator": "like", "value": 1}, "filters.operator", None),
        ({"operator": "eq", "value": 1}, "filters.key", {"operator": 1, "value": {"number_value": 1}}),
        ({"key": "a..b", "value": 1}, "filters.key", {"key": "a..b", "value": {"number_value": 1}}),
        ({"key": "a", "operator": "regex", "value": "("}, "filters.value",
         {"key": "a", "operator": 12, "value": {"string_value": "("}}),
        ({"AND": [{"key": "a", "operator": "in", "value": 3}]}, "filters.AND.0.value",
         {"and": [{"key": "a", "operator": 7, "value": {"number_value": 3}}]}),
        ({"OR": [{"key": "a", "value": 1}] * 21}, "filters.OR", {"or": [{"key": "a"}] * 21}),
        ({"key": "a", "value": 1, "AND": [{"key": "b", "value": 1}]}, "filters", {"key": "a", "and": [{"key": "b"}]}),
    ],
)  # fmt: skip
async def test_a_malformed_filter_is_refused(
    api: Api, filters: dict[str, Any], place: str, message: dict[str, Any] | None
) -> None:
    """A filter that breaks a rule is refused at its place, wherever filters are taken."""
    await api.http.post("/collections", json={"collection_name": "c"})
    assert place in rest_refusal(await api.http.post(SEARCH, json=leaf(**filters))).fields
    refusal = rest_refusal(await api.http.post(STORE, json=leaf(**filters)))
    assert (422, True) == (refusal.code, place in refusal.fields)
    matches = {"collection_ids": ["c"], "filters": filters}
    assert place in rest_refusal(await api.http.post("/percolators/matches", json=matches)).fields
    inner = {"queries": [QUERY | {"filters": filters}], "collection_ids": ["c"]}
    assert f"queries.0.{place}" in rest_refusal(await api.http.post(SEARCH, json=inner)).fields
    if message is not None:
        request = search(filters=common_pb2.Filter(**message))
        assert place in (await rpc_refused(api, "SearchFeatures", request)).fields


@pytest.mark.parametrize("query", ["page_size=101", "page=0", "page=x", "colour=red", "page_size=1.5"])
async def test_bad_query_parameters_are_refused(api: Api, query: str) -> None:
    """A parameter that breaks a rule, or is none, is a 422 that names it."""
    refusal = rest_refusal(await api.http.get(f"/collections?{query}"))
    assert (422, {query.partition("=")[0]}) == (refusal.code, set(refusal.fields))


async def test_a_request_larger_than_a_record_is_refused(api: Api) -> None:
    """Texts that are each allowed and together too much are a 413, OUT_OF_RANGE."""
    embed = [{"type": "text", "value": "x" * 31_000, "vector_index": "text", "field_name": f"f{i}"} for i in range(14)]
    refusal = rest_refusal(await api.http.post(INDEX, json=GOOD | {"feature_extractors": {"embed": embed}}))
    assert (413, "payload_too_large") == (refusal.code, refusal.type)
    request = extract(embed=[each | {"type": 2, "vector_index": 3} for each in embed])
    found = await rpc_refused(api, "IndexImage", request)
    assert (grpc.StatusCode.OUT_OF_RANGE, "payload_too_large") == (found.code, found.type)


async def test_an_uploaded_file_has_a_limit(api: Api) -> None:
    """A file of more than 32 MB is a 413, an empty one a 422."""
    refusal = rest_refusal(await api.http.post("/files", content=b"x" * 32_000_001))
    assert (413, "payload_too_large") == (refusal.code, refusal.type)
    found = await rpc_refused(api, "UploadFile", namespace_pb2.UploadFileRequest(content=b"x" * 32_000_001))
    assert (grpc.StatusCode.OUT_OF_RANGE, "payload_too_large") == (found.code, found.type)
    assert {"content"} == set(rest_refusal(await api.http.post("/files", content=b"")).fields)


async def test_a_broken_query_image_is_refused_at_once(api: Api) -> None:
    """Stored queries and searches with an image that can't be used are refused, naming the query."""
    await api.http.post("/collections", json={"collection_name": "c"})
    bad = {"vector_index": "image", "type": "base64", "value": "bm90IGFuIGltYWdl"}
    for path in (SEARCH, STORE):
        refusal = rest_refusal(await api.http.post(path, json={"collection_ids": ["c"], "queries": [QUERY, bad]}))
        assert (422, "unsupported_media_type") == (refusal.code, refusal.type)
        assert refusal.message.startswith("queries.1")
    request = search(queries=[PROTO_QUERY, {"vector_index": 1, "type": 3, "value": bad["value"]}])
    found = await rpc_refused(api, "SearchFeatures", request)
    assert (grpc.StatusCode.INVALID_ARGUMENT, "unsupported_media_type") == (found.code, found.type)


@pytest.mark.parametrize("depth", [25, 34, 60, 99, 150, 400])
async def test_deep_nesting_is_refused(api: Api, depth: int) -> None:
    """JSON nested beyond a limit is refused, not an internal error."""
    deep = json.loads('{"a":' * depth + "1" + "}" * depth)
    refusal = rest_refusal(await api.http.post(INDEX, json=GOOD | {"metadata": deep}))
    assert (422, {"metadata"}) == (refusal.code, set(refusal.fields))
    filters = json.loads('{"AND":[' * depth + "{}" + "]}" * depth)
    body = {"queries": [QUERY], "collection_ids": ["c"], "filters": filters}
    refusal = rest_refusal(await api.http.post(SEARCH, json=body))
    assert (422, True) == (refusal.code, "nested" in refusal.message)


async def test_an_unknown_task_is_not_a_matter_of_its_form(api: Api) -> None:
    """Ids of any form that are not known are 404, never an error of ours."""
    for task_id in ("nope", "a b", "*", "a.b", "ä", "x" * 64, "x\n"):
        found = await rpc_refused(api, "GetTask", task_pb2.GetTaskRequest(task_id=task_id))
        assert (grpc.StatusCode.NOT_FOUND, "not_found") == (found.code, found.type)
