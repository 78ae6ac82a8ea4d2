"""The limits of fetching and decoding, read from the environment with all mistakes reported at once.

What the limits protect lives beside their use: `fetch`, `decode` and `pool`; nothing here opens a socket.
"""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.mesh.outbound.config import OutboundSettings
from services.vision.acquire.decode import DecodeLimits


class AcquireSettings(OutboundSettings):
    """Every limit that vision keeps while it acquires an image; set by `LENSMESH_VISION_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_VISION_", frozen=True, populate_by_name=True)

    fetch_bytes_max: int = Field(
        default=32 * 1024 * 1024, ge=1, description="bytes of one file; a 64 Mpx photo as JPEG has about 25 MB"
    )
    fetch_seconds_max: float = Field(
        default=20.0, gt=0, description="seconds for one URL in all, redirects and waiting for a connection included"
    )
    connect_seconds_max: float = Field(
        default=5.0, gt=0, description="seconds for one TCP and TLS handshake; two retransmitted SYNs fit"
    )
    redirects_max: int = Field(default=5, ge=0, description="redirects followed; shorteners and CDNs need up to three")
    fetch_connections_max: int = Field(
        default=64, ge=1, description="connections in all; bounds memory at this many times fetch_bytes_max"
    )
    fetch_connections_per_host_max: int = Field(
        default=8, ge=1, description="connections to one host; what a slow host can take away from all others"
    )
    resolver_threads: int = Field(
        default=32, ge=1, description="threads that look up names, so that a dead name server delays only its names"
    )
    url_length_max: int = Field(default=8192, ge=1, description="characters of a URL; servers refuse longer ones")
    pixels_max: int = Field(
        default=64_000_000, ge=1, description="pixels of an image; three bytes each when decoded, twice over"
    )
    side_pixels_max: int = Field(
        default=32_767, ge=1, description="pixels of a side; a 1 x 64,000,000 strip is no image, JPEG ends at 65,535"
    )
    frames_max: int = Field(
        default=1000, ge=1, description="frames of an animation; only the first is used, but all have to be counted"
    )
    png_pixels_max: int = Field(
        default=1_000_000,
        ge=0,
        description="pixels up to which a lossless source that must be encoded anew stays lossless (PNG): text in"
        " screenshots stays sharp; above it a PNG of a photo would be several times larger than a JPEG",
    )
    decode_seconds_max: float = Field(
        default=15.0, gt=0, description="seconds to decode one image; 64 Mpx of PNG, TIFF or AVIF took 2 to 5 s"
    )
    decode_memory_bytes_max: int = Field(
        default=3 * 1024**3,
        ge=2**29,
        description="bytes of address space of one decoder; 64 Mpx as RGBA or CMYK reached 1 GB",
    )
    decode_workers: int = Field(default=2, ge=1, description="decoder processes; one a core that the service may use")
    decode_attempts_max: int = Field(
        default=2,
        ge=1,
        description="decoders that an image may end abnormally; the kernel kills for other processes' hunger too",
    )
    decode_images_per_worker_max: int = Field(
        default=2000, ge=1, description="images after which a decoder process is replaced; bounds what leaks in C code"
    )

    @property
    def decode_limits(self) -> DecodeLimits:
        """The part of the limits that a decoder process keeps."""
        return DecodeLimits(
            pixels_max=self.pixels_max,
            side_pixels_max=self.side_pixels_max,
            frames_max=self.frames_max,
            png_pixels_max=self.png_pixels_max,
        )
