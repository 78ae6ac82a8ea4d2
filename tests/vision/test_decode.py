"""Decoding in this process: what every kind of file becomes, and which error every damaged one is."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import zlib

import numpy
import pytest
from PIL import Image, ImageCms

from services.mesh.errors import BrokenImage, FileTooLarge, UnsupportedMediaType
from services.vision.acquire import AcquireSettings, NormalisedImage
from services.vision.acquire.decode import JPEG, PNG, normalise, prepare_process

LIMITS = AcquireSettings(
    pixels_max=1_000_000, side_pixels_max=5000, frames_max=10, png_pixels_max=100_000
).decode_limits
# Pillow warns of each oddity that it met in a damaged TIFF.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")

FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "HEIF", "AVIF"]
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture(autouse=True, scope="module")
def _prepared() -> None:
    prepare_process(LIMITS)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image as a file."""
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def quarters(width: int = 60, height: int = 40) -> Image.Image:
    """Red top left, green top right, blue below left, white below right."""
    image = Image.new("RGB", (width, height), WHITE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    return image


def corners(image: NormalisedImage) -> list[str]:
    """The names of the nearest pure colours at the four corners, row by row."""
    decoded = Image.open(io.BytesIO(image.content)).convert("RGB")
    names = {RED: "red", GREEN: "green", BLUE: "blue", WHITE: "white", (0, 0, 0): "black"}
    at = [(x, y) for y in (3, decoded.height - 4) for x in (3, decoded.width - 4)]
    return [
        min(
            (sum(abs(a - b) for a, b in zip(colour, decoded.getpixel(xy), strict=True)), name)
            for colour, name in names.items()
        )[1]
        for xy in at
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(kind: str) -> None:
    """Each supported format becomes a JPEG or PNG of the same picture, with the facts of the file."""
    content = encoded(quarters(), kind)

    image = normalise(content, LIMITS)

    assert ["red", "green", "blue", "white"] == corners(image)
    assert {"HEIF": "HEIC"}.get(kind, kind) == image.format
    assert (60, 40, 1, len(content)) == (image.width, image.height, image.frames, image.size_bytes)
    assert hashlib.sha256(content).hexdigest() == image.file_sha256
    assert (PNG if kind in ("PNG", "GIF", "BMP") else JPEG) == image.media_type


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_uniform_file_is_returned_as_it_is(kind: str, mode: str) -> None:
    """An upright 8-bit JPEG or PNG is not encoded again."""
    content = encoded(quarters().convert(mode), kind)

    assert content is normalise(content, LIMITS).content


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, ["red", "green", "blue", "white"]),
        (2, ["green", "red", "white", "blue"]),
        (3, ["white", "blue", "green", "red"]),
        (4, ["blue", "white", "red", "green"]),
        (5, ["red", "blue", "green", "white"]),
        (6, ["blue", "red", "white", "green"]),
        (7, ["white", "green", "blue", "red"]),
        (8, ["green", "white", "red", "blue"]),
    ],
)
def test_the_picture_is_turned_upright(kind: str, orientation: int, expected: list[str]) -> None:
    """All eight EXIF orientations are applied, and width and height are those of the upright picture."""
    exif = Image.Exif()
    exif[0x0112] = orientation

    image = normalise(encoded(quarters(), kind, exif=exif), LIMITS)

    assert expected == corners(image)
    assert ((40, 60) if orientation > 4 else (60, 40)) == (image.width, image.height)
    assert 1 == Image.open(io.BytesIO(image.content)).getexif().get(0x0112, 1)


def _lab() -> Image.Image:
    converted = ImageCms.profileToProfile(
        quarters(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert converted is not None
    return converted


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(encoded(quarters().convert("CMYK"), "JPEG"), ["red", "green", "blue", "white"], id="cmyk-jpeg"),
        pytest.param(encoded(quarters().convert("CMYK"), "TIFF"), ["red", "green", "blue", "white"], id="cmyk-tiff"),
        pytest.param(encoded(quarters().convert("YCbCr"), "TIFF"), ["red", "green", "blue", "white"], id="ycbcr-tiff"),
        pytest.param(encoded(_lab(), "TIFF"), ["red", "green", "blue", "white"], id="lab-tiff"),
        pytest.param(encoded(quarters().convert("P"), "PNG"), ["red", "green", "blue", "white"], id="palette"),
        pytest.param(encoded(quarters().convert("RGBA"), "PNG"), ["red", "green", "blue", "white"], id="opaque-alpha"),
        pytest.param(encoded(Image.new("RGBA", (60, 40), (0, 0, 0, 0)), "PNG"), ["white"] * 4, id="transparent"),
        pytest.param(encoded(Image.new("RGBA", (60, 40), (0, 0, 0, 0)), "WEBP"), ["white"] * 4, id="transparent-webp"),
        pytest.param(encoded(Image.new("RGBA", (60, 40), (0, 0, 0, 0)), "TIFF"), ["white"] * 4, id="transparent-tiff"),
        pytest.param(encoded(Image.new("LA", (60, 40), (0, 0)), "PNG"), ["white"] * 4, id="transparent-grey"),
        pytest.param(encoded(Image.new("L", (60, 40), 0), "PNG", transparency=0), ["white"] * 4, id="grey-key"),
        pytest.param(encoded(Image.new("RGB", (60, 40), RED), "PNG", transparency=RED), ["white"] * 4, id="rgb-key"),
        pytest.param(encoded(Image.new("P", (60, 40), 0), "PNG", transparency=0), ["white"] * 4, id="palette-key"),
        pytest.param(encoded(Image.new("P", (60, 40), 0), "GIF", transparency=0), ["white"] * 4, id="transparent-gif"),
        pytest.param(encoded(Image.new("1", (60, 40), 1), "PNG"), ["white"] * 4, id="bilevel"),
        pytest.param(encoded(Image.new("I;16", (60, 40), 65535), "PNG"), ["white"] * 4, id="16-bit-png"),
        pytest.param(encoded(Image.new("I;16", (60, 40), 65535), "TIFF"), ["white"] * 4, id="16-bit-tiff"),
        pytest.param(encoded(Image.new("I", (60, 40), 255), "TIFF"), ["white"] * 4, id="32-bit-tiff"),
        pytest.param(encoded(Image.new("F", (60, 40), 255.0), "TIFF"), ["white"] * 4, id="float-tiff"),
    ],
)
def test_every_colour_mode_becomes_rgb_or_grey(content: bytes, expected: list[str]) -> None:
    """Whatever the file's colours are, the result shows the same picture, opaque on white."""
    image = normalise(content, LIMITS)

    assert expected == corners(image)
    assert Image.open(io.BytesIO(image.content)).mode in ("RGB", "L")


def test_floats_are_stretched() -> None:
    """A float image keeps its order of brightness, from its darkest to its lightest value, nan or not."""
    values = numpy.linspace(0.0, 1.0, 60 * 40, dtype=numpy.float32).reshape(40, 60)
    values[0, 0] = numpy.nan

    image = Image.open(io.BytesIO(normalise(encoded(Image.fromarray(values), "TIFF"), LIMITS).content))

    assert image.getpixel((1, 1)) < 20
    assert image.getpixel((58, 38)) > 235


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_frame_of_an_animation_is_used(kind: str) -> None:
    """An animation is its first frame, and its frames are counted."""
    frames = [Image.new("RGB", (60, 40), colour) for colour in (RED, GREEN, BLUE)]

    image = normalise(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), LIMITS)

    assert ["red"] * 4 == corners(image)
    assert 3 == image.frames
    assert 1 == getattr(Image.open(io.BytesIO(image.content)), "n_frames", 1)


def test_a_large_lossless_picture_becomes_a_jpeg() -> None:
    """Above png_pixels_max, lossless sources that need encoding become JPEG."""
    assert JPEG == normalise(encoded(quarters(600, 400).convert("RGBA"), "PNG"), LIMITS).media_type


def test_a_colour_profile_stays_with_its_colours() -> None:
    """A re-encoded RGB picture keeps its ICC profile."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    image = normalise(encoded(quarters(), "TIFF", icc_profile=profile), LIMITS)

    assert profile == Image.open(io.BytesIO(image.content)).info["icc_profile"]


@pytest.mark.parametrize(
    ("content", "looks_like"),
    [
        (b"", "an empty file"),
        (b"\n <!DOCTYPE html><p>Not found", "HTML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (b'<?xml version="1.0"?><rss/>', "XML"),
        (b'{"error": "no"}', "JSON"),
        (b"%PDF-1.7", "PDF"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00", "video"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "AVI video"),
        ("no photo for you, señor".encode(), "text"),
        (bytes(100), "an unknown type"),
        (bytes(range(255, 0, -1)), "an unknown type"),
    ],
)
def test_other_types_are_named(content: bytes, looks_like: str) -> None:
    """A file that is no supported image is refused with what it looks like."""
    with pytest.raises(UnsupportedMediaType, match=looks_like):
        normalise(content, LIMITS)


@pytest.mark.parametrize("kind", FORMATS)
def test_too_many_pixels_are_refused(kind: str) -> None:
    """The limit of pixels holds in every format."""
    with pytest.raises(FileTooLarge, match="PIXELS_MAX"):
        normalise(encoded(Image.new("RGB", (1300, 1000)), kind), LIMITS)


def test_a_bomb_is_refused_by_its_header() -> None:
    """A PNG of a few bytes that claims 10 gigapixels is refused without decoding it."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IDAT"

    with pytest.raises(FileTooLarge, match="PIXELS_MAX"):
        normalise(bomb, LIMITS)


def test_a_strip_is_refused() -> None:
    """A side longer than its limit is refused although the pixels are few."""
    with pytest.raises(FileTooLarge, match="5001 x 1 pixels; at most 5000 a side"):
        normalise(encoded(Image.new("L", (5001, 1)), "PNG"), LIMITS)


def test_too_many_frames_are_refused() -> None:
    """An animation longer than frames_max is refused."""
    frames = [Image.new("L", (4, 4), value) for value in range(11)]

    with pytest.raises(FileTooLarge, match="11 frames; at most 10"):
        normalise(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), LIMITS)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_broken(kind: str, kept: float) -> None:
    """A file of which only the beginning arrived is an error, not a grey half."""
    content = encoded(Image.effect_noise((200, 150), 60).convert("RGB"), kind)

    with pytest.raises(BrokenImage):
        normalise(content[: int(len(content) * kept)], LIMITS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("cut", [1, 2, 9])
def test_a_missing_end_is_seen(kind: str, cut: int) -> None:
    """A file that would be passed through unchanged lacks not even its last byte."""
    with pytest.raises(BrokenImage):
        normalise(encoded(quarters(), kind)[:-cut], LIMITS)


@pytest.mark.parametrize("kind", FORMATS)
def test_damage_never_escapes_the_error_table(kind: str) -> None:
    """However bytes are flipped or cut, the answer is an image or an error of the table."""
    chance = random.Random(kind)
    whole = encoded(quarters(), kind)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 3, 20))):
            # Headers and their numbers are at the beginning, where damage is most inventive.
            at = chance.randrange(len(damaged) if chance.random() < 0.5 else min(200, len(damaged)))
            damaged[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        if chance.random() < 0.3:
            del damaged[chance.randrange(len(damaged)) :]
        try:
            image = normalise(bytes(damaged), LIMITS)
        except (BrokenImage, FileTooLarge, UnsupportedMediaType):
            continue
        assert image.width > 0
