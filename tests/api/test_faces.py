"""Search by face: off unless a namespace has the index, then every detected face is found by a picture of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runner.mesh import Mesh
from tests.conftest import Api, PhotoHost, api_of


@pytest.fixture(scope="module")
async def known(mesh: Mesh, api: Api) -> AsyncIterator[Api]:
    """A client with a key for a namespace that may search by face."""
    name = f"faces-{time.time_ns() % 10**9}"
    made = await api.http.post("/namespaces", json={"namespace_name": name, "vector_indexes": ["image", "face"]})
    assert made.status_code == 200, made.text
    key = await api.http.post(f"/organizations/users/{name}@example.org/api-keys", json={"namespaces": [name]})
    client = api_of(mesh, key.json()["api_key"])
    yield client
    await client.http.aclose()
    await client.channel.close()


def body(photos: PhotoHost, number: int, **faces: Any) -> dict[str, Any]:
    """An asset whose faces are looked for."""
    url = photos.picture_url(7_500_000 + number)
    return {"url": url, "collection_id": "c", "feature_extractors": {"detect": {"faces": faces}}}


async def features(client: Api, task: dict[str, Any]) -> dict[str, Any]:
    """The feature of a task's asset."""
    assert task["status"] == "DONE", task
    answer = await client.http.get(f"/assets/{task['asset_id']}/features")
    return dict(answer.json()["features"]["image"][0])


async def by_face(client: Api, photos: PhotoHost, number: int) -> list[dict[str, Any]]:
    """What a search by the face on a picture finds."""
    query = {"vector_index": "face", "type": "url", "value": photos.picture_url(7_500_000 + number)}
    answer = await client.http.post("/features/search", json={"queries": [query], "collection_ids": ["c"]})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["results"])


async def test_a_face_is_found_by_a_picture_of_it(known: Api, photos: PhotoHost) -> None:
    """Each face has a vector under the name that its finding says, and a picture of it finds its image first."""
    tasks = [await known.run(body(photos, number)) for number in range(3)]
    feature = await features(known, tasks[1])
    assert [face["field_name"] for face in feature["detect"]["faces"]] == ["face-0"]
    assert [(each["vector_index"], each["field_name"]) for each in feature["vector_info"]] == [("face", "face-0")]
    best = (await by_face(known, photos, 1))[0]
    assert (best["asset_id"], best["score"]) == (tasks[1]["asset_id"], 1.0)


async def test_a_request_may_leave_its_faces_out(known: Api, photos: PhotoHost) -> None:
    """With embed false the faces are detected, but nobody can search by them."""
    feature = await features(known, await known.run(body(photos, 10, embed=False)))
    assert [face["field_name"] for face in feature["detect"]["faces"]] == [""]
    assert feature["vector_info"] == []


async def test_other_namespaces_keep_no_faces(space: Api, collection: str, photos: PhotoHost) -> None:
    """A namespace without the index detects faces and stores no vector of them; asking for one is refused."""
    plain = body(photos, 20) | {"collection_id": collection}
    assert (await features(space, await space.run(plain)))["vector_info"] == []
    refused = await space.http.post("/index/images/url", json=body(photos, 21, embed=True))
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", "feature_extractors", "detect", "faces", "embed"]
    assert "no index 'face'" in refused.json()["detail"][0]["msg"]
    query = {"vector_index": "face", "type": "url", "value": photos.picture_url(7_500_020)}
    searched = await space.http.post("/features/search", json={"queries": [query], "collection_ids": [collection]})
    assert searched.status_code == 422


async def test_a_stored_query_matches_a_face(known: Api, photos: PhotoHost) -> None:
    """A stored picture of a face is matched by a new image of it, and by no other."""
    query = {"vector_index": "face", "type": "url", "value": photos.picture_url(7_500_030)}
    request = {"collection_ids": ["c"], "queries": [query], "min_score": 0.99}
    stored = (await known.http.post("/percolators/queries", json=request)).json()["percolator_id"]
    matched = await known.run(body(photos, 30) | {"percolate": {}})
    other = await known.run(body(photos, 31) | {"percolate": {}})
    assert [each["percolator_id"] for each in matched["matches"]] == [stored]
    assert other["matches"] == []


@pytest.mark.parametrize(
    ("extractors", "place"),
    [
        ({"detect": {"logos": {"embed": True}}}, ["detect", "logos", "embed"]),
        ({"read": {"vector_index": "face"}}, ["read", "vector_index"]),
        ({"embed": [{"type": "url", "vector_index": "face"}]}, ["embed", 0]),
    ],
)
async def test_only_detected_faces_go_into_that_index(
    known: Api, photos: PhotoHost, extractors: dict[str, Any], place: list[Any]
) -> None:
    """Texts, whole images and logos are refused by the index face, and the answer names the place."""
    request = {"url": photos.picture_url(1), "collection_id": "c", "feature_extractors": extractors}
    refused = await known.http.post("/index/images/url", json=request)
    assert refused.status_code == 422, refused.text
    assert refused.json()["detail"][0]["loc"][: 2 + len(place)] == ["body", "feature_extractors", *place]


async def test_texts_find_no_faces(known: Api) -> None:
    """A text can't be searched for among faces."""
    query = {"vector_index": "face", "type": "text", "value": "Ada"}
    refused = await known.http.post("/features/search", json={"queries": [query], "collection_ids": ["c"]})
    assert refused.status_code == 422
    assert "image and face take images" in refused.text
