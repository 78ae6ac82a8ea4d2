"""One namespace for this whole suite, as making one is slow, and a collection of its own for every test."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from itertools import count

import pytest

from runner.mesh import Mesh
from tests.conftest import Api, api_of

_numbers = count(1)


@pytest.fixture(scope="session")
async def space(mesh: Mesh, api: Api) -> AsyncIterator[Api]:
    """A client with a key for a namespace that only this suite uses."""
    indexes = ["image", "multimodal", "text", "keyword"]
    made = await api.http.post("/namespaces", json={"namespace_name": "api-suite", "vector_indexes": indexes})
    assert made.status_code in (200, 409), made.text
    keys = f"/organizations/users/api-suite@example.org/api-keys?key_name={time.time_ns()}"
    key = await api.http.post(keys, json={"namespaces": ["api-suite"]})
    client = api_of(mesh, key.json()["api_key"])
    yield client
    await client.http.aclose()
    await client.channel.close()


@pytest.fixture
async def collection(space: Api) -> str:
    """The name of a new, empty collection in that namespace."""
    while True:
        name = f"collection-{next(_numbers)}"
        made = await space.http.post("/collections", json={"collection_name": name})
        if made.status_code != 409:
            assert made.status_code == 200, made.text
            return name


@pytest.fixture
def number() -> int:
    """The number of a picture that no other test of this suite has."""
    return 5_000_000 + 1_000 * next(_numbers)
