"""Files without a name, for what need not outlive the process: the system takes them back, however that ends."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import BinaryIO


def nameless_file(directory: Path | None) -> BinaryIO:
    """A new file that is gone when it is closed.

    Args:
        directory: where it takes its room; None: where temporary files do.
    """
    return tempfile.TemporaryFile(dir=directory, buffering=0)


def write_at(file: BinaryIO, content: memoryview, offset: int) -> None:
    """Write all of it.

    Raises:
        OSError: the disk is full. Written through a mapping, that would end the process.
    """
    while content:
        written = os.pwrite(file.fileno(), content, offset)
        content, offset = content[written:], offset + written
