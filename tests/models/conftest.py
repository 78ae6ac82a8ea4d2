"""Real tritonservers for the model tests: one a model set and session, killed hard at the end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from runner.canary import role_models
from runner.triton import TritonSettings, clean_up, prepare, wait_ready
from tests.models import hub_server, standard_tree
from tests.models.standard_tree import Tree

_MODELS = Path(__file__).resolve().parents[2] / "models"
_START_SECONDS_MAX = 60.0
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Server:
    """A running tritonserver and the model set it serves."""

    address: str
    models: tuple[str, ...]
    group: int  # of its processes
    settings: TritonSettings
    model_set: dict[str, Any]

    def dim(self, role: str) -> int:
        """Length of the vectors of an embedding role."""
        return int(self.model_set["roles"][role]["dim"])


class Client:
    """Calls a role model as the services do; JSON documents come back parsed."""

    def __init__(self, server: Server) -> None:
        self.server, self.triton = server, InferenceServerClient(server.address)

    async def tensor(self, model: str, output: str, **inputs: list[bytes]) -> NDArray[Any]:
        """One output tensor for BYTES inputs [B,1]."""
        tensors = []
        for name, values in inputs.items():
            tensor = InferInput(name, [len(values), 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[value] for value in values], dtype=np.object_))
            tensors.append(tensor)
        answer = await self.triton.infer(model, tensors, client_timeout=DEADLINE_S)
        found = answer.as_numpy(output)
        assert found is not None
        return found

    async def documents(self, model: str, output: str, **inputs: list[bytes]) -> list[Any]:
        """The parsed documents of a BYTES output [B,1]."""
        found = await self.tensor(model, output, **inputs)
        assert found.shape == (len(next(iter(inputs.values()))), 1)
        return [json.loads(value) for value in found[:, 0]]


def serve(model_set: dict[str, Any], models: Path, state_dir: Path, more: tuple[str, ...] = ()) -> Iterator[Server]:
    """A server of a set's models, and of ``more``, from the repository in the folder ``models``."""
    wanted = (*role_models(model_set), *more)
    settings = TritonSettings(state_dir=state_dir, repository_dir=models / model_set["repository"], models=wanted)
    process = prepare(settings)
    with (state_dir / "triton.log").open("wb") as log:
        running = subprocess.Popen(
            process.argv, env=dict(process.env), stdout=log, stderr=log, start_new_session=True, cwd=state_dir
        )
        try:
            asyncio.run(wait_ready(process.grpc_address, process.models, timeout_s=_START_SECONDS_MAX))
            yield Server(process.grpc_address, process.models, running.pid, settings, model_set)
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            clean_up(settings)


def _serve(name: str, state_dir: Path) -> Iterator[Server]:
    model_set = json.loads((_MODELS / "sets" / f"{name}.json").read_text())
    yield from serve(model_set, _MODELS, state_dir)


@pytest.fixture(scope="session")
def lite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The lite set: real weights."""
    yield from _serve("lite", tmp_path_factory.mktemp("triton_lite"))


@pytest.fixture(scope="session")
def trivial_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The trivial set: the same contracts, next to no work."""
    yield from _serve("trivial", tmp_path_factory.mktemp("triton_trivial"))


@pytest.fixture(params=["lite", "trivial"])
def server(request: pytest.FixtureRequest) -> Server:
    """Either set: what holds for one contract holds for both."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    """A client of either set."""
    found = Client(server)
    yield found
    await found.triton.close()


@pytest.fixture
async def lite(lite_server: Server) -> AsyncIterator[Client]:
    """A client of the lite set."""
    found = Client(lite_server)
    yield found
    await found.triton.close()


@pytest.fixture
def stubs(lite_server: Server) -> Callable[[str], list[int]]:
    """Process ids of the stubs of one model of the lite server, and of no other server's."""

    def find(model: str) -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
                own = os.getpgid(int(folder.name)) == lite_server.group
            except OSError:
                continue  # the process ended while we looked
            if own and any(argument.startswith(f"{model}_0".encode()) for argument in arguments):
                found.append(int(folder.name))
        return found

    return find


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hub_server.LocalHub]:
    """A hub that holds the stand-ins."""
    with hub_server.serving(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="session")
def tree(hub: hub_server.LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """The standard set, fetched from the hub."""
    made = standard_tree.make(tmp_path_factory.mktemp("standard"), hub.root)
    fetched = made.run("models.fetch", "--set", "standard", hub_url=hub.url)
    assert fetched.returncode == 0, fetched.stderr
    return made


@pytest.fixture(scope="session")
def standard_server(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The whole set, and two more captioners with one parameter changed each."""
    model_set = json.loads((tree.models / "sets" / "standard.json").read_text())
    more = standard_tree.complete_variants(tree)
    yield from serve(model_set, tree.models, tmp_path_factory.mktemp("triton_standard"), more)


@pytest.fixture
async def standard(standard_server: Server) -> AsyncIterator[Client]:
    """A client of the set."""
    found = Client(standard_server)
    yield found
    await found.triton.close()
