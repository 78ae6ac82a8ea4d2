"""The same file twice in one collection: refused, copied or indexed anew as asked, also when both come at once."""

from __future__ import annotations

import asyncio
import base64
from itertools import count
from typing import Any

import pytest
from lensmesh.v1 import index_pb2, task_pb2

from tests.api.doors import assets_in, rest_refusal, rpc, rpc_refused
from tests.conftest import Api, PhotoHost, picture

ROUNDS = 50
numbers = count(100_000)


async def test_of_two_at_once_one_is_stored(space: Api, collection: str, photos: PhotoHost) -> None:
    """Equal files sent at the same moment with skip_duplicate give one asset, and a failure that names it."""

    async def one_round(number: int) -> None:
        url = photos.put(f"twice/{number}.png", picture(number, (40 + number % 17, 30), "PNG"), "image/png")
        body = {"url": url, "collection_id": f"{collection}-{number % 5}", "skip_duplicate": True}
        tasks = await asyncio.gather(space.run(body), space.run(body))
        assert ["DONE", "FAILED"] == sorted(task["status"] for task in tasks), tasks
        made, refused = sorted(tasks, key=lambda task: str(task["status"]))
        assert ("duplicate_asset", "fetch", False) == tuple(
            refused["error"][key] for key in ("type", "stage", "retryable")
        )
        assert made["asset_id"] == refused["asset_id"]
        assert made["asset_id"] in refused["error"]["message"]
        assert [] == refused["outputs"]

    for _ in range(ROUNDS // 10):
        await asyncio.gather(*(one_round(next(numbers)) for _ in range(10)))
    assert ROUNDS == sum([await assets_in(space, f"{collection}-{each}") for each in range(5)])


async def test_a_refused_duplicate_is_the_same_at_both_doors(space: Api, collection: str, photos: PhotoHost) -> None:
    """gRPC shows the failed task with the existing asset's id as REST does."""
    body = {"url": photos.picture_url(next(numbers)), "collection_id": collection, "skip_duplicate": True}
    first = await space.run(body)
    second = await space.run(body)
    shown = (await rpc(space, "GetTask", task_pb2.GetTaskRequest(task_id=second["task_id"]))).task
    assert (task_pb2.TASK_STATUS_FAILED, "duplicate_asset") == (shown.status, shown.error.type)
    assert first["asset_id"] == shown.asset_id == second["asset_id"]
    assert first["task_id"] == (await space.http.get(f"/assets/{first['asset_id']}")).json()["task_id"]


@pytest.mark.parametrize("skip", [False, None])
async def test_a_wanted_duplicate_is_marked(space: Api, collection: str, photos: PhotoHost, skip: bool | None) -> None:
    """Without skip_duplicate, which ships as off, a second asset is made that names the first."""
    body = {"url": photos.picture_url(next(numbers)), "collection_id": collection, "skip_duplicate": skip}
    first, second = await space.run(body), await space.run(body)
    assert ("DONE", "DONE") == (first["status"], second["status"])
    assert first["asset_id"] != second["asset_id"]
    assets = [(await space.http.get(f"/assets/{each['asset_id']}")).json() for each in (first, second)]
    assert [None, first["asset_id"]] == [each["duplicate_of"] for each in assets]
    assert assets[0]["unique_hash"] == assets[0]["file_hash"] == assets[1]["file_hash"]
    assert 2 == await assets_in(space, collection)


async def test_another_collection_or_namespace_has_its_own_duplicates(
    space: Api, collection: str, api: Api, photos: PhotoHost
) -> None:
    """The same file in another collection, or in another namespace, is no duplicate."""
    body = {"url": photos.picture_url(next(numbers)), "collection_id": collection, "skip_duplicate": True}
    tasks = [await space.run(body), await space.run(body | {"collection_id": f"{collection}-b"}), await api.run(body)]
    assert ["DONE"] * 3 == [task["status"] for task in tasks], tasks
    assert 3 == len({task["asset_id"] for task in tasks})


async def test_the_same_url_with_another_file_is_no_duplicate(space: Api, collection: str, photos: PhotoHost) -> None:
    """The file counts, not its URL: a changed file under one URL is new, an equal file under another is not."""
    path = f"changing/{next(numbers)}.jpg"
    body = {
        "url": photos.put(path, picture(next(numbers), (50, 60))),
        "collection_id": collection,
        "skip_duplicate": True,
    }
    content = picture(next(numbers), (61, 60))
    assert "DONE" == (await space.run(body))["status"]
    photos.put(path, content)
    assert "DONE" == (await space.run(body))["status"]
    again = body | {"url": photos.put(f"other/{path}", content)}
    assert "duplicate_asset" == (await space.run(again))["error"]["type"]


async def test_a_file_whose_task_failed_can_be_indexed_again(space: Api, collection: str, photos: PhotoHost) -> None:
    """A file that could not be decoded leaves no claim, and neither does one whose URL was mended."""
    path = f"mended/{next(numbers)}.jpg"
    body = {"url": photos.put(path, b"not here", status=404), "collection_id": collection, "skip_duplicate": True}
    assert "FAILED" == (await space.run(body))["status"]
    photos.put(path, picture(next(numbers), (70, 60)))
    assert "DONE" == (await space.run(body))["status"]
    assert 1 == await assets_in(space, collection)


EVERYTHING = {
    "read": {"vector_index": "keyword"},
    "describe": {"vector_index": "text", "max_length": 40},
    "detect": {"faces": {}, "logos": {}},
    "json_output": {"response_shape": {"faces": "int"}},
    "embed": [
        {"type": "url", "vector_index": "multimodal"},
        {"type": "url", "vector_index": "image"},
        {"type": "text", "value": "a word", "vector_index": "text", "field_name": "words"},
    ],
}
COPIED = ("read", "describe", "faces", "logos", "json_output", "embed")


def notes(task: dict[str, Any]) -> dict[str, str | None]:
    """What each step says."""
    return {name: step["note"] for name, step in task["steps"].items()}


async def feature_of(client: Api, asset_id: str) -> dict[str, Any]:
    """The one feature of an asset, without what every feature has for itself."""
    (feature,) = (await client.http.get(f"/assets/{asset_id}/features")).json()["features"]["image"]
    own = ("feature_id", "asset_id", "task_id", "created_at", "metadata")
    return {key: value for key, value in feature.items() if key not in own}


@pytest.mark.parametrize("extractors", [None, EVERYTHING], ids=["default", "everything"])
async def test_features_are_copied(
    space: Api, collection: str, photos: PhotoHost, extractors: dict[str, Any] | None
) -> None:
    """copy_features makes a second asset with the first one's features, and each step says where they are from."""
    body = {
        "url": photos.picture_url(next(numbers)),
        "collection_id": collection,
        "feature_extractors": extractors,
        "on_duplicate": "copy_features",
        "metadata": {"number": 1},
    }
    first = await space.run(body)
    second = await space.run(body | {"metadata": {"number": 2}})
    assert ("DONE", "DONE") == (first["status"], second["status"]), second
    assert first["asset_id"] != second["asset_id"]
    assert {None} == set(notes(first).values())
    copied = COPIED if extractors else ("embed",)
    note = f"copied from asset {first['asset_id']}"
    assert {name: note if name in copied else None for name in notes(first)} == notes(second)
    assets = [(await space.http.get(f"/assets/{each['asset_id']}")).json() for each in (first, second)]
    assert [None, first["asset_id"]] == [each["duplicate_of"] for each in assets]
    assert [{"number": 1}, {"number": 2}] == [each["metadata"] for each in assets]
    features = [await feature_of(space, each["asset_id"]) for each in (first, second)]
    assert features[0] == features[1]
    assert features[0]["vector_info"]


async def test_what_was_embedded_is_copied_and_not_made_again(space: Api, collection: str, photos: PhotoHost) -> None:
    """The copy's vectors are those of the first asset, found by search; its inputs are not even fetched."""
    path = f"changing/{next(numbers)}.jpg"
    then, now = picture(next(numbers)), picture(next(numbers))
    embed = {"type": "url", "vector_index": "image", "value": photos.put(path, then), "field_name": "beside"}
    body = {
        "url": photos.picture_url(next(numbers)),
        "collection_id": collection,
        "feature_extractors": {"embed": [embed], "read": {"vector_index": "keyword"}},
        "on_duplicate": "copy_features",
    }
    first = await space.run(body)
    photos.put(path, now)
    copied, made = await space.run(body), await space.run(body | {"on_duplicate": "reindex"})

    async def found(query: dict[str, Any]) -> dict[str, float]:
        """Scores by asset."""
        search = {"queries": [query], "collection_ids": [collection]}
        answer = (await space.http.post("/features/search", json=search)).json()
        return {each["asset_id"]: each["score"] for each in answer["results"]}

    value = base64.b64encode(then).decode()
    images = await found({"vector_index": "image", "type": "base64", "value": value})
    assert {first["asset_id"], copied["asset_id"]} == {each for each, score in images.items() if score == 1}
    assert images[made["asset_id"]] < 1
    words = await found({"vector_index": "keyword", "type": "text", "value": "trivial"})
    assert words[first["asset_id"]] == words[copied["asset_id"]] > 0


async def test_copied_vectors_are_percolated(space: Api, collection: str, photos: PhotoHost) -> None:
    """A copy matches the stored queries as its original did, as an asset of its own."""
    stored = {
        "collection_ids": [collection],
        "queries": [{"vector_index": "text", "type": "text", "value": "a word"}],
        "min_score": 0.99,
    }
    percolator_id = (await space.http.post("/percolators/queries", json=stored)).json()["percolator_id"]
    body = {
        "url": photos.picture_url(next(numbers)),
        "collection_id": collection,
        "feature_extractors": EVERYTHING,
        "on_duplicate": "copy_features",
        "percolate": {},
    }
    first, second = await space.run(body), await space.run(body)
    matches = [(each["percolator_id"], each["asset_id"], each["score"]) for each in second["matches"]]
    assert [(percolator_id, second["asset_id"], first["matches"][0]["score"])] == matches
    assert f"copied from asset {first['asset_id']}" == notes(second)["embed"]


OTHERWISE = {
    "more": {"embed": [{"type": "url", "vector_index": "multimodal"}], "read": {}},
    "less": {"read": {}},
    "another threshold": {"read": {}, "detect": {"faces": {"confidence_threshold": 0.99}}},
    "another value": {"embed": [{"type": "text", "value": "b", "vector_index": "text"}]},
}


@pytest.mark.parametrize("asked", OTHERWISE.values(), ids=list(OTHERWISE))
async def test_other_extractors_are_carried_out(
    space: Api, collection: str, photos: PhotoHost, asked: dict[str, Any]
) -> None:
    """Where the first asset was made by other extractors, nothing is copied, and everything asked for is there."""
    body = {"url": photos.picture_url(next(numbers)), "collection_id": collection, "on_duplicate": "copy_features"}
    before = {
        "read": {},
        "detect": {"faces": {"confidence_threshold": 0.1}},
        "embed": [{"type": "text", "value": "a", "vector_index": "text"}],
    }
    first = await space.run(body | {"feature_extractors": before})
    second = await space.run(body | {"feature_extractors": asked})
    assert ("DONE", {None}) == (second["status"], set(notes(second).values()))
    assert first["asset_id"] == (await space.http.get(f"/assets/{second['asset_id']}")).json()["duplicate_of"]
    made = await feature_of(space, second["asset_id"])
    assert ("read" in asked) == (made["text"] is not None)
    assert len(asked.get("embed", [])) == len(made["vector_info"])
    if "detect" in asked:
        assert [] == made["detect"]["faces"]


async def test_a_replaced_asset_is_not_copied(space: Api, collection: str, photos: PhotoHost) -> None:
    """An asset that was replaced by another picture has nothing to copy for its old file."""
    body = {"url": photos.picture_url(next(numbers)), "collection_id": collection, "on_duplicate": "copy_features"}
    first = await space.run(body)
    update = {"asset_id": first["asset_id"], "mode": "replace"}
    other = body | {"url": photos.picture_url(next(numbers)), "asset_update": update}
    assert "DONE" == (await space.run(other))["status"]
    second = await space.run(body)
    assert ("DONE", {None}) == (second["status"], set(notes(second).values()))
    assert 1 == len((await feature_of(space, second["asset_id"]))["vector_info"])


async def test_of_many_copies_at_once_one_is_the_first(space: Api, collection: str, photos: PhotoHost) -> None:
    """Equal files sent at the same moment with copy_features all become assets with equal features, of one first."""

    async def one_round(number: int) -> None:
        body = {
            "url": photos.picture_url(number),
            "collection_id": collection,
            "feature_extractors": EVERYTHING,
            "on_duplicate": "copy_features",
        }
        tasks = await asyncio.gather(*(space.run(body) for _ in range(4)))
        assert ["DONE"] * 4 == [task["status"] for task in tasks], tasks
        late = await space.run(body)
        assets = [(await space.http.get(f"/assets/{each['asset_id']}")).json() for each in (*tasks, late)]
        (first,) = [each["asset_id"] for each in assets if each["duplicate_of"] is None]
        assert {None, first} == {each["duplicate_of"] for each in assets}
        assert f"copied from asset {first}" == notes(late)["embed"]
        features = [await feature_of(space, each["asset_id"]) for each in assets]
        assert all(each == features[0] for each in features), features

    await asyncio.gather(*(one_round(next(numbers)) for _ in range(6)))
    assert 6 * 5 == await assets_in(space, collection)


@pytest.mark.parametrize("both", [False, True])
async def test_on_duplicate_skip_is_skip_duplicate(space: Api, collection: str, photos: PhotoHost, both: bool) -> None:
    """on_duplicate skip refuses the second file as skip_duplicate does, and may be given beside it."""
    body = {"url": photos.picture_url(next(numbers)), "collection_id": collection, "on_duplicate": "skip"}
    body |= {"skip_duplicate": True} if both else {}
    first, second = await space.run(body), await space.run(body)
    assert ("FAILED", "duplicate_asset", first["asset_id"]) == (
        second["status"], second["error"]["type"], second["asset_id"]
    )  # fmt: skip
    assert 1 == await assets_in(space, collection)


async def test_reindex_makes_features_anew(space: Api, collection: str, photos: PhotoHost) -> None:
    """on_duplicate reindex makes a second asset that names the first, and copies nothing."""
    body = {"url": photos.picture_url(next(numbers)), "collection_id": collection, "on_duplicate": "reindex"}
    first, second = await space.run(body), await space.run(body | {"skip_duplicate": False})
    assert ("DONE", {None}) == (second["status"], set(notes(second).values()))
    assert first["asset_id"] == (await space.http.get(f"/assets/{second['asset_id']}")).json()["duplicate_of"]


async def test_features_are_copied_by_grpc(space: Api, collection: str, photos: PhotoHost) -> None:
    """The gRPC door takes on_duplicate as REST does."""
    request = index_pb2.IndexImageRequest(
        url=photos.picture_url(next(numbers)),
        collection_id=collection,
        on_duplicate=index_pb2.ON_DUPLICATE_COPY_FEATURES,
    )
    tasks = [await space.finished((await rpc(space, "IndexImage", request)).task_id) for _ in range(2)]
    assert f"copied from asset {tasks[0]['asset_id']}" == notes(tasks[1])["embed"]


async def test_a_contradiction_names_both_fields(space: Api, collection: str, photos: PhotoHost) -> None:
    """skip_duplicate beside another on_duplicate is refused at both doors, at both fields."""
    url = photos.picture_url(next(numbers))
    for skip, chosen, number in ((True, "reindex", 3), (True, "copy_features", 2), (False, "skip", 1)):
        body = {"url": url, "collection_id": collection, "skip_duplicate": skip, "on_duplicate": chosen}
        refusal = rest_refusal(await space.http.post("/index/images/url", json=body))
        assert (422, {"skip_duplicate", "on_duplicate"}) == (refusal.code, set(refusal.fields))
        request = index_pb2.IndexImageRequest(
            url=url, collection_id=collection, skip_duplicate=skip, on_duplicate=number
        )
        assert refusal.fields == (await rpc_refused(space, "IndexImage", request)).fields
