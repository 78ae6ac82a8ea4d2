"""What the doors say of themselves: health, readiness, the OpenAPI description and its page; gRPC reflection."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.api import annotations_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from openapi_spec_validator import OpenAPIV31SpecValidator

from services.gateway.core.core import PUBLIC_SERVICES
from tests.conftest import Api

METHODS = [(service.name, method) for service in PUBLIC_SERVICES for method in service.methods]
VERBS = {"get", "put", "post", "delete", "patch"}


@pytest.fixture(scope="session")
async def description(api: Api) -> dict[str, Any]:
    """The OpenAPI description; needs no key."""
    response = await api.http.get("/openapi.json", headers={"Authorization": ""})
    assert 200 == response.status_code
    assert "application/json" == response.headers["content-type"]
    return dict(response.json())


def operations(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, verb and operation."""
    for path, item in description["paths"].items():
        for verb, operation in item.items():
            yield path, verb, operation


def references(value: Any) -> Iterator[str]:
    """Every $ref inside."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


async def test_health_needs_no_key(api: Api) -> None:
    """Liveness and readiness answer without a key; readiness names each dependency."""
    bare = {"Authorization": ""}
    health = await api.http.get("/healthcheck", headers=bare)
    assert (200, {"status": "OK"}) == (health.status_code, health.json())
    ready = await api.http.get("/readyz", headers=bare)
    assert (200, "OK") == (ready.status_code, ready.json()["status"])
    checks = ready.json()["checks"]
    assert {"nats", "directory", "vision", "embedder", "percolator"} <= set(checks)
    assert {"OK"} == set(checks.values())


async def test_the_page_shows_the_description(api: Api) -> None:
    """/docs is a page that needs nothing from elsewhere: its script and style are served here."""
    page = await api.http.get("/docs", headers={"Authorization": ""})
    assert (200, True) == (page.status_code, page.headers["content-type"].startswith("text/html"))
    assert "http://" not in page.text + page.text.replace("https://", "http://")
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert assets
    for asset in assets:
        assert 200 == (await api.http.get(f"/{asset}")).status_code, asset


def test_the_description_is_whole(description: dict[str, Any]) -> None:
    """It has the parts that OpenAPI 3.1 asks for, and every reference leads somewhere."""
    assert description["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(description["info"])
    schemas = description["components"]["schemas"]
    assert set(references(description)) <= {f"#/components/schemas/{name}" for name in schemas}
    assert all(schemas.values()), "an empty schema"
    for path, verb, operation in operations(description):
        assert path.startswith("/")
        assert verb in VERBS
        assert operation["responses"]["200"]["content"]
        assert operation["summary"]
        for response in operation["responses"].values():
            assert response["description"]
        for parameter in operation["parameters"]:
            assert {"name", "in", "required", "schema"} <= set(parameter)
            assert parameter["in"] in ("path", "query", "header")
        named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert set(re.findall(r"{(\w+)}", path)) == named
        places = [(each["name"], each["in"]) for each in operation["parameters"]]
        assert len(places) == len(set(places))
    ids = [operation["operationId"] for _, _, operation in operations(description)]
    assert len(ids) == len(set(ids))


def test_what_the_path_holds_is_not_asked_for_again(description: dict[str, Any]) -> None:
    """A body has no field that stands in the path."""
    schemas, both = description["components"]["schemas"], 0
    for path, _, operation in operations(description):
        in_path = set(re.findall(r"{(\w+)}", path))
        for reference in references(operation.get("requestBody", {})):
            both += bool(in_path)
            body = schemas[reference.rsplit("/", 1)[1]]
            assert not in_path & {*body["properties"], *body.get("required", [])}, path
    assert both, "no operation has both"


def test_schemas_are_json_schema(description: dict[str, Any]) -> None:
    """Every schema is valid by the draft that OpenAPI 3.1 uses."""
    jsonschema = pytest.importorskip("jsonschema")
    for schema in description["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_answers_fit_the_description(description: dict[str, Any]) -> None:
    """The contract's own example of an index request fits its schema, and a misspelt one does not."""
    jsonschema = pytest.importorskip("jsonschema")
    root = {"components": description["components"], "$ref": "#/components/schemas/IndexImageRequest"}
    validator = jsonschema.Draft202012Validator(root)
    good = {
        "url": "https://example.org/x.jpg",
        "collection": "c",
        "asset_update": None,
        "percolate": {"min_score": 0.7, "max_candidates": None},
        "feature_extractors": {"read": {}, "embed": [{"type": "url", "vector_index": "multimodal", "value": None}]},
    }
    assert [] == [error.message for error in validator.iter_errors(good)]
    assert not validator.is_valid(good | {"urls": []})
    assert not validator.is_valid(good | {"percolate": {"min_score": 2}})


async def test_every_described_path_is_served(api: Api, description: dict[str, Any]) -> None:
    """No described path and method is unknown to the router."""
    for path, verb, _ in operations(description):
        filled = re.sub(r"{\w+}", "nope", path)
        response = await api.http.request(verb, filled, headers={"Authorization": ""})
        assert 401 == response.status_code, (verb, path)


@pytest.mark.parametrize(("service", "method"), METHODS, ids=[f"{name}.{method.name}" for name, method in METHODS])
def test_every_method_has_a_path(description: dict[str, Any], service: str, method: Any) -> None:
    """Each public method has an HTTP annotation, whose path is described."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    assert verb
    assert method.name == description["paths"][getattr(rule, verb)][verb]["operationId"]


async def test_grpc_says_what_it_serves(api: Api) -> None:
    """Reflection lists every public service, and gives the file that defines one."""
    stub = reflection_pb2_grpc.ServerReflectionStub(api.channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="lensmesh.v1.IndexService"),
    ]
    answers = [answer async for answer in stub.ServerReflectionInfo(iter(asked), timeout=10)]
    names = {each.name for each in answers[0].list_services_response.service}
    assert {service.full_name for service in PUBLIC_SERVICES} <= names
    assert answers[1].file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize("name", ["", "lensmesh.v1.IndexService"])
async def test_grpc_says_that_it_serves(api: Api, name: str) -> None:
    """The health service says SERVING for the whole and for each service; an unknown one is NOT_FOUND."""
    stub = health_pb2_grpc.HealthStub(api.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
    assert health_pb2.HealthCheckResponse.SERVING == answer.status
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="nope"), timeout=10)
    assert grpc.StatusCode.NOT_FOUND == caught.value.code()


def test_the_description_is_valid(description: dict[str, Any]) -> None:
    """The description is OpenAPI 3.1, links included."""
    assert [] == [error.message for error in OpenAPIV31SpecValidator(description).iter_errors()]
    links = description["paths"]["/index/images/url"]["post"]["responses"]["200"]["links"]
    assert {"GetTask", "CancelTask", "WatchTask"} == set(links)
