"""Turns the bytes of an image file into an upright 8-bit RGB or grey JPEG or PNG, or says why that can't be done.

It runs wherever it is called and trusts nothing but the limits it is given; processes, deadlines and memory are
`pool`'s.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pillow_heif
from PIL import Image, UnidentifiedImageError

from services.mesh.errors import BrokenImage, FileTooLarge, LensmeshError, UnsupportedMediaType
from services.vision.acquire.phash import SIDE_PIXELS_MIN, perceptual_hash
from services.vision.acquire.pixels import to_eight_bits
from services.vision.acquire.sniff import SUPPORTED, sniff

JPEG = "image/jpeg"
PNG = "image/png"

# Little blocking for OCR to stumble over; full chroma because coloured text loses its edges at 4:2:0.
_JPEG_QUALITY = 92
_JPEG_FULL_CHROMA = 0
# zlib's fastest: these files are small, and read once by models on the same network.
_PNG_LEVEL = 1
# Verifying needs every coded bit read, not every pixel computed: libjpeg skips most of the inverse DCT at this scale.
_VERIFY_SCALE = 8
_EXIF_ORIENTATION = 0x0112
# EXIF 2.32, tag 274: what undoes each orientation.
_UPRIGHT_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Characters of a decoder's own words that a message repeats.
_REASON_LENGTH_MAX = 200
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_LOSSLESS = frozenset({"PNG", "GIF", "BMP"})
# What Pillow and its plugins raise for damaged files, met on Pillow's own test corpus.
_DECODER_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    SyntaxError,
    ArithmeticError,
    LookupError,
    AttributeError,
    EOFError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What an image may ask for: pixels in all, pixels of a side, frames, and pixels up to which PNG is written."""

    pixels_max: int
    side_pixels_max: int
    frames_max: int
    png_pixels_max: int


@dataclass(frozen=True, slots=True)
class NormalisedImage:
    """An image that decodes: upright, 8-bit, RGB or grey, one frame.

    `content` has `media_type` JPEG or PNG and `width` x `height` pixels. `format` (one of SUPPORTED), `frames`,
    `file_sha256` (lower-case hex) and `size_bytes` are those of the file as it came. `perceptual_hash` (16 hex digits)
    is of the picture, not of the file.
    """

    content: bytes
    media_type: str
    width: int
    height: int
    format: str
    file_sha256: str
    size_bytes: int
    frames: int
    perceptual_hash: str


def prepare_process(limits: DecodeLimits) -> None:
    """Set Pillow up for this process; call it once, before the first image.

    Pillow's own pixel limit is process-wide. It sees the sizes that only its plugins meet (a GIF frame larger than its
    screen), so it is set to ours and its warning made an error.
    """
    pillow_heif.register_heif_opener()
    pillow_heif.options.THUMBNAILS = False
    Image.MAX_IMAGE_PIXELS = limits.pixels_max
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def normalise(content: bytes, limits: DecodeLimits) -> NormalisedImage:
    """Verify an image file wholly and make it uniform; `prepare_process` must have been called.

    A JPEG (8-bit RGB or grey) or PNG (8-bit RGB or grey, opaque, one frame) that is upright already is returned as it
    is, byte for byte. Everything else is encoded anew: EXIF orientation applied, transparency over white, other colour
    modes converted, first frame only; as PNG for lossless sources of at most `png_pixels_max`, else as JPEG.

    Raises UnsupportedMediaType, BrokenImage, and FileTooLarge (from the header alone, before pixels are decoded).
    """
    kind = sniff(content)
    if kind not in SUPPORTED:
        raise UnsupportedMediaType(f"the file looks like {kind}; supported are {', '.join(SUPPORTED)}")
    with _decoder_errors(kind), _open(content, kind) as image:
        _check_header(image, limits)
        frames = int(getattr(image, "n_frames", 1))
        _check_frames(frames, limits)
        image.seek(0)
        if _is_uniform(image, kind, frames):
            width, height = image.size
            _verify(image, kind, content)
            # After verifying, a JPEG is a small grey picture already.
            looks = perceptual_hash(image)
            encoded, media_type = content, JPEG if kind == "JPEG" else PNG
        else:
            plain = to_eight_bits(image)
            # Read only now: loading a TIFF turns it upright already.
            upright = _upright(plain, _orientation(image))
            width, height = upright.size
            encoded, media_type = _encode(upright, kind, limits)
            looks = perceptual_hash(upright)
    return NormalisedImage(
        content=encoded,
        media_type=media_type,
        width=width,
        height=height,
        format=kind,
        file_sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        frames=frames,
        perceptual_hash=looks,
    )


def _open(content: bytes, kind: str) -> Image.Image:
    # One plugin only: the sniffed one. A file of two natures never reaches a decoder that it was not checked for.
    return Image.open(io.BytesIO(content), formats=["HEIF" if kind == "HEIC" else kind])


def _check_header(image: Image.Image, limits: DecodeLimits) -> None:
    width, height = image.size
    if width * height > limits.pixels_max:
        raise FileTooLarge(
            f"the image has {width} x {height} pixels; at most {limits.pixels_max} in all (LENSMESH_VISION_PIXELS_MAX)"
        )
    if max(width, height) > limits.side_pixels_max:
        raise FileTooLarge(
            f"the image has {width} x {height} pixels; at most {limits.side_pixels_max} a side"
            " (LENSMESH_VISION_SIDE_PIXELS_MAX)"
        )
    if min(width, height) < 1:
        raise BrokenImage(f"the image has {width} x {height} pixels")


def _check_frames(frames: int, limits: DecodeLimits) -> None:
    if frames > limits.frames_max:
        raise FileTooLarge(f"the image has {frames} frames; at most {limits.frames_max} (LENSMESH_VISION_FRAMES_MAX)")


def _is_uniform(image: Image.Image, kind: str, frames: int) -> bool:
    if image.mode not in ("RGB", "L") or _orientation(image) != 1:
        return False
    # Phones append a second JPEG (MPO); decoders read the first and stop.
    return kind == "JPEG" or (kind == "PNG" and frames == 1 and "transparency" not in image.info)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except _DECODER_ERRORS:
        # Broken metadata does not make a broken picture.
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    method = _UPRIGHT_BY_ORIENTATION.get(orientation)
    if method is None:
        return image
    upright = image.transpose(method)
    upright.info = image.info
    return upright


def _verify(image: Image.Image, kind: str, content: bytes) -> None:
    if kind == "JPEG":
        # Not smaller than the perceptual hash needs.
        width, height = (max(side // _VERIFY_SCALE, SIDE_PIXELS_MIN) for side in image.size)
        image.draft("L", (width, height))
    image.load()
    # Pillow is content once all rows are there; stricter decoders downstream are not.
    if kind == "PNG" and _PNG_END not in content:
        raise BrokenImage("the PNG file can't be decoded: its end is missing")


def _encode(image: Image.Image, kind: str, limits: DecodeLimits) -> tuple[bytes, str]:
    # The pixels stay in the file's colour space, so its profile has to stay with them.
    profile = image.info.get("icc_profile")
    target = io.BytesIO()
    if kind in _LOSSLESS and image.width * image.height <= limits.png_pixels_max:
        image.save(target, "PNG", compress_level=_PNG_LEVEL, icc_profile=profile)
        return target.getvalue(), PNG
    image.save(target, "JPEG", quality=_JPEG_QUALITY, subsampling=_JPEG_FULL_CHROMA, icc_profile=profile)
    return target.getvalue(), JPEG


@contextmanager
def _decoder_errors(kind: str) -> Iterator[None]:
    """The one place where what decoders raise becomes an error of the table."""
    try:
        yield
    except LensmeshError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FileTooLarge(
            f"the {kind} file has a frame of more pixels than are decoded (LENSMESH_VISION_PIXELS_MAX)"
        ) from error
    except MemoryError as error:
        raise FileTooLarge(
            f"the {kind} file needs more memory than a decoder may use (LENSMESH_VISION_DECODE_MEMORY_BYTES_MAX)"
        ) from error
    except UnidentifiedImageError as error:
        # Its text names an object in memory, nothing that helps the caller.
        raise BrokenImage(f"the file starts like {kind}, but its header is broken") from error
    except _DECODER_ERRORS as error:
        reason = " ".join(str(error).split())[:_REASON_LENGTH_MAX] or type(error).__name__
        raise BrokenImage(f"the {kind} file can't be decoded: {reason}") from error
