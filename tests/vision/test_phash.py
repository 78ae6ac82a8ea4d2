"""The perceptual hash: near for the same picture in other files, far for other pictures."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path

import numpy
import pytest
from PIL import Image

from services.gateway.core.assets import MAX_DISTANCE_DEFAULT
from services.vision.acquire import AcquireSettings
from services.vision.acquire.decode import normalise, prepare_process
from services.vision.acquire.phash import perceptual_hash
from tests.orientations import ORIENTATIONS, stored

PHOTOS = sorted(path for path in (Path(__file__).parents[2] / "demo" / "photos").iterdir() if path.suffix != ".md")
LIMITS = AcquireSettings().decode_limits

photos = pytest.mark.parametrize("photo", PHOTOS, ids=lambda path: path.stem)


@pytest.fixture(autouse=True, scope="module")
def _prepared() -> None:
    prepare_process(LIMITS)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The image as a file."""
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def hash_of(content: bytes) -> str:
    """The hash that decoding a file gives."""
    return normalise(content, LIMITS).perceptual_hash


def distance(one: str, other: str) -> int:
    """How many bits differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_there_are_photos() -> None:
    """The photos of these tests are there."""
    assert 7 <= len(PHOTOS)


@photos
def test_a_file_has_one_hash(photo: Path) -> None:
    """The hash has 16 hex digits and is the same every time."""
    content = photo.read_bytes()
    first = hash_of(content)
    assert (16, f"{int(first, 16):016x}") == (len(first), first)
    assert first == hash_of(content)


@photos
@pytest.mark.parametrize("scale", [0.12, 0.25, 0.5, 0.75, 1.5])
def test_a_resized_picture_is_near(photo: Path, scale: float) -> None:
    """Another size changes few bits."""
    image = Image.open(photo).convert("RGB")
    resized = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.LANCZOS)
    assert distance(hash_of(photo.read_bytes()), hash_of(encoded(resized))) <= MAX_DISTANCE_DEFAULT


@photos
@pytest.mark.parametrize(("kind", "quality"), [("JPEG", 30), ("JPEG", 10), ("PNG", None), ("WEBP", 50), ("AVIF", 50)])
def test_a_recompressed_picture_is_near(photo: Path, kind: str, quality: int | None) -> None:
    """Another format or a low quality changes few bits."""
    content = encoded(Image.open(photo).convert("RGB"), kind, quality=quality)
    assert distance(hash_of(photo.read_bytes()), hash_of(content)) <= MAX_DISTANCE_DEFAULT


@photos
@pytest.mark.parametrize("colour", ["orange", "blue", "black", "white"])
def test_a_tinted_picture_is_near(photo: Path, colour: str) -> None:
    """A slight tint, and being slightly darker or lighter, changes few bits."""
    image = Image.open(photo).convert("RGB")
    tinted = Image.blend(image, Image.new("RGB", image.size, colour), 0.15)
    assert distance(hash_of(photo.read_bytes()), hash_of(encoded(tinted))) <= MAX_DISTANCE_DEFAULT


def test_different_pictures_are_far_apart() -> None:
    """No two of the photos are as near as a search would find by default, by far."""
    hashes = [hash_of(photo.read_bytes()) for photo in PHOTOS]
    assert 2 * MAX_DISTANCE_DEFAULT < min(distance(*pair) for pair in combinations(hashes, 2))


@photos
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_turned_picture_is_hashed_upright(photo: Path, orientation: int) -> None:
    """A file that says how to turn it has the hash of the upright picture."""
    image = Image.open(photo).convert("RGB")
    plain = hash_of(encoded(image, quality=95))
    held, exif = stored(image, orientation)
    assert distance(plain, hash_of(encoded(held, quality=95, exif=exif))) <= 2
    # Losslessly, the two are the same picture.
    assert hash_of(encoded(image, "PNG")) == hash_of(encoded(held, "PNG", exif=exif))


def test_a_turned_picture_without_a_word_of_it_is_another() -> None:
    """The hash tells a picture from the same one upside down, so that the test of orientations means something."""
    image = Image.open(PHOTOS[0]).convert("RGB")
    assert distance(perceptual_hash(image), perceptual_hash(image.rotate(180))) > 2 * MAX_DISTANCE_DEFAULT


@pytest.mark.parametrize("colour", ["black", "white", "red"])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (31, 32), (640, 480)])
def test_a_blank_picture_has_no_structure(colour: str, size: tuple[int, int]) -> None:
    """Pictures of one colour have the hash of zeros, whatever their size."""
    assert "0" * 16 == hash_of(encoded(Image.new("RGB", size, colour), "PNG"))


def test_the_bits_are_those_of_the_dct() -> None:
    """A 32 x 32 picture's bits are its DCT coefficients 1..8 above their median, row by row."""
    values = numpy.random.default_rng(7).integers(0, 256, (32, 32)).astype(numpy.uint8)
    basis = numpy.array([[numpy.cos(numpy.pi * u * (2 * x + 1) / 64) for x in range(32)] for u in range(1, 9)])
    coefficients = (basis @ values @ basis.T).ravel()
    bits = "".join("1" if each else "0" for each in coefficients > numpy.median(coefficients))
    assert f"{int(bits, 2):016x}" == perceptual_hash(Image.fromarray(values))
