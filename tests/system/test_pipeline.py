"""An image goes through the whole mesh: what comes out at both doors."""

from __future__ import annotations

from tests.conftest import Api, PhotoHost

EVERYTHING = {
    "read": {"vector_index": "keyword"},
    "describe": {"vector_index": "text", "max_length": 20},
    "detect": {"faces": {}, "logos": {}},
    "json_output": {"response_shape": {"faces": "int", "text": ["str"], "unheard_of": "str"}},
    "embed": [{"type": "url", "vector_index": "multimodal"}, {"type": "url", "vector_index": "image"}],
}


async def test_everything_asked_for_is_done(tenant: Api, photos: PhotoHost) -> None:
    """A task with every step ends DONE, each step with its state, and the asset holds what was found."""
    body = {"url": photos.picture_url(1), "collection_id": "c", "metadata": {"a": 1}, "feature_extractors": EVERYTHING}
    task = await tenant.run(body)
    assert "DONE" == task["status"], task
    steps = {"fetch", "read", "describe", "faces", "logos", "json_output", "embed", "store"}
    assert steps == set(task["steps"])
    assert {"DONE"} == {step["state"] for step in task["steps"].values()}
    found = (await tenant.http.get(f"/assets/{task['asset_id']}/features")).json()
    feature = found["features"]["image"][0]
    assert "trivial" == feature["text"]
    assert len(feature["description"]) <= 20
    assert {"faces": 1, "text": ["trivial"], "unheard_of": None} == feature["json_output"]
    assert {"multimodal", "image", "text", "keyword"} == {each["field_name"] for each in feature["vector_info"]}
    assert {"a": 1} == found["asset"]["metadata"]
