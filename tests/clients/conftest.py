"""A namespace for this suite, and the published clients run as subprocesses in environments of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runner.mesh import Mesh
from runner.servers import ROOT
from tests.conftest import Api, api_of

# Where `make` puts the environments of the published clients.
_ENVIRONMENTS = ROOT / ".cache"
# The whole of a script, from its start.
_SCRIPT_S = 120.0
NAMESPACE = "clients-suite"


@pytest.fixture(scope="session")
async def room(mesh: Mesh, api: Api) -> AsyncIterator[Api]:
    """A client with a key, of every permission, for a namespace that only this suite uses."""
    indexes = ["image", "multimodal", "text", "keyword"]
    made = await api.http.post("/namespaces", json={"namespace_name": NAMESPACE, "vector_indexes": indexes})
    assert made.status_code in (200, 409), made.text
    client = api_of(mesh, namespace=NAMESPACE)
    yield client
    await client.http.aclose()
    await client.channel.close()


async def key_for_one_call(room: Api, name: str) -> str:
    """A new key of this suite's namespace that may call once a minute."""
    made = await room.http.post(
        "/organizations/users/slow@example.org/api-keys",
        json={"key_name": name, "namespaces": [NAMESPACE], "requests_per_minute": 1},
    )
    assert made.status_code == 200, made.text
    return str(made.json()["key"])


async def run_script(environment: str, script: str, *arguments: str) -> dict[str, Any]:
    """What a script of this folder printed, run by the Python of an environment below .cache.

    Raises:
        AssertionError: there is no such environment, or the script failed.
    """
    python = _ENVIRONMENTS / environment / "bin" / "python"
    assert python.exists(), f"{python} is not there: make test makes it"
    process = await asyncio.create_subprocess_exec(
        python, Path(__file__).parent / script, *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={},
    )  # fmt: skip
    try:
        printed, complaints = await asyncio.wait_for(process.communicate(), _SCRIPT_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert 0 == process.returncode, complaints.decode()[-3000:]
    return dict(json.loads(printed))
