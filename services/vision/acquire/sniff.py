"""Names what a file is by its first bytes, whatever its host claims.

It only names; whether the file decodes is `decode`'s to find out.
"""

from __future__ import annotations

#: Format names of the images that are accepted.
SUPPORTED = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "HEIC", "AVIF")

#: Bytes that are looked at.
HEAD_BYTES = 512

# The signatures of Pillow's plugins and of the types that people send by mistake.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"8BPS", "PSD"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x1aE\xdf\xa3", "Matroska or WebM video"),
    (b"ID3", "MP3 audio"),
    (b"%!PS", "PostScript"),
)
_RIFF_KINDS = {b"WEBP": "WEBP", b"AVI ": "AVI video", b"WAVE": "WAVE audio"}
# ISO/IEC 23008-12 annex B: the brands of still and moving HEVC images.
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
# The brands of any image in this container; which codec it has, the compatible brands say.
_HEIF_BRANDS = frozenset({b"mif1", b"mif2", b"msf1"})


def sniff(content: bytes) -> str:
    """The name of the file's type: one of SUPPORTED, another such as "HTML", or "an unknown type"."""
    head = content[:HEAD_BYTES]
    if not head:
        return "an empty file"
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF":
        return _RIFF_KINDS.get(head[8:12], "a RIFF file")
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    return _text(head)


def _iso_media(head: bytes) -> str:
    box_bytes = int.from_bytes(head[:4], "big")
    brands = [head[at : at + 4] for at in (8, *range(16, min(box_bytes, len(head)) - 3, 4))]
    for brand in brands if brands[0] in _HEIF_BRANDS else brands[:1]:
        if brand in _AVIF_BRANDS:
            return "AVIF"
        if brand in _HEIC_BRANDS:
            return "HEIC"
    return "an HEIF image of another codec" if brands[0] in _HEIF_BRANDS else "MP4 or QuickTime video"


def _text(head: bytes) -> str:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in text:
        return "SVG"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<!--")):
        return "HTML"
    if text.startswith(b"<"):
        return "XML"
    if text.startswith((b"{", b"[")):
        return "JSON"
    try:
        # A multi-byte character may be cut at the end of the head.
        is_text = head.decode("utf-8", "ignore" if len(head) == HEAD_BYTES else "strict").isprintable()
    except UnicodeDecodeError:
        is_text = False
    return "text" if is_text or (text.isascii() and b"\x00" not in text) else "an unknown type"
