"""`lensmesh doctor`: what it sees when all is well, and when something is not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from runner.mesh import Mesh
from tests.cli.conftest import Cli, Ended


def checks(ended: Ended) -> dict[str, dict[str, Any]]:
    """The findings by name."""
    return {each["check"]: each for each in ended.document["checks"]}


async def test_all_is_well(cli: Cli, mesh: Mesh) -> None:
    """Every check passes with a running mesh, and names what it saw."""
    await mesh.wait_ready()
    ended = await cli("doctor", "--json")
    found = checks(ended)
    assert dict.fromkeys(found, True) == {name: each["ok"] for name, each in found.items()}, ended.out
    assert (0, True) == (ended.code, ended.document["healthy"])
    behind = {"vision ready", "embedder ready", "percolator ready", "nats ready", "nats", "triton", "milvus"}
    assert {"python", "platform", "disk", "rest", "grpc", "key", "processes"} | behind <= set(found)
    assert mesh.rest_url == found["rest"]["seen"]
    assert mesh.api_key not in ended.out
    people = await cli("doctor")
    assert 0 == people.code
    assert "FAIL" not in people.out


async def test_a_dead_dependency_is_named(cli: Cli, mesh: Mesh) -> None:
    """A service that does not answer is the one failure, with what to do about it, and the exit code 1."""
    pid = mesh.processes["percolator"].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        ended = await cli("doctor", "--json")
        people = await cli("doctor")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert 1 == ended.code
    wrong = {name: each for name, each in checks(ended).items() if not each["ok"]}
    assert ["percolator ready"] == list(wrong)
    assert wrong["percolator ready"]["advice"]
    assert 1 == people.code
    assert "FAIL percolator ready" in people.out
    await mesh.wait_ready()


async def test_a_server_that_is_gone_is_named(mesh: Mesh, tmp_path: Path) -> None:
    """A server under the services that nobody listens for any more, and a process that is gone."""
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    known = mesh.endpoints | {"milvus_uri": "http://127.0.0.1:1"}
    (tmp_path / "endpoints.json").write_text(json.dumps(known | {"pids": known["pids"] | {"milvus": gone.pid}}))
    ended = await Cli({"LENSMESH_DATA_DIR": str(tmp_path)})("doctor", "--json")
    wrong = {name: each for name, each in checks(ended).items() if not each["ok"]}
    assert (1, {"milvus", "processes"}) == (ended.code, set(wrong))
    assert "LENSMESH_MILVUS_URI" in wrong["milvus"]["advice"]
    assert "not running: milvus" == wrong["processes"]["seen"]


async def test_a_wrong_key_is_named(cli: Cli) -> None:
    """A key that the mesh does not know fails that check alone."""
    ended = await cli("doctor", "--json", LENSMESH_API_KEY="lm_unknown")
    assert 1 == ended.code
    wrong = {name: each for name, each in checks(ended).items() if not each["ok"]}
    assert ["key"] == list(wrong)
    assert "LENSMESH_API_KEY" in wrong["key"]["advice"]


async def test_without_a_mesh_it_says_how_to_start_one(tmp_path: Path) -> None:
    """No mesh: exit code 3, the machine is checked all the same."""
    ended = await Cli({"LENSMESH_DATA_DIR": str(tmp_path / "new")})("doctor", "--json")
    assert 3 == ended.code
    found = checks(ended)
    assert (True, False) == (found["python"]["ok"], found["mesh"]["ok"])
    assert "./lensmesh up" in found["mesh"]["advice"]
    away = Cli({"LENSMESH_URL": "http://127.0.0.1:1", "LENSMESH_API_KEY": "key"})
    assert 3 == (await away("doctor")).code
