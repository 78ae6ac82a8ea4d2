"""Schemathesis against the running mesh: requests made up from the OpenAPI description, alone and in sequences."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from runner.mesh import Mesh
from tests.conftest import Api, PhotoHost

# Each is broken by any violation that it names; what is not listed is checked by tests of our own.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = 12
SEED = 1
# On two busy cores; alone it takes a third of it.
SECONDS_MAX = 480
HOOKS = "tests.api.schemathesis_hooks"


async def known_ids(tenant: Api, photos: PhotoHost) -> dict[str, str]:
    """The ids of one of everything, in a namespace that was empty."""
    url = photos.picture_url(78)
    query = {"vector_index": "multimodal", "type": "url", "value": url}
    stored = {"collection_ids": ["fuzzed"], "queries": [query], "min_score": 0}
    percolator = await tenant.http.post("/percolators/queries", json=stored)
    body = {"url": url, "collection_id": "fuzzed", "percolate": {}, "metadata": {"price": 1, "tags": ["a"]}}
    task = await tenant.run(body)
    asset = (await tenant.http.get(f"/assets/{task['asset_id']}")).json()
    return {
        "task_id": task["task_id"],
        "asset_id": asset["asset_id"],
        "feature_id": task["outputs"][0]["feature_id"],
        "collection_id": asset["collection_id"],
        "percolator_id": percolator.json()["percolator_id"],
    }


@pytest.mark.timeout(SECONDS_MAX + 60)
async def test_no_request_breaks_the_contract(mesh: Mesh, tenant: Api, photos: PhotoHost, tmp_path: Path) -> None:
    """No made-up request gets a 5xx, an undocumented status or an answer of another shape; links are followed."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{mesh.rest_url}/openapi.json", "--url", mesh.rest_url),
        *("--checks", CHECKS, "--max-examples", str(EXAMPLES), "--seed", str(SEED), "--no-color"),
        *("--phases", "examples,coverage,fuzzing,stateful", "--no-shrink", "--request-timeout", "30"),
        *("--header", f"Authorization: {tenant.http.headers['Authorization']}"),
        # Follows matches until its caller hangs up.
        *("--exclude-path", "/percolators/matches/events"),
        *("--exclude-deprecated", "--continue-on-failure", "--suppress-health-check", "all"),
    ]
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": HOOKS,
        "LENSMESH_TEST_GIVEN": json.dumps(
            {"photo_url": photos.picture_url(77), "ids": await known_ids(tenant, photos)}
        ),
        "PYTHONPATH": f"{Path(__file__).parents[2]}:{os.environ.get('PYTHONPATH', '')}",
    }
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), SECONDS_MAX)
    finally:
        if process.returncode is None:
            process.kill()
    said = output.decode()
    (tmp_path / "schemathesis.txt").write_text(said)
    assert 0 == process.returncode, (
        said.partition("= FAILURES =")[2].partition("= WARNINGS =")[0][:6_000] or said[-3_000:]
    )
