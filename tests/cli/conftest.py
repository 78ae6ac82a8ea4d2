"""The command line in processes of its own, told about the running mesh as a person would tell it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from runner.mesh import Mesh
from runner.servers import ROOT
from tests.conftest import Api, api_of

NAMESPACE = "cli-suite"
# Of the running mesh; a test's own settings come after these.
_FOREIGN = ("LENSMESH_URL", "LENSMESH_API_KEY", "LENSMESH_NAMESPACE", "LENSMESH_DATA_DIR")
_COMMAND_S = 90.0


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document that it printed."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON lines that it printed."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Cli:
    """Runs commands with some settings."""

    settings: dict[str, str] = field(default_factory=dict)

    async def __call__(self, *arguments: str, given: str | None = None, **settings: str) -> Ended:
        """Run one command to its end; `given` is its standard input."""
        inherited = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        paths = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "gen", ROOT / "client")))}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=inherited | paths | self.settings | settings, cwd=ROOT,
        )  # fmt: skip
        try:
            out, err = await asyncio.wait_for(process.communicate((given or "").encode()), _COMMAND_S)
        finally:
            if process.returncode is None:
                process.kill()
        return Ended(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture(scope="session")
async def room(mesh: Mesh, api: Api) -> AsyncIterator[Api]:
    """A client for a namespace that only this suite uses."""
    indexes = ["image", "multimodal", "text", "keyword"]
    made = await api.http.post("/namespaces", json={"namespace_name": NAMESPACE, "vector_indexes": indexes})
    assert made.status_code in (200, 409), made.text
    client = api_of(mesh, namespace=NAMESPACE)
    yield client
    await client.http.aclose()
    await client.channel.close()


@pytest.fixture(scope="session")
def cli(mesh: Mesh, room: Api) -> Cli:
    """The command line, which finds the mesh by its data directory."""
    return Cli({"LENSMESH_DATA_DIR": str(mesh.config.data_dir), "LENSMESH_NAMESPACE": NAMESPACE})
