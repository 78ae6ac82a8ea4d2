"""The two sides of every comparison: our models behind a real Triton, and the references in their own environment.

Both answer for one file after the other, and the CPU time of all processes involved is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import np_to_triton_dtype

from bench.processes import cpu_seconds
from runner.triton import TritonSettings, clean_up, prepare, wait_ready

ROOT = Path(__file__).resolve().parents[2]
BENCH_PYTHON = ROOT / ".cache" / "bench-venv" / "bin" / "python"
_START_SECONDS_MAX = 60.0
# A long screenshot takes tens of seconds on a slow machine.
_ANSWER_SECONDS_MAX = 300.0


@dataclass(frozen=True)
class Answer:
    """What was found in one image, and the CPU time and time of finding it in ms."""

    found: list[dict[str, Any]]
    cpu_ms: float
    ms: float = 0.0


class Ours:
    """The lite set on a Triton of its own."""

    def __init__(self, address: str, pid: int) -> None:
        self._client, self._pid = InferenceServerClient(address), pid

    def answers(self, model: str, output: str, files: Sequence[str], **others: bytes) -> list[Answer]:
        """One answer a file, in order; the first is asked for once before, to be warm. ``others`` are inputs too."""
        self.document(model, output, IMAGE=Path(files[0]).read_bytes(), **others)
        found = []
        for file in files:
            data = Path(file).read_bytes()
            before, started = self.cpu_s(), time.perf_counter()
            documents = self.document(model, output, IMAGE=data, **others)
            elapsed = time.perf_counter() - started
            found.append(Answer(documents, (self.cpu_s() - before) * 1e3, elapsed * 1e3))
        return found

    def document(self, model: str, output: str, **inputs: bytes) -> Any:
        """The JSON that a model gives for one element of each input."""
        return json.loads(self._ask(model, output, **inputs)[0, 0])

    def documents(self, model: str, outputs: Sequence[str], **inputs: bytes) -> list[Any]:
        """Several outputs of ``document``."""
        tensors = {name: np.array([[data]], np.object_) for name, data in inputs.items()}
        return [json.loads(values[0, 0]) for values in self._infer(model, outputs, tensors)]

    def vector(self, model: str, **inputs: bytes) -> NDArray[np.float32]:
        """The VECTOR, float32 [D], that a model gives for one element of each input."""
        return np.asarray(self._ask(model, "VECTOR", **inputs)[0], dtype=np.float32)

    def _ask(self, model: str, output: str, **inputs: bytes) -> NDArray[Any]:
        return self.infer(model, output, {name: np.array([[data]], np.object_) for name, data in inputs.items()})

    def infer(self, model: str, output: str, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """One output of a model; object arrays are sent as BYTES."""
        return self._infer(model, [output], inputs)[0]

    def _infer(self, model: str, outputs: Sequence[str], inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        tensors = []
        for name, values in inputs.items():
            tensors.append(InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype)))
            tensors[-1].set_data_from_numpy(values)
        wanted = [InferRequestedOutput(output) for output in outputs]
        answer = self._client.infer(model, tensors, outputs=wanted, client_timeout=_ANSWER_SECONDS_MAX)
        return [answer.as_numpy(output) for output in outputs]

    def cpu_s(self) -> float:
        """CPU seconds so far of the server and of this process."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        return cpu_seconds({"triton": self._pid})["triton"] + own.ru_utime + own.ru_stime


@contextlib.contextmanager
def serving(models: Sequence[str], repository: Path = ROOT / "models" / "repository") -> Iterator[Ours]:
    """A Triton with ``models`` (those they call included), gone with its shared memory at the end."""
    with tempfile.TemporaryDirectory(prefix="lensmesh-bench-") as folder:
        settings = TritonSettings(state_dir=Path(folder), repository_dir=repository, models=tuple(models))
        process = prepare(settings)
        with (Path(folder) / "triton.log").open("wb") as log:
            running = subprocess.Popen(
                process.argv, env=dict(process.env), stdout=log, stderr=log, start_new_session=True, cwd=folder
            )
            try:
                asyncio.run(wait_ready(process.grpc_address, process.models, timeout_s=_START_SECONDS_MAX))
                yield Ours(process.grpc_address, running.pid)
            finally:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
                clean_up(settings)


def reference(role: str, files: Sequence[str], *options: str) -> list[Answer]:
    """The answers of the reference library for ``role`` ("ocr", "faces" or "logos"). Raises CalledProcessError."""
    with tempfile.TemporaryDirectory(prefix="lensmesh-bench-") as folder:
        asked, answered = Path(folder) / "files.json", Path(folder) / "answers.json"
        asked.write_text(json.dumps(list(files)))
        bench_python("bench.vision.reference", role, str(asked), str(answered), *options)
        return [Answer(**each) for each in json.loads(answered.read_text())]


def bench_python(module: str, *arguments: str) -> None:
    """Runs a module in the bench environment. Raises CalledProcessError."""
    subprocess.run([BENCH_PYTHON, "-m", module, *arguments], cwd=ROOT, check=True)
