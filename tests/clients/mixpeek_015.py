"""Drives a mesh by the published client mixpeek 0.15.0, in that client's own environment.

Arguments: REST URL, API key, namespace, URL of an image, a key that may call once a minute. Prints one JSON object:
each step's answer as the client read it, or {"raised": class, "status", "text"} for what the client raised.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
from mixpeek import Mixpeek, models
from mixpeek.utils import BackoffStrategy, RetryConfig

# How long a task may take.
_TASK_S = 60.0
# A collection that no test of the suite has beside this script.
_COLLECTION = "mixpeek-015"


def main() -> None:
    """Run every step in order."""
    url, key, namespace, photo, slow_key = sys.argv[1:]
    steps: dict[str, Any] = {}
    # The client takes a namespace for all its calls, and then does not send it: its HTTP client does.
    scoped = httpx.Client(headers={"X-Namespace": namespace})
    with Mixpeek(token=key, server_url=url, client=scoped) as client:
        run = Steps(steps)
        _collections(run, client)
        _namespaces(run, client, namespace)
        asset = _ingest(run, client, photo)
        _assets(run, client, asset)
        _features(run, client, asset)
        _text(run, client)
        _organizations(run, client)
        _errors(run, client, url, key, slow_key)
        run("health", lambda: client.health.check())
        run("collection deleted", lambda: client.collections.delete(collection=_COLLECTION))
    print(json.dumps(steps))


class Steps:
    """Calls, and what came of each."""

    def __init__(self, steps: dict[str, Any]) -> None:
        self._steps = steps

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        """Make one call, and note what came of it; returns the client's own answer, None when it raised."""
        try:
            answer = call()
        except Exception as error:
            data = getattr(error, "data", None)
            self._steps[name] = {
                "raised": type(error).__name__,
                "status": getattr(data, "status", None),
                "text": str(error),
            }
            return None
        self._steps[name] = plain(answer)
        return answer


def plain(answer: Any) -> Any:
    """An answer as JSON values, with the fields that its class does not declare."""
    if isinstance(answer, list):
        return [plain(each) for each in answer]
    return answer.model_dump(mode="json", by_alias=True) if hasattr(answer, "model_dump") else answer


def _collections(run: Steps, client: Mixpeek) -> None:
    calls = client.collections
    run("collection created", lambda: calls.create(collection_name=_COLLECTION, metadata={}))
    run("collections listed", lambda: calls.list(page=1, page_size=100))
    run("collection read", lambda: calls.get(collection=_COLLECTION))
    run("collection renamed", lambda: calls.update(collection=_COLLECTION, collection_name=f"{_COLLECTION}-b"))
    run("collection renamed back", lambda: calls.update(collection=f"{_COLLECTION}-b", collection_name=_COLLECTION))


def _namespaces(run: Steps, client: Mixpeek, own: str) -> None:
    calls = client.namespaces
    run("namespaces listed", lambda: calls.list())
    run("indexes listed", lambda: calls.list_indexes())
    run("namespace read", lambda: calls.get(namespace=own))
    index = {"field_name": "metadata.price", "type": models.PayloadSchemaType.FLOAT}
    name = f"{own}-other"
    run(
        "namespace created",
        lambda: calls.create(namespace_name=name, vector_indexes=["image", "keyword"], payload_indexes=[index]),
    )
    run("namespace updated", lambda: calls.update(namespace=name, namespace_name=f"{name}-b", payload_indexes=[]))
    run("namespace deleted", lambda: calls.delete(namespace=f"{name}-b"))


def _ingest(run: Steps, client: Mixpeek, photo: str) -> str:
    accepted = run(
        "image ingested",
        lambda: client.ingest.image_url(
            url=photo,
            collection=_COLLECTION,
            metadata={},
            percolate={"enabled": True, "min_score": 0.5, "max_candidates": 3},
            skip_duplicate=False,
            feature_extractors={
                "read": {"enabled": True},
                "describe": {"enabled": True, "max_length": 200},
                "detect": {"faces": {"enabled": True}, "logos": {"enabled": True, "confidence_threshold": 0.5}},
                "embed": [
                    {"type": models.InputType.URL, "vector_index": models.VectorModel.MULTIMODAL},
                    {"type": models.InputType.URL, "vector_index": models.VectorModel.IMAGE, "field_name": "looks"},
                    {"type": models.InputType.TEXT, "vector_index": models.VectorModel.KEYWORD, "value": "a red cup"},
                ],
                "json_output": {"response_shape": {"text": "str"}, "prompt": "what is written on it?"},
            },
        ),
    )
    deadline = time.monotonic() + _TASK_S
    while accepted is not None and time.monotonic() < deadline:
        task = run("task ended", lambda: client.tasks.get(task_id=accepted.task_id))
        if task is None or task.status.value in ("DONE", "FAILED"):
            break
        # This client can only ask again, as its users do; the deadline bounds it.
        time.sleep(0.05)
    run("task deleted", lambda: client.tasks.delete(task_id=accepted.task_id))
    # The client's class of a task keeps no asset id: the listing knows it.
    listed = client.assets.list(collections=[_COLLECTION])
    return str(listed.results[0].asset_id)


def _assets(run: Steps, client: Mixpeek, asset: str) -> None:
    calls = client.assets
    where = {"AND": [{"key": "metadata.price", "operator": models.Operator.IS_NULL}]}
    run("asset read", lambda: calls.get(asset_id=asset, return_url=True))
    run("asset updated", lambda: calls.update(asset_id=asset, metadata={}, propagate_features=True))
    run("asset patched", lambda: calls.partial_update(asset_id=asset, metadata={}))
    run("asset with features", lambda: calls.get_features(asset_id=asset, return_url=True))
    run("assets listed", lambda: calls.list(collections=[_COLLECTION], page=1, page_size=5, filters=where))
    run(
        "assets found",
        lambda: calls.search(collections=[_COLLECTION], query={"key": ["*"], "value": "nothing"}, return_url=False),
    )


def _features(run: Steps, client: Mixpeek, asset: str) -> None:
    calls = client.features
    listed = run("features listed", lambda: calls.list(collections=[_COLLECTION], page_size=5, return_urls=True))
    query = {"vector_index": "keyword", "type": "text", "value": "cup", "settings": {"limit": 5}}
    run("features found", lambda: calls.search(queries=[query], collections=[_COLLECTION], page_size=5))
    run(
        "text embedded",
        lambda: client.feature_extractors.extract_embeddings(
            type_=models.InputType.TEXT, vector_index=models.VectorModel.TEXT, value="a cup"
        ),
    )
    run(
        "words embedded",
        lambda: client.feature_extractors.extract_embeddings(
            type_=models.InputType.TEXT, vector_index=models.VectorModel.KEYWORD, value="a cup"
        ),
    )
    feature = listed.results[0].feature_id
    run("feature read", lambda: calls.get(feature_id=feature, return_vectors=True))
    run("feature updated", lambda: calls.update(feature_id=feature, metadata={}))
    run("feature deleted", lambda: calls.delete(feature_id=feature))
    run("asset deleted", lambda: client.assets.delete(asset_id=asset))


def _text(run: Steps, client: Mixpeek) -> None:
    embed = {"type": models.InputType.TEXT, "vector_index": models.VectorModel.TEXT, "value": "a red cup"}
    run(
        "text ingested",
        lambda: client.ingest.text(collection=_COLLECTION, metadata={}, feature_extractors={"embed": [embed]}),
    )


def _organizations(run: Steps, client: Mixpeek) -> None:
    calls, who = client.organizations, "mixpeek-015@example.org"
    run("key made", lambda: calls.create_api_key(user_email=who, key_name="one"))
    read = [models.Permission.READ]
    run("key changed", lambda: calls.update_api_key(user_email=who, key_name="one", name="two", permissions=read))
    run("user read", lambda: calls.get_user(user_email=who))
    run("organization read", lambda: calls.get())
    run("usage read", lambda: calls.get_usage())
    run("key deleted", lambda: calls.delete_api_key(user_email=who, key_name="two"))
    run("key made again", lambda: calls.create_api_key(user_email=who))
    run("user deleted", lambda: calls.delete_user(user_email=who))


def _errors(run: Steps, client: Mixpeek, url: str, key: str, slow_key: str) -> None:
    with Mixpeek(token=slow_key, server_url=url) as hasty:
        run("first call of a minute", lambda: hasty.namespaces.list())
        run("second call of a minute", lambda: hasty.namespaces.list())
    with Mixpeek(token="lm_unknown", server_url=url) as stranger:
        run("unknown key", lambda: stranger.collections.list())
    with Mixpeek(token=key, server_url=url) as unscoped:
        run("unknown namespace", lambda: unscoped.collections.list(x_namespace="nobody-s"))
    run("unknown task", lambda: client.tasks.get(task_id="nowhere"))
    run("unknown asset", lambda: client.assets.get(asset_id="nowhere"))
    run("wrong url", lambda: client.ingest.image_url(url="ftp://nowhere", collection=_COLLECTION))
    run("wrong name", lambda: client.namespaces.create(namespace_name="no spaces", vector_indexes=["image"]))
    # The client's own retries, which wait in milliseconds, take the server's refusal at its word.
    quick = RetryConfig("backoff", BackoffStrategy(1, 2, 1.0, 5), False)
    run("no video", lambda: client.ingest.video_from_url(url="http://a/b.mp4", collection=_COLLECTION, retries=quick))


if __name__ == "__main__":
    main()
