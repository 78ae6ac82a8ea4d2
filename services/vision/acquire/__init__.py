"""From a stranger's URL or bytes to an image that is safe to hand to models.

Knows HTTP and image formats; tasks, messages, blobs and models are other packages'.
"""

from __future__ import annotations

from aiohttp.abc import AbstractResolver

from services.mesh.errors import FileTooLarge
from services.vision.acquire.config import AcquireSettings
from services.vision.acquire.decode import NormalisedImage
from services.vision.acquire.fetch import FetchedFile, Fetcher
from services.vision.acquire.pool import DecoderPool

__all__ = [
    "AcquireSettings",
    "Acquirer",
    "DecoderPool",
    "FetchedFile",
    "Fetcher",
    "NormalisedImage",
]


class Acquirer:
    """Fetches and decodes; make it inside a running event loop and close it.

    `resolver` replaces the system's name look-up.
    """

    def __init__(self, settings: AcquireSettings, *, resolver: AbstractResolver | None = None) -> None:
        self._bytes_max = settings.fetch_bytes_max
        self._fetcher = Fetcher(settings, resolver=resolver)
        self._decoders = DecoderPool(settings)

    async def from_url(self, url: str) -> NormalisedImage:
        """Fetch and decode the image behind a URL; raises what `Fetcher.fetch` and `from_bytes` raise."""
        return await self.from_bytes(await self.fetch(url))

    async def fetch(self, url: str) -> bytes:
        """The file behind a URL as it is; raises what `Fetcher.fetch` raises."""
        return (await self._fetcher.fetch(url)).content

    async def from_bytes(self, content: bytes) -> NormalisedImage:
        """Decode an uploaded file; raises FileTooLarge, UnsupportedMediaType and BrokenImage."""
        if len(content) > self._bytes_max:
            raise FileTooLarge(
                f"the file has {len(content)} bytes; at most {self._bytes_max} (LENSMESH_VISION_FETCH_BYTES_MAX)"
            )
        return await self._decoders.decode(content)

    async def warm(self) -> None:
        """Start a decoder, so that the first image need not wait for its modules to be loaded."""
        await self._decoders.warm()

    async def close(self) -> None:
        """Close connections and decoders; images under way fail."""
        await self._fetcher.close()
        await self._decoders.close()
