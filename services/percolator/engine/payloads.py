"""What comes back with a match and takes no part in matching: bytes, in a file that the kernel pages in.

At a million stored queries an asset may match dozens; looked up elsewhere, that would cost more than matching.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from services.percolator.engine.files import nameless_file, write_at

# A payload takes whole slots; those that are given back are taken again by one of as many.
_SLOT_BYTES = 64


class Payloads:
    """The payloads of several engines, in one file."""

    def __init__(self, directory: Path | None) -> None:
        """`directory` is where the file goes; None: the system's directory for temporary files."""
        self._directory = directory
        self._file: BinaryIO | None = None
        self._slots_used = 0
        # Places of slots that are free, by how many are free together.
        self._free: dict[int, list[int]] = defaultdict(list)

    def put(self, payloads: Sequence[bytes]) -> NDArray[np.int64]:
        """Keep payloads; returns the place of each.

        Raises:
            OSError: the disk is full.
        """
        places, appended, end = [], list[bytes](), self._slots_used
        for payload in payloads:
            count = _slots(len(payload))
            if free := self._free.get(count):
                places.append(free.pop())
                self._write(places[-1], payload)
            else:
                places.append(end)
                appended.append(payload.ljust(count * _SLOT_BYTES, b"\0"))
                end += count
        self._write(self._slots_used, b"".join(appended))
        self._slots_used = end
        return np.array(places, np.int64)

    def read(self, place: int, size: int) -> bytes:
        """The payload of so many bytes at a place."""
        return os.pread(self._file.fileno(), size, place * _SLOT_BYTES) if size and self._file is not None else b""

    def free(self, place: int, size: int) -> None:
        """Let another have the place."""
        if size:
            self._free[_slots(size)].append(place)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, place: int, content: bytes) -> None:
        if not content:
            return
        if self._file is None:
            self._file = nameless_file(self._directory)
        write_at(self._file, memoryview(content), place * _SLOT_BYTES)


def _slots(size: int) -> int:
    return -(-size // _SLOT_BYTES)
