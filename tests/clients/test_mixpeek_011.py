"""The published client mixpeek 0.11.0, unmodified, against the running mesh."""

from __future__ import annotations

from typing import Any

import pytest

from runner.mesh import Mesh
from tests.clients.conftest import NAMESPACE, key_for_one_call, run_script
from tests.conftest import Api, PhotoHost


@pytest.fixture(scope="session")
async def steps(mesh: Mesh, room: Api, photos: PhotoHost) -> dict[str, Any]:
    """What the client made of each answer."""
    image = photos.picture_url(7_000_002)
    slow = await key_for_one_call(room, "011")
    return await run_script("mixpeek-0.11", "mixpeek_011.py", mesh.rest_url, mesh.api_key, NAMESPACE, image, slow)


REFUSALS = {
    "second call of a minute": ("RateLimitError", 429),
    "no key": ("AuthenticationError", 401),
    "unknown namespace": ("NotFoundError", 404),
    "unknown task": ("NotFoundError", 404),
    "wrong field": ("UnprocessableEntityError", 422),
    "name taken": ("ConflictError", 409),
}


async def test_it_understands_every_answer(steps: dict[str, Any]) -> None:
    """Only what was meant to be refused raises, and it raises the client's own class for that status."""
    raised = {name: (each["raised"], each["status"]) for name, each in steps.items() if "raised" in (each or {})}
    assert REFUSALS == raised, {name: steps[name] for name in raised if name not in REFUSALS}
    assert "not_found" == steps["unknown task"]["body"]["error"]["type"]


async def test_it_indexes_and_finds_an_image(steps: dict[str, Any]) -> None:
    """The task that it polls ends DONE, which its own class of a task knows, and words find the image."""
    assert "DONE" == steps["task ended"]["status"] == steps["task by its own class"]
    found = steps["features found"]["results"]
    assert [steps["task ended"]["asset_id"]] == [each["asset_id"] for each in found]


async def test_it_reads_and_changes_features(steps: dict[str, Any]) -> None:
    """A feature is read with its vectors, changed and deleted; a text is embedded; what there is is told."""
    assert ["keyword"] == list(steps["feature read"]["vectors"])
    assert {"f": 4} == steps["feature updated"]["metadata"]
    assert steps["feature deleted"]["deleted"] is True
    assert 64 == len(steps["text embedded"]["embedding"]["vector"])
    assert "multimodal" in steps["indexes listed"]["vector_indexes"]
    assert NAMESPACE in [each["namespace_name"] for each in steps["namespaces listed"]]
    assert steps["organization read"]["organization_name"]
    assert {"total_credits", "dates"} == set(steps["usage read"])


async def test_it_changes_metadata(steps: dict[str, Any]) -> None:
    """PATCH merges and PUT replaces."""
    assert {"n": 1} == steps["asset read"]["metadata"]
    assert {"n": 1, "m": 2} == steps["asset patched"]["metadata"]
    assert {"k": 3} == steps["asset replaced"]["metadata"] == steps["assets listed"]["results"][0]["metadata"]


async def test_it_deletes_what_it_made(steps: dict[str, Any]) -> None:
    """Assets, stored queries and collections are gone by their ids."""
    assert steps["query stored"]["percolator_id"] == steps["query deleted"]["percolator_id"]
    assert steps["task ended"]["asset_id"] == steps["asset deleted"]["asset_id"]
    assert steps["collection created"]["collection_id"] == steps["collection deleted"]["collection_id"]
