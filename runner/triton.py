"""The tritonserver of the nvidia-pytriton wheel as a process: command line, environment, readiness, clean-up.

Starting, watching and restarting the process is the supervisor's; so is killing its whole process group.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

_ROOT = Path(__file__).resolve().parent.parent
_HOST = "127.0.0.1"
_GLIBC_MIN = (2, 35)
_SHM_DIR = Path("/dev/shm")
# Above the registered services, below where Linux takes the ports of outgoing connections from (32768).
_PORTS = range(20_000, 32_000)
_PORT_TRIES_MAX = 200
_POLL_SECONDS = 0.05
_PROBE_SECONDS_MAX = 5.0
_INNER_MODELS = re.compile(r'"inner_models" value { string_value: "([^"]+)"')
_ALL_INNER_MODELS = re.compile(r'"(?:optional_)?inner_models" value { string_value: "([^"]+)"')
_STUB = "triton_python_backend_stub"
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")  # nothing else of ours, keys least of all, reaches the models


class TritonUnavailable(Exception):
    """Triton cannot be run here; the message says what to do about it."""


@dataclass(frozen=True)
class TritonSettings:
    """Where one server finds its parts. A port of 0 means: pick a free one. All addresses are 127.0.0.1."""

    state_dir: Path
    repository_dir: Path = _ROOT / "models" / "repository"
    models: tuple[str, ...] = ()  # to load, with all that they call; empty: every complete model of the repository
    venv_dir: Path = _ROOT / ".venv-triton"
    backends_dir: Path = _ROOT / "models" / "backends"
    library_dir: Path = _ROOT / "models" / "lib"
    grpc_port: int = 0
    http_port: int = 0
    metrics_port: int = 0
    exit_timeout_s: int = 5

    @property
    def shm_prefix(self) -> str:
        """Begins the name of every shared memory segment of this server and of no other: one state_dir, one prefix."""
        return f"lensmesh_{hashlib.sha256(str(self.state_dir.resolve()).encode()).hexdigest()[:12]}_"


@dataclass(frozen=True)
class TritonProcess:
    """What to start (in a process group of its own) and where it will answer, each address as ``host:port``."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    models: tuple[str, ...]
    grpc_address: str
    http_address: str
    metrics_address: str


def platform_problem() -> str | None:
    """Why the wheel's server cannot run on this machine, or None."""
    way_out = "Run a Triton server elsewhere and set LENSMESH_TRITON_ADDRESS=host:port (its gRPC port) to use it."
    if sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}:
        return (
            f"The bundled Triton runs on Linux x86_64 or aarch64, not on {sys.platform} {platform.machine()}. {way_out}"
        )
    library, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "unknown libc").partition(" ")
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if library != "glibc" or parts < _GLIBC_MIN:
        wanted = ".".join(map(str, _GLIBC_MIN))
        return f"The bundled Triton needs glibc {wanted} or newer, found {library} {version}. {way_out}"
    return None


def complete_models(repository_dir: Path) -> tuple[str, ...]:
    """Names of the models that can be loaded: their own files are there, and so are the models that they call."""
    configs = {path.parent.name: path.read_text() for path in sorted(repository_dir.glob("*/config.pbtxt"))}

    def complete(name: str) -> bool:
        wanted = "model.onnx" if 'backend: "onnxruntime"' in configs[name] else "model.py"
        if not (repository_dir / name / "1" / wanted).exists():
            return False
        called = _INNER_MODELS.search(configs[name])
        return called is None or all(inner in configs and complete(inner) for inner in called[1].split(","))

    return tuple(name for name in configs if complete(name))


def with_inner_models(repository_dir: Path, names: Sequence[str]) -> tuple[str, ...]:
    """These models and all that they call: what one model set needs of a repository that holds several sets.

    Raises TritonUnavailable where one of ``names`` is not complete; an optional one that they call may be missing.
    """
    complete = complete_models(repository_dir)
    missing = [name for name in names if name not in complete]
    if missing:
        raise TritonUnavailable(
            f"{repository_dir} does not hold all of {', '.join(missing)}; run: make models SET=... for the model set"
        )
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or name not in complete:
            continue
        found[name] = None
        config = (repository_dir / name / "config.pbtxt").read_text()
        waiting += [inner for listed in _ALL_INNER_MODELS.findall(config) for inner in listed.split(",")]
    return tuple(sorted(found))


def prepare(settings: TritonSettings) -> TritonProcess:
    """Lays out the backend directory under ``state_dir`` and returns the process to start. Raises TritonUnavailable.

    Safe to call again for a restart; give the ports explicitly to keep the addresses.
    """
    problem = platform_problem()
    if problem is not None:
        raise TritonUnavailable(problem)
    python = settings.venv_dir / "bin" / "python"
    if not python.exists():
        raise TritonUnavailable(
            f"{settings.venv_dir} is missing: create it with Python 3.11 and install requirements/triton.txt into it."
        )
    models = complete_models(settings.repository_dir)
    if models and settings.models:
        models = with_inner_models(settings.repository_dir, settings.models)
    if not models:
        raise TritonUnavailable(f"{settings.repository_dir} holds no complete model; run: {python} -m models.fetch")
    site_packages, python_libraries = _interpreter_paths(python)
    wheel = site_packages / "pytriton" / "tritonserver"
    if not (wheel / "bin" / "tritonserver").exists():
        raise TritonUnavailable(f"{python} has no nvidia-pytriton: install requirements/triton.txt into it.")
    backends = _lay_out_backends(settings, wheel)
    ports = _ports(settings)
    return TritonProcess(
        argv=_command_line(settings, wheel, backends, models, ports),
        env=_environment(settings, (python_libraries, site_packages / "nvidia_pytriton.libs")),
        models=tuple(models),
        grpc_address=f"{_HOST}:{ports[0]}",
        http_address=f"{_HOST}:{ports[1]}",
        metrics_address=f"{_HOST}:{ports[2]}",
    )


def _interpreter_paths(python: Path) -> tuple[Path, Path]:
    """site-packages and the directory of libpython of another interpreter."""
    question = "import json, sysconfig as s; print(json.dumps([s.get_path('purelib'), s.get_config_var('LIBDIR')]))"
    answer = subprocess.run([python, "-c", question], capture_output=True, text=True, check=True, timeout=60)
    site_packages, libraries = json.loads(answer.stdout)
    return Path(site_packages), Path(libraries)


def _lay_out_backends(settings: TritonSettings, wheel: Path) -> Path:
    """The wheel's Python backend and our stand-ins in one directory; copies, as Triton refuses links out of it."""
    backends = settings.state_dir.resolve() / "backends"
    shutil.rmtree(backends, ignore_errors=True)
    compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(settings.backends_dir, backends, ignore=compiled)
    shutil.copytree(wheel / "backends" / "python", backends / "python")
    # The model processes ignore PYTHONPATH, but they do import from here.
    shutil.copytree(settings.library_dir, backends / "python", ignore=compiled, dirs_exist_ok=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy2(wheel / "python_backend_stubs" / version / _STUB, backends / "python" / _STUB)
    return backends


def _ports(settings: TritonSettings) -> tuple[int, int, int]:
    """The three ports, free ones where none is given. Another process may still take one before Triton does."""
    wanted = (settings.grpc_port, settings.http_port, settings.metrics_port)
    taken = set(wanted)
    found = []
    for port in wanted:
        chosen = port or free_port(taken)
        taken.add(chosen)
        found.append(chosen)
    return found[0], found[1], found[2]


def free_port(taken: set[int]) -> int:
    """A port that nothing listens on now and that is not among those taken. Raises TritonUnavailable."""
    for port in random.sample(_PORTS, _PORT_TRIES_MAX):
        if port in taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return port
    raise TritonUnavailable(f"no free port among {_PORT_TRIES_MAX} tried between {_PORTS.start} and {_PORTS.stop}")


def _command_line(
    settings: TritonSettings, wheel: Path, backends: Path, models: Sequence[str], ports: Sequence[int]
) -> tuple[str, ...]:
    grpc_port, http_port, metrics_port = ports
    return (
        str(wheel / "bin" / "tritonserver"),
        f"--model-repository={settings.repository_dir.resolve()}",
        f"--backend-directory={backends}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        f"--backend-config=python,shm-region-prefix-name={settings.shm_prefix}",
        f"--grpc-address={_HOST}",
        f"--grpc-port={grpc_port}",
        f"--http-address={_HOST}",
        f"--http-port={http_port}",
        f"--metrics-address={_HOST}",
        f"--metrics-port={metrics_port}",
        "--allow-gpu-metrics=false",
        "--pinned-memory-pool-byte-size=0",
        "--disable-auto-complete-config",
        # A model that cannot load must not take the others down: readiness is asked for by model.
        "--exit-on-error=false",
        f"--exit-timeout-secs={settings.exit_timeout_s}",
        "--log-verbose=0",
        "--log-info=false",
    )


def _environment(settings: TritonSettings, libraries: Sequence[Path]) -> dict[str, str]:
    return {
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        # The stub starts `python3` from the PATH: it must be the one with numpy < 2.
        "PATH": os.pathsep.join([str(settings.venv_dir.resolve() / "bin"), os.environ.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        # Requests are the unit of parallelism; thread pools inside a model only take turns on the same cores.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OPENCV_FOR_THREADS_NUM": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def clean_up(settings: TritonSettings) -> int:
    """Removes the shared memory that a killed server of this ``state_dir`` left behind; returns how many segments.

    Call it only when the whole process group is dead.
    """
    segments = list(_SHM_DIR.glob(f"{settings.shm_prefix}*"))
    for segment in segments:
        segment.unlink(missing_ok=True)
    return len(segments)


async def ready(address: str, models: Sequence[str]) -> bool:
    """Whether the server at ``address`` says that all ``models`` are ready.

    Triton goes on saying so after a model's process was killed: for health ask the canary.
    """
    client = InferenceServerClient(address)
    try:
        return await _all_ready(client, models)
    finally:
        await client.close()


async def wait_ready(address: str, models: Sequence[str], *, timeout_s: float) -> None:
    """Returns when all ``models`` are ready. Raises TimeoutError after ``timeout_s``."""
    client = InferenceServerClient(address)
    try:
        async with asyncio.timeout(timeout_s):
            while not await _all_ready(client, models):
                await asyncio.sleep(_POLL_SECONDS)
    finally:
        await client.close()


async def _all_ready(client: InferenceServerClient, models: Sequence[str]) -> bool:
    try:
        for model in models:
            if not await client.is_model_ready(model, client_timeout=_PROBE_SECONDS_MAX):
                return False
    except (InferenceServerException, grpc.RpcError):
        return False
    return True
