"""Files on their way in: on disk beyond a megabyte, hashed and counted as they come, never whole in memory."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO

from google.protobuf.message import Message

from services.mesh.errors import PayloadTooLarge

# Bytes of a file that stay in memory; larger ones go to disk.
MEMORY_BYTES_MAX = 1_000_000
# Bytes that are read and hashed at a time.
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SpooledFile(AbstractContextManager["SpooledFile"]):
    """A file that has come whole. Leaving its context removes it."""

    file: IO[bytes]
    # Lower-case hex SHA-256.
    sha256: str
    size_bytes: int

    def __exit__(self, *_: object) -> None:
        self.file.close()


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request that comes with a file."""

    request: Message
    file: SpooledFile


def too_large(bytes_max: int) -> PayloadTooLarge:
    """The refusal of a file that has more bytes."""
    return PayloadTooLarge(f"file: at most {bytes_max} bytes are taken (LENSMESH_GATEWAY_FILE_BYTES_MAX)")


def line_too_large(bytes_max: int) -> PayloadTooLarge:
    """The refusal of a line of an import that has more bytes."""
    return PayloadTooLarge(f"the line: at most {bytes_max} bytes are taken (LENSMESH_GATEWAY_IMPORT_LINE_BYTES_MAX)")


async def spool(chunks: AsyncIterator[bytes], bytes_max: int) -> SpooledFile:
    """Take a file in.

    Raises:
        PayloadTooLarge: as soon as it has more than `bytes_max` bytes.
    """
    digest, size = hashlib.sha256(), 0
    # Closed by whoever gets it, or below.
    file = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES_MAX)  # noqa: SIM115
    try:
        async for chunk in chunks:
            size += len(chunk)
            if size > bytes_max:
                raise too_large(bytes_max)
            digest.update(chunk)
            # Writing to disk must not keep other requests waiting.
            await asyncio.to_thread(file.write, chunk)
    except BaseException:
        file.close()
        raise
    return SpooledFile(file, digest.hexdigest(), size)


async def spooled(file: IO[bytes]) -> SpooledFile:
    """A file that is on disk or in memory already."""

    def read() -> tuple[str, int]:
        file.seek(0)
        digest, size = hashlib.sha256(), 0
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
        return digest.hexdigest(), size

    sha256, size = await asyncio.to_thread(read)
    return SpooledFile(file, sha256, size)
