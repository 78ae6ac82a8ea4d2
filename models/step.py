"""One step of building the model repository: which files it makes of which, and by what code."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """Builds ``outputs`` (paths in the repository) from fetched files and our own files in models/.

    ``code`` are the files in models/ whose change makes the outputs outdated. ``build`` gets the inputs by file name.
    """

    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    code: tuple[str, ...]
    build: Callable[[Mapping[str, Path], Sequence[Path]], None]


def copy(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    """Each input to the output of the same place."""
    for source, output in zip(inputs.values(), outputs, strict=True):
        shutil.copyfile(source, output)
