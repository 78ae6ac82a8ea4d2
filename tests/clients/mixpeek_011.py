"""Drives a mesh by the published client mixpeek 0.11.0, in that client's own environment.

Arguments: REST URL, API key, namespace, URL of an image, a key that may call once a minute. Prints one JSON object:
each step's answer as the client read it, or {"raised": class, "status", "body"} for what the client raised.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from mixpeek import MixpeekSDK

# How long a task may take.
_TASK_S = 60.0
# A collection that no test of the suite has beside this script.
_COLLECTION = "mixpeek-011"
_NOBODY = {"X-Namespace": "nobody-s"}


def main() -> None:
    """Run every step in order."""
    url, key, namespace, photo, slow_key = sys.argv[1:]
    headers = {"Authorization": f"Bearer {key}", "X-Namespace": namespace}
    steps: dict[str, Any] = {}

    def run(name: str, call: Callable[[], Any]) -> Any:
        try:
            steps[name] = call()
        except Exception as error:
            steps[name] = {
                "raised": type(error).__name__,
                "status": getattr(error, "status_code", None),
                "body": getattr(error, "body", None),
            }
        return steps[name]

    # What the client would wait for between its own attempts is not the server's business.
    with MixpeekSDK(base_url=url, default_headers=headers, max_retries=0) as client:
        _work(run, client, photo)
        _errors(run, client, url, namespace, slow_key)
    print(json.dumps(steps))


def _work(run: Callable[[str, Callable[[], Any]], Any], client: MixpeekSDK, photo: str) -> None:
    def post(path: str, body: dict[str, Any]) -> Any:
        return client.post(path, body=body, cast_to=object)

    run("health", lambda: client.get("/healthcheck", cast_to=object))
    run("collection created", lambda: post("/collections", {"collection_name": _COLLECTION}))
    extractors = {"read": {}, "embed": [{"type": "text", "vector_index": "keyword", "value": "a red cup"}]}
    body = {"url": photo, "collection_id": _COLLECTION, "metadata": {"n": 1}, "feature_extractors": extractors}
    accepted = run("image indexed", lambda: post("/index/images/url", body))
    path, deadline = f"/tasks/{accepted['task_id']}", time.monotonic() + _TASK_S
    while time.monotonic() < deadline:
        task = run("task ended", lambda: client.get(path, cast_to=object))
        if task.get("status") in ("DONE", "FAILED", None):
            break
        # This client can only ask again, as its users do; the deadline bounds it.
        time.sleep(0.05)
    run("task by its own class", lambda: client.tasks.retrieve(accepted["task_id"]).status)
    asset = f"/assets/{task['asset_id']}"
    where = {"collection_ids": [_COLLECTION]}
    query = {"vector_index": "keyword", "type": "text", "value": "cup"}
    run("asset read", lambda: client.get(asset, cast_to=object))
    run("asset patched", lambda: client.patch(asset, body={"metadata": {"m": 2}}, cast_to=object))
    run("asset replaced", lambda: client.put(asset, body={"metadata": {"k": 3}}, cast_to=object))
    run("asset with features", lambda: client.get(f"{asset}/features", cast_to=object))
    run("assets listed", lambda: post("/assets?page=1&page_size=5", where))
    listed = run("features listed", lambda: post("/features", where))
    run("features found", lambda: post("/features/search", where | {"queries": [query]}))
    feature = f"/features/{listed['results'][0]['feature_id']}"
    run("feature read", lambda: client.get(f"{feature}?return_vectors=true", cast_to=object))
    run("feature updated", lambda: client.put(feature, body={"metadata": {"f": 4}}, cast_to=object))
    run("feature deleted", lambda: client.delete(feature, cast_to=object))
    vector = {"type": "text", "vector_index": "text", "value": "a cup"}
    run("text embedded", lambda: post("/features/extractors/embed", vector))
    stored = run("query stored", lambda: post("/percolators/queries", where | {"queries": [query]}))
    run("query deleted", lambda: client.delete(f"/percolators/queries/{stored['percolator_id']}", cast_to=object))
    run("asset deleted", lambda: client.delete(asset, cast_to=object))
    run("collection deleted", lambda: client.delete(f"/collections/{_COLLECTION}", cast_to=object))
    run("namespaces listed", lambda: client.get("/namespaces", cast_to=object))
    run("indexes listed", lambda: client.get("/namespaces/indexes", cast_to=object))
    run("organization read", lambda: client.get("/organizations", cast_to=object))
    run("usage read", lambda: client.get("/organizations/usage", cast_to=object))


def _errors(
    run: Callable[[str, Callable[[], Any]], Any], client: MixpeekSDK, url: str, namespace: str, slow_key: str
) -> None:
    slow = {"Authorization": f"Bearer {slow_key}"}
    with MixpeekSDK(base_url=url, default_headers=slow, max_retries=0) as hasty:
        run("first call of a minute", lambda: hasty.get("/namespaces", cast_to=object) and None)
        run("second call of a minute", lambda: hasty.get("/namespaces", cast_to=object))
    with MixpeekSDK(base_url=url, max_retries=0) as stranger:
        run("no key", lambda: stranger.get("/collections", cast_to=object))
    run("unknown namespace", lambda: client.get("/collections", cast_to=object, options={"headers": _NOBODY}))
    run("unknown task", lambda: client.get("/tasks/nowhere", cast_to=object))
    run("wrong field", lambda: client.post("/features/search", body={"queries": 1}, cast_to=object))
    taken = {"namespace_name": namespace, "vector_indexes": ["image"]}
    run("name taken", lambda: client.post("/namespaces", body=taken, cast_to=object))


if __name__ == "__main__":
    main()
