"""The vectors themselves, float32: in memory while they are few, in a file that the kernel pages in where they are not.

They are read for the few rows that the first pass leaves; the file is rebuilt at every start and has no name.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from services.percolator.engine.files import nameless_file, write_at
from services.percolator.engine.types import Dense

# Bytes that one space may hold in memory; beyond, they go to a file.
MEMORY_BYTES_MAX = 16 * 1024 * 1024
_FIRST_ROWS = 64
_CHUNK_ROWS = 4096


class ExactRows:
    """Rows of unit vectors, float32[rows, D]."""

    def __init__(self, dim: int, directory: Path | None) -> None:
        """`directory` is where the file goes; None: the system's directory for temporary files."""
        self._dim = dim
        self._directory = directory
        self._values: Dense = np.zeros((_FIRST_ROWS, dim), np.float32)
        self._file: BinaryIO | None = None

    def put(self, rows: NDArray[np.int64], vectors: Dense) -> None:
        """Set rows.

        Raises:
            OSError: the disk is full.
        """
        needed = int(rows.max()) + 1
        if needed > len(self._values):
            self._grow(max(needed, len(self._values) + len(self._values) // 2))
        if self._file is None:
            self._values[rows] = vectors
            return
        # Written and not through the mapping, which costs three times as much.
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        for some in np.split(np.arange(len(rows)), ends):
            self._write(int(rows[some[0]]), vectors[some[0] : some[-1] + 1])

    def products(self, rows: NDArray[np.int64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest product of each row with any of the vectors, in double precision.

        Args:
            vectors: float64[V, D].

        Returns:
            float64[len(rows)].
        """
        best = np.empty(len(rows))
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = self._values[rows[start : start + _CHUNK_ROWS]].astype(np.float64)
            best[start : start + len(chunk)] = (chunk @ vectors.T).max(axis=1)
        return best

    def close(self) -> None:
        """Let go of the file."""
        self._values = np.zeros((0, self._dim), np.float32)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _grow(self, rows: int) -> None:
        size = rows * self._dim * 4
        if size <= MEMORY_BYTES_MAX:
            wider = np.zeros((rows, self._dim), np.float32)
            wider[: len(self._values)] = self._values
            self._values = wider
            return
        old = self._values if self._file is None else None
        if self._file is None:
            self._file = nameless_file(self._directory)
        self._file.truncate(size)
        self._values = np.memmap(self._file, np.float32, "r", shape=(rows, self._dim))
        if old is not None:
            self._write(0, old)

    def _write(self, row: int, vectors: Dense) -> None:
        """Write rows that stand together into the file."""
        assert self._file is not None
        write_at(self._file, np.ascontiguousarray(vectors).data.cast("B"), row * self._dim * 4)
