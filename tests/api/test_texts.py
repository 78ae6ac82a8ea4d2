"""Texts: embedded, stored, searched, percolated and updated like images, as assets of their own modality."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from lensmesh.v1 import index_pb2

from tests.api.doors import rest_refusal, rpc
from tests.conftest import Api

TEXT = "/index/text"


def embed(value: str, index: str = "text", **more: Any) -> dict[str, Any]:
    """One embedding of a text."""
    return {"type": "text", "vector_index": index, "value": value, **more}


async def run(client: Api, body: dict[str, Any], path: str = TEXT) -> dict[str, Any]:
    """Index a text and wait for its end."""
    response = await client.http.post(path, json=body)
    assert 200 == response.status_code, response.text
    return await client.finished(response.json()["task_id"])


async def features_of(client: Api, asset_id: str) -> list[dict[str, Any]]:
    """The features of a text's asset; none of them is an image's."""
    features = (await client.http.get(f"/assets/{asset_id}/features")).json()["features"]
    assert [] == features["image"]
    return list(features["text"])


async def test_a_text_becomes_an_asset(space: Api, collection: str) -> None:
    """Its texts, joined, are the feature's text, and their hash is the file's; every index finds it by words."""
    first, second = f"A red kite over {collection}", "and a second thought"
    inputs = [embed(first), embed(first, "keyword"), embed(second, "multimodal")]
    body = {"collection_id": collection, "metadata": {"n": 1}, "feature_extractors": {"embed": inputs}}
    task = await run(space, body)
    text = f"{first}\n{second}"
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    assert ("DONE", {"embed", "store"}) == (task["status"], set(task["steps"]))
    assert [{"type": "text", "value": sha256}] == task["inputs"]
    assert ["text"] == [output["modality"] for output in task["outputs"]]
    asset = (await space.http.get(f"/assets/{task['asset_id']}")).json()
    assert ("text", sha256, {"n": 1}) == (asset["modality"], asset["file_hash"], asset["metadata"])
    [feature] = await features_of(space, task["asset_id"])
    assert ("text", text, None) == (feature["modality"], feature["text"], feature["description"])
    for index, value in (("text", first), ("keyword", "kite"), ("multimodal", second)):
        query = {"vector_index": index, "type": "text", "value": value}
        search = {"collection_ids": [collection], "queries": [query]}
        found = (await space.http.post("/features/search", json=search)).json()["results"]
        assert [feature["feature_id"]] == [each["feature_id"] for each in found], index
    for modality, ids in (("text", [feature["feature_id"]]), ("image", [])):
        narrowed = {**search, "queries": [query | {"settings": {"modality": modality}}]}
        found = (await space.http.post("/features/search", json=narrowed)).json()["results"]
        assert ids == [each["feature_id"] for each in found], modality


async def test_a_text_comes_by_grpc(space: Api, collection: str) -> None:
    """The gRPC door takes what REST takes."""
    extractors = index_pb2.TextExtractors(embed=[index_pb2.Embed(type=2, vector_index=3, value=f"by {collection}")])
    request = index_pb2.IndexTextRequest(collection_id=collection, feature_extractors=extractors)
    task = await space.finished((await rpc(space, "IndexText", request)).task_id)
    assert ("DONE", "text") == (task["status"], task["outputs"][0]["modality"])


@pytest.mark.parametrize(
    ("extractors", "place", "says"),
    [
        (None, "feature_extractors.embed", "required"),
        ({}, "feature_extractors.embed", "required"),
        ({"embed": []}, "feature_extractors.embed", "required"),
        ({"embed": [{"type": "url", "vector_index": "image"}]}, "feature_extractors.embed.0.type", "'text'"),
        (
            {"embed": [embed("x"), {"type": "base64", "vector_index": "multimodal", "value": "eA=="}]},
            "feature_extractors.embed.1.type", "'text'",
        ),
        ({"embed": [embed("x", "image")]}, "feature_extractors.embed.0", "image index takes images"),
        ({"embed": [embed("x", "face")]}, "feature_extractors.embed.0", "face"),
        ({"embed": [embed("  ")]}, "feature_extractors.embed.0.value", "blank"),
        ({"embed": [embed("x")], "read": {}}, "feature_extractors.read", "not a field"),
        ({"embed": [embed("x")], "json_output": {"response_shape": {"a": "date"}}},
         "feature_extractors.json_output.response_shape.a", "must be one of"),
    ],
)  # fmt: skip
async def test_what_is_no_text_is_refused(space: Api, extractors: Any, place: str, says: str) -> None:
    """Whatever has no text to embed, or an extractor for images, is a 422 at its field."""
    refusal = rest_refusal(await space.http.post(TEXT, json={"collection_id": "c", "feature_extractors": extractors}))
    assert (422, "validation_error") == (refusal.code, refusal.type)
    assert says in refusal.fields[place], refusal.fields


async def test_the_shape_of_a_text_is_filled_with_what_is_known(space: Api, collection: str) -> None:
    """Without a vision-language model: the text, its lines and words; unknown is null, and a prompt was not used."""
    shape = {"text": "str", "lines": ["str"], "word_count": "int", "has_text": "bool", "faces": "int", "mood": "str"}
    extractors = {
        "embed": [embed(f"one two\nthree {collection}")],
        "json_output": {"response_shape": shape, "prompt": "How does it feel?"},
    }
    task = await run(space, {"collection_id": collection, "feature_extractors": extractors}, "/v1/ingest/text")
    assert ("DONE", True) == (task["status"], "prompt was not used" in task["steps"]["json_output"]["note"])
    [feature] = await features_of(space, task["asset_id"])
    assert {
        "text": f"one two\nthree {collection}",
        "lines": ["one two", f"three {collection}"],
        "word_count": 4,
        "has_text": True,
        "faces": None,
        "mood": None,
    } == feature["json_output"]


async def test_the_same_text_is_a_duplicate(space: Api, collection: str) -> None:
    """The same text in a collection is skipped or copied as asked; another text is none."""
    extractors = {"embed": [embed(f"said twice in {collection}")], "json_output": {"response_shape": {"text": "str"}}}
    body = {"collection_id": collection, "feature_extractors": extractors}
    first = await run(space, body)
    skipped = await run(space, body | {"skip_duplicate": True})
    assert ("FAILED", "duplicate_asset", first["asset_id"]) == (
        skipped["status"], skipped["error"]["type"], skipped["asset_id"],
    )  # fmt: skip
    assert "same text" in skipped["error"]["message"]
    copied = await run(space, body | {"on_duplicate": "copy_features"})
    asset = (await space.http.get(f"/assets/{copied['asset_id']}")).json()
    assert first["asset_id"] == asset["duplicate_of"]
    assert {f"copied from asset {first['asset_id']}"} == {
        copied["steps"][name]["note"] for name in ("json_output", "embed")
    }
    [feature] = await features_of(space, copied["asset_id"])
    assert {"text": f"said twice in {collection}"} == feature["json_output"]
    other = {"embed": [embed(f"said once in {collection}")]}
    assert "DONE" == (await run(space, body | {"feature_extractors": other, "skip_duplicate": True}))["status"]


async def test_a_text_is_updated(space: Api, collection: str) -> None:
    """Replace drops the old feature and metadata, append keeps both and adds."""
    body = {"collection_id": collection, "metadata": {"a": 1}, "feature_extractors": {"embed": [embed("first")]}}
    asset_id = (await run(space, body))["asset_id"]
    for mode, text, texts, metadata in (
        ("append", "second", ["first", "second"], {"a": 1, "b": 2}),
        ("replace", "third", ["third"], {"b": 2}),
    ):
        changed = {
            "collection_id": collection,
            "asset_update": {"asset_id": asset_id, "mode": mode},
            "metadata": {"b": 2},
            "feature_extractors": {"embed": [embed(text)]},
        }
        assert asset_id == (await run(space, changed))["asset_id"]
        assert texts == [feature["text"] for feature in await features_of(space, asset_id)]
        assert metadata == (await space.http.get(f"/assets/{asset_id}")).json()["metadata"]


async def test_a_text_is_percolated(space: Api, collection: str) -> None:
    """Stored queries match a text, and one that filters for images does not."""
    query = {"vector_index": "text", "type": "text", "value": f"breaking news of {collection}"}
    stored = {"collection_ids": [collection], "queries": [query], "min_score": 0.9}
    for_all = (await space.http.post("/percolators/queries", json=stored)).json()["percolator_id"]
    for name in ("image", "text"):
        filters = {"key": "modality", "operator": "eq", "value": name}
        response = await space.http.post("/percolators/queries", json=stored | {"filters": filters})
        assert 200 == response.status_code, response.text
        for_texts = response.json()["percolator_id"]
    extractors = {"embed": [embed(query["value"])]}
    task = await run(space, {"collection_id": collection, "percolate": {}, "feature_extractors": extractors})
    assert {for_all, for_texts} == {match["percolator_id"] for match in task["matches"]}


async def test_a_text_has_no_near_duplicates(space: Api, collection: str) -> None:
    """A text has no perceptual hash, and the refusal names the asset."""
    task = await run(
        space, {"collection_id": collection, "feature_extractors": {"embed": [embed(f"like {collection}")]}}
    )
    refusal = rest_refusal(await space.http.post(f"/assets/{task['asset_id']}/near-duplicates", json={}))
    assert (422, {"asset_id"}) == (refusal.code, set(refusal.fields))
