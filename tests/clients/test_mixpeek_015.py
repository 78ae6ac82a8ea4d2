"""The published client mixpeek 0.15.0, unmodified, against the running mesh."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.mesh import Mesh
from tests.clients.conftest import NAMESPACE, key_for_one_call, run_script
from tests.conftest import Api, PhotoHost


@pytest.fixture(scope="session")
async def steps(mesh: Mesh, room: Api, photos: PhotoHost) -> dict[str, Any]:
    """What the client made of each answer."""
    image = photos.picture_url(7_000_001)
    slow = await key_for_one_call(room, "015")
    return await run_script("mixpeek-0.15", "mixpeek_015.py", mesh.rest_url, mesh.api_key, NAMESPACE, image, slow)


REFUSALS = {
    "unknown key": ("ErrorResponse", 401),
    "unknown namespace": ("ErrorResponse", 404),
    "unknown task": ("ErrorResponse", 404),
    "unknown asset": ("ErrorResponse", 404),
    "wrong url": ("HTTPValidationError", None),
    "wrong name": ("HTTPValidationError", None),
    "second call of a minute": ("APIError", None),
    "no video": ("APIError", None),
}


async def test_it_understands_every_answer(steps: dict[str, Any]) -> None:
    """Only what was meant to be refused raises, and it raises the client's own class for that status."""
    raised = {name: (each["raised"], each["status"]) for name, each in steps.items() if "raised" in (each or {})}
    assert REFUSALS == raised, {name: steps[name] for name in raised if name not in REFUSALS}


async def test_it_reads_why_it_was_refused(steps: dict[str, Any]) -> None:
    """Types, messages and places of mistakes arrive in the client's exceptions."""
    unknown = json.loads(steps["unknown key"]["text"])["error"]
    assert ("unauthenticated", "this API key is not known") == (unknown["type"], unknown["message"])
    assert ["body", "url"] == json.loads(steps["wrong url"]["text"])["detail"][0]["loc"]
    assert ["body", "namespace_name"] == json.loads(steps["wrong name"]["text"])["detail"][0]["loc"]
    assert "Status 501" in steps["no video"]["text"]
    assert "Status 429" in steps["second call of a minute"]["text"]


async def test_it_indexes_an_image(steps: dict[str, Any]) -> None:
    """The task that it polls ends DONE, with the input and the feature that came of it."""
    assert "DONE" == steps["task ended"]["status"]
    assert ["url"] == [each["type"] for each in steps["task ended"]["inputs"]]
    feature = steps["task ended"]["outputs"][0]["feature_id"]
    assert [feature] == [each["feature_id"] for each in steps["features listed"]["results"]]
    assert steps["task deleted"]["task_id"] == steps["image ingested"]["task_id"]


async def test_it_keeps_collections(steps: dict[str, Any]) -> None:
    """Collections are made, listed, read, renamed and deleted in the namespace that it names."""
    made = steps["collection created"]
    assert steps["namespace read"]["namespace_id"] == made["namespace_id"]
    assert made["collection_id"] in [each["collection_id"] for each in steps["collections listed"]["results"]]
    assert made["collection_id"] == steps["collection read"]["collection_id"]
    assert "mixpeek-015-b" == steps["collection renamed"]["collection_name"]
    assert steps["collection deleted"]["deleted"] is True


async def test_it_keeps_keys(steps: dict[str, Any]) -> None:
    """Keys are made, renamed, listed by user and organization, and deleted; the use of all is counted."""
    made, changed = steps["key made"], steps["key changed"]
    assert made["key"].startswith("lm_")
    assert ("one", "two", ["read"]) == (made["name"], changed["name"], changed["permissions"])
    assert ["two"] == [each["name"] for each in steps["user read"]["api_keys"]]
    assert steps["user read"]["email"] in [each["email"] for each in steps["organization read"]["users"]]
    assert steps["usage read"]["total_credits"] == sum(day["credits"] for day in steps["usage read"]["dates"])
    assert steps["key deleted"]["deleted"] is steps["user deleted"]["deleted"] is True
    assert "default" == steps["key made again"]["name"]


async def test_it_ingests_a_text(steps: dict[str, Any]) -> None:
    """A text is accepted with a task."""
    assert steps["text ingested"]["task_id"]


async def test_it_keeps_namespaces(steps: dict[str, Any]) -> None:
    """Namespaces are made, listed, read, renamed and deleted, and the indexes described."""
    made = steps["namespace created"]
    assert ["image", "keyword"] == made["vector_indexes"]
    assert ["metadata.price"] == [each["field_name"] for each in made["payload_indexes"]]
    renamed = steps["namespace updated"]
    assert (made["namespace_id"], f"{NAMESPACE}-other-b") == (renamed["namespace_id"], renamed["namespace_name"])
    assert steps["namespace deleted"] == {"namespace_id": made["namespace_id"], "deleted": True}
    assert NAMESPACE in [each["namespace_name"] for each in steps["namespaces listed"]]
    assert "sparse" == steps["indexes listed"]["vector_indexes"]["keyword"]["vector_type"]


async def test_it_reads_and_changes_assets_and_features(steps: dict[str, Any]) -> None:
    """Assets and features are found again under their ids, with their vectors and links."""
    asset = steps["asset read"]["asset_id"]
    assert steps["asset read"]["preview_url"].startswith("/previews/")
    assert {asset} == {steps[name]["asset_id"] for name in ("asset updated", "asset patched", "asset deleted")}
    assert asset == steps["asset with features"]["asset"]["asset_id"]
    assert 1 == steps["assets listed"]["pagination"]["total"]
    assert 0 == steps["assets found"]["pagination"]["total"]
    assert {"keyword", "looks", "multimodal"} == set(steps["feature read"]["vectors"])
    assert steps["feature deleted"]["deleted"] is True


async def test_it_embeds(steps: dict[str, Any]) -> None:
    """Dense and sparse vectors come in the client's own shapes."""
    assert 64 == len(steps["text embedded"]["embedding"]["vector"])
    words = steps["words embedded"]["embedding"]
    assert 2 == len(words["indices"]) == len(words["values"])
