"""What is extracted: every kind of input, defaults, blocks that are on or off, and who wins one field."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.conftest import Api, PhotoHost, picture

READ_TEXT, CAPTION = "trivial", "A trivial caption"


async def extracted(client: Api, photos: PhotoHost, collection: str, number: int, blocks: Any) -> dict[str, Any]:
    """The one feature of an asset with these extractors."""
    body = {"url": photos.picture_url(number), "collection_id": collection, "feature_extractors": blocks}
    task = await client.run(body)
    assert "DONE" == task["status"], task
    found = (await client.http.get(f"/assets/{task['asset_id']}/features")).json()["features"]["image"]
    assert 1 == len(found)
    return found[0] | {"steps": task["steps"]}


def names(feature: dict[str, Any]) -> dict[str, str]:
    """The index of each stored field."""
    return {each["field_name"]: each["vector_index"] for each in feature["vector_info"]}


async def score(client: Api, collection: str, index: str, kind: str, value: str) -> float:
    """The best score of a query in a collection, 0 without a result."""
    query = {"vector_index": index, "type": kind, "value": value}
    found = await client.http.post("/features/search", json={"queries": [query], "collection_ids": [collection]})
    assert found.status_code == 200, found.text
    return max([0.0, *(each["score"] for each in found.json()["results"])])


async def test_by_default_the_image_is_embedded(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """Without extractors, the image goes into the multimodal index and nothing else is done."""
    feature = await extracted(space, photos, collection, number, None)
    assert {"multimodal": "multimodal"} == names(feature)
    assert {"fetch", "embed", "store"} == set(feature["steps"])
    assert [None] * 4 == [feature[key] for key in ("text", "description", "detect", "json_output")]
    encoded = base64.b64encode(picture(number)).decode()
    assert await score(space, collection, "multimodal", "base64", encoded) > 0.999


@pytest.mark.parametrize("kind", ["url", "url with a value", "file", "base64", "data url", "text"])
async def test_every_kind_of_input(space: Api, collection: str, photos: PhotoHost, number: int, kind: str) -> None:
    """Each kind of input is embedded under its field name, and found by the same input."""
    other = picture(number + 1)
    file_id = (await space.http.post("/files", content=other)).json()["file_id"]
    encoded = base64.b64encode(other).decode()
    one: dict[str, Any] = {
        "url": {"type": "url"},
        "url with a value": {"type": "url", "value": photos.picture_url(number + 1)},
        "file": {"type": "file", "value": file_id},
        "base64": {"type": "base64", "value": encoded},
        "data url": {"type": "base64", "value": f"data:image/jpeg;base64,{encoded}"},
        "text": {"type": "text", "value": "some words"},
    }[kind]
    embed = [one | {"vector_index": "multimodal", "field_name": "mine"}]
    feature = await extracted(space, photos, collection, number, {"embed": embed})
    assert {"mine": "multimodal"} == names(feature)
    if kind == "text":
        assert await score(space, collection, "multimodal", "text", "some words") > 0.999
    else:
        number += 0 if kind == "url" else 1
        assert await score(space, collection, "multimodal", "url", photos.picture_url(number)) > 0.999
        assert await score(space, collection, "multimodal", "url", photos.picture_url(number + 5)) < 0.9


async def test_an_uploaded_file_is_known_by_its_content(space: Api) -> None:
    """The id of a file is its SHA-256, so that uploading twice gives one id."""
    answers = [(await space.http.post("/files", content=b"the same")).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert (8, 64) == (answers[0]["size_bytes"], len(answers[0]["file_id"]))


async def test_blocks_are_on_when_present(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """An empty block is on, null and a block that is switched off are off."""
    on = await extracted(space, photos, collection, number, {"read": {}, "describe": {}, "detect": {"faces": {}}})
    # A caption uses the text when it was read anyway.
    assert {"fetch", "read", "describe", "faces", "store"} == set(on["steps"])
    assert (READ_TEXT, f'{CAPTION} with the text "{READ_TEXT}"') == (on["text"], on["description"])
    assert (1, []) == (len(on["detect"]["faces"]), on["detect"]["logos"])
    off = {
        "read": None, "describe": {"enabled": False, "vector_index": "text"},
        "detect": {"faces": {"enabled": False}, "logos": {}}, "json_output": None, "embed": [],
    }  # fmt: skip
    feature = await extracted(space, photos, collection, number + 1, off)
    assert {"fetch", "logos", "store"} == set(feature["steps"])
    assert ([], None, None) == (feature["vector_info"], feature["text"], feature["description"])
    nothing = await extracted(space, photos, collection, number + 2, {})
    assert {"fetch", "store"} == set(nothing["steps"])


async def test_a_confidence_threshold_drops_findings(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """Findings below the given threshold are dropped; the trivial face has 0.9."""
    kept = await extracted(space, photos, collection, number, {"detect": {"faces": {"confidence_threshold": 0.9}}})
    dropped = await extracted(space, photos, collection, number, {"detect": {"faces": {"confidence_threshold": 0.91}}})
    assert (1, 0) == (len(kept["detect"]["faces"]), len(dropped["detect"]["faces"]))


async def test_a_description_is_cut_at_a_word(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """max_length is in characters."""
    feature = await extracted(space, photos, collection, number, {"describe": {"max_length": 12}})
    assert "A trivial" == feature["description"]


async def test_the_last_writer_of_a_field_wins(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """Of several vectors for one index and field name the last stands: read, then embed, then describe."""
    text = {"type": "text", "vector_index": "text"}
    feature = await extracted(
        space, photos, collection, number,
        {"read": {"vector_index": "text"}, "embed": [text | {"value": "first"}, text | {"value": "second"}]},
    )  # fmt: skip
    assert {"text": "text"} == names(feature)
    scores = [await score(space, collection, "text", "text", each) for each in ("second", "first", READ_TEXT)]
    assert [True, False, False] == [each > 0.99 for each in scores]
    described = f"{collection}-described"
    blocks = {"describe": {"vector_index": "text"}, "embed": [text | {"value": "first"}]}
    await extracted(space, photos, described, number, blocks)
    scores = [await score(space, described, "text", "text", each) for each in (CAPTION, "first")]
    assert [True, False] == [each > 0.99 for each in scores]


async def test_two_field_names_of_one_index_stand_side_by_side(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """One index takes several vectors of a feature under different names; a search finds the feature once."""
    text = {"type": "text", "vector_index": "text"}
    embed = [text | {"value": "one", "field_name": "a"}, text | {"value": "two", "field_name": "b"}]
    feature = await extracted(space, photos, collection, number, {"embed": embed})
    assert {"a": "text", "b": "text"} == names(feature)
    for value in ("one", "two"):
        assert await score(space, collection, "text", "text", value) > 0.99
    query = {"vector_index": "text", "type": "text", "value": "one"}
    found = await space.http.post("/features/search", json={"queries": [query], "collection_ids": [collection]})
    assert [feature["feature_id"]] == [each["feature_id"] for each in found.json()["results"]]


async def test_a_shape_is_filled_exactly(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """Structured output has the shape's keys and types, with null for what nothing was measured for."""
    shape = {"text": "str", "face_count": "int", "has_face": "bool", "inner": {"width": "float"}, "moon": "str"}
    feature = await extracted(
        space, photos, collection, number, {"json_output": {"response_shape": shape | {"colors": ["str"]}}}
    )
    expected = {"text": READ_TEXT, "face_count": 1, "has_face": True, "inner": {"width": 64}, "moon": None}
    assert expected | {"colors": ["gray"]} == feature["json_output"]


async def test_a_prompt_that_can_not_be_used_is_noted(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """A prompt that the model set takes none of is said in the step, not ignored silently."""
    feature = await extracted(space, photos, collection, number, {"describe": {"prompt": "as a poem"}})
    assert "the prompt was not used" in feature["steps"]["describe"]["note"]


async def test_a_feature_says_which_model_said_what(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """Every step's finding names the version of its model; a step that was not asked for is not there."""
    extractors = {"read": {}, "describe": {}, "detect": {"faces": {}}, "json_output": {"response_shape": {"w": "int"}}}
    body = {"url": photos.picture_url(number), "collection_id": collection, "feature_extractors": extractors}
    task = await space.run(body)
    answer = (await space.http.get(f"/assets/{task['asset_id']}/features")).json()
    expected = dict.fromkeys(("read", "describe", "faces", "json_output"), "trivial-1")
    assert answer["features"]["image"][0]["models"] == expected
