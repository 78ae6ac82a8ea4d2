"""Runs a converted network on a fixed pattern and compares with the numbers recorded when it was first verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

_TOLERANCE = 2e-3  # of the largest value: onnxruntime's kernels differ between processors in the last digits


def pattern(side: int) -> NDArray[np.uint8]:
    """A fixed uint8 [1,side,side,3] with smooth and sharp parts, the same on every machine."""
    rows, columns = np.mgrid[0:side, 0:side]
    planes = [rows * 255 // side, columns * 255 // side, ((rows // 16 + columns // 16) % 2) * 255]
    return np.asarray(np.stack(planes, axis=-1)[None], np.uint8)


def fingerprint(model: Path, output: str, side: int) -> list[float]:
    """Eight numbers of one output: its mean, its spread, its largest value and five evenly spaced values."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    values = session.run([output], {"IMAGE": pattern(side)})[0].astype(np.float64).reshape(-1)
    samples = values[np.linspace(0, values.size - 1, 5).astype(int)]
    return [round(float(value), 6) for value in (values.mean(), values.std(), values.max(), *samples)]


def verify(model: Path, side: int, expected: Mapping[str, Sequence[float]]) -> None:
    """Raises ValueError when an output of ``model`` is not what it was."""
    for output, numbers in expected.items():
        found = fingerprint(model, output, side)
        if not np.allclose(found, numbers, rtol=0, atol=_TOLERANCE * max(1.0, max(map(abs, numbers)))):
            raise ValueError(
                f"{output} of the converted {model.parent.parent.name} is {found}, expected {list(numbers)}"
            )
