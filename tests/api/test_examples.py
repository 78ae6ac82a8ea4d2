"""The examples of the OpenAPI description work as they stand, one after the other, on a namespace that was empty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from services.gateway.rest.examples import EXAMPLES, LINES
from tests.conftest import Api, PhotoHost

PHOTOS = Path(__file__).parents[2] / "demo" / "photos"
# What indexes, so that the others have something to name; then everything else but what takes a name away.
FIRST = ("CreateNamespace", "CreateCollection", "CreateStoredQuery", "IndexImage", "IndexText", "CreateKey")
LAST = ("RotateKey", "UpdateCollection")


async def test_every_example_is_taken(api: Api, photos: PhotoHost) -> None:
    """Each body in the description gets a 200 where the description says that it goes, and its task is DONE."""
    serve_photos(photos)
    operations = with_json_bodies((await api.http.get("/openapi.json")).json())
    assert set(EXAMPLES) == set(operations)
    space = "shop-of-examples"
    ids: dict[str, Any] = {
        "collection": "photos",
        "namespace": space,
        "email": "ann@example.org",
        "key_name": "default",
    }

    async def send(name: str) -> dict[str, Any]:
        method, path, operation = operations[name]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        text = json.dumps(example).replace("http://127.0.0.1:9000", photos.url("").rstrip("/"))
        headers = {} if name == "CreateNamespace" else {"X-Namespace": space}
        response = await api.http.request(
            method, path.format(**ids), content=text.replace('"shop"', f'"{space}"'), headers=headers
        )
        assert 200 == response.status_code, f"{name}: {response.text}"
        if response.headers["content-type"].startswith("text/event-stream"):
            return {}
        return dict(response.json())

    for name in FIRST:
        answer = await send(name)
        ids |= {key: value for key, value in answer.items() if key.endswith("_id") and name != "IndexText"}
        if "task_id" in answer:
            task = await finished(api, answer["task_id"], space)
            if name == "IndexImage":
                ids |= {"asset_id": task["asset_id"], "feature_id": task["outputs"][0]["feature_id"]}
    for name in sorted(set(EXAMPLES) - {*FIRST, *LAST}):
        answer = await send(name)
        if name == "IndexBatch":
            assert all([await finished(api, item["task_id"], space) for item in answer["results"]])
        if name in ("ListAssets", "SearchAssets", "SearchFeatures", "ListFeatures"):
            assert answer["results"], name
    for name in LAST:
        await send(name)


async def test_every_line_is_taken(tenant: Api) -> None:
    """Each example of a body of lines is described as such, and stored."""
    paths = (await tenant.http.get("/openapi.json")).json()["paths"]
    operation = paths["/percolators/queries/import"]["post"]
    assert ["ImportStoredQueries"] == [operation["operationId"]] == list(LINES)
    line = operation["requestBody"]["content"]["application/x-ndjson"]["example"]
    answer = await tenant.http.post("/percolators/queries/import", content=json.dumps(line))
    assert (200, 1) == (answer.status_code, json.loads(answer.text.split("data: ")[-1])["stored"])
    export = paths["/percolators/queries/export"]["get"]["responses"]["200"]["content"]
    assert ["application/x-ndjson"] == list(export)


def serve_photos(photos: PhotoHost) -> None:
    """Serve the sample photos under their own names."""
    for path in PHOTOS.iterdir():
        photos.put(path.name, path.read_bytes(), "image/png" if path.suffix == ".png" else "image/jpeg")


def with_json_bodies(description: dict[str, Any]) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Method, path and description of the operations that take a JSON body, by their names."""
    return {
        operation["operationId"]: (method.upper(), path, operation)
        for path, item in description["paths"].items()
        for method, operation in item.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {}) and not operation.get("deprecated")
    }


async def finished(api: Api, task_id: str, space: str) -> dict[str, Any]:
    """The task when it is done."""
    async with api.http.stream("GET", f"/tasks/{task_id}/events", headers={"X-Namespace": space}) as events:
        async for _ in events.aiter_lines():
            continue
    task = (await api.http.get(f"/tasks/{task_id}", headers={"X-Namespace": space})).json()
    assert "DONE" == task["status"], task
    return dict(task)
