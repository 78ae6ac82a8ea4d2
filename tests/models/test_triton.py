"""How the server process is prepared and cleaned up."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.triton import (
    TritonSettings,
    TritonUnavailable,
    clean_up,
    complete_models,
    platform_problem,
    prepare,
    with_inner_models,
)
from tests.models.conftest import Server


def test_this_platform_is_supported() -> None:
    """Where these tests run the bundled server runs too."""
    assert platform_problem() is None


def test_an_old_glibc_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unsupported system is told which variable points to a server elsewhere."""
    monkeypatch.setattr("os.confstr", lambda name: "glibc 2.31")

    problem = platform_problem()

    assert problem is not None
    assert "2.31" in problem
    assert "LENSMESH_TRITON_ADDRESS" in problem


def test_a_missing_environment_says_what_to_install(tmp_path: Path) -> None:
    """Without Triton's own environment the message names its requirements file."""
    with pytest.raises(TritonUnavailable, match=r"requirements/triton\.txt"):
        prepare(TritonSettings(state_dir=tmp_path, venv_dir=tmp_path / "none"))


def test_a_repository_without_weights_says_how_to_fetch_them(tmp_path: Path) -> None:
    """Without any complete model the message names the fetch step."""
    with pytest.raises(TritonUnavailable, match=r"models\.fetch"):
        prepare(TritonSettings(state_dir=tmp_path, repository_dir=tmp_path))


def test_a_model_without_its_inner_models_is_not_complete(tmp_path: Path) -> None:
    """A model counts as complete only with every model that it calls."""
    for name, inner in {"outer": "inner", "inner": None}.items():
        (tmp_path / name / "1").mkdir(parents=True)
        called = f'parameters {{ key: "inner_models" value {{ string_value: "{inner}" }} }}' if inner else ""
        (tmp_path / name / "config.pbtxt").write_text(f'backend: "python"\n{called}\n')
    (tmp_path / "outer" / "1" / "model.py").touch()

    before = complete_models(tmp_path)
    (tmp_path / "inner" / "1" / "model.py").touch()

    assert before == ()
    assert complete_models(tmp_path) == ("inner", "outer")


def test_a_set_loads_its_models_and_what_they_call(tmp_path: Path) -> None:
    """Only the named models and those they call are loaded; of the called ones those that are optional may be away."""
    calls = {
        "role": 'parameters { key: "inner_models" value { string_value: "network" } }',
        "network": "",
        "other": "",
        "lenient": 'parameters { key: "optional_inner_models" value { string_value: "network,missing" } }',
    }
    for name, parameters in calls.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "config.pbtxt").write_text(f'backend: "python"\n{parameters}\n')
        (tmp_path / name / "1" / "model.py").touch()

    assert with_inner_models(tmp_path, ["role"]) == ("network", "role")
    assert with_inner_models(tmp_path, ["lenient"]) == ("lenient", "network")
    with pytest.raises(TritonUnavailable, match="does not hold all of missing"):
        with_inner_models(tmp_path, ["role", "missing"])


def test_addresses_are_local_and_given_ports_kept(tmp_path: Path, lite_server: Server) -> None:
    """Every address is on the loopback interface; a port of 0 becomes a free one."""
    settings = TritonSettings(state_dir=tmp_path, grpc_port=23456)

    process = prepare(settings)

    addresses = [process.grpc_address, process.http_address, process.metrics_address]
    assert process.grpc_address == "127.0.0.1:23456"
    assert all(address.startswith("127.0.0.1:") and not address.endswith(":0") for address in addresses)
    assert len({*addresses, lite_server.address}) == 4


def test_only_own_shared_memory_is_removed(tmp_path: Path, lite_server: Server) -> None:
    """Cleaning up after one server leaves another one's segments alone."""
    gone = TritonSettings(state_dir=tmp_path)
    left_behind = Path("/dev/shm") / f"{gone.shm_prefix}left_behind"
    left_behind.touch()
    others = set(Path("/dev/shm").glob(f"{lite_server.settings.shm_prefix}*"))

    removed = clean_up(gone)

    assert removed == 1
    assert not left_behind.exists()
    assert others
    assert others <= set(Path("/dev/shm").iterdir())
