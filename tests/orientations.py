"""Pictures as cameras store them that are held in some way, with the EXIF tag that says how."""

from __future__ import annotations

from PIL import Image

_TAG = 0x0112
# The inverse of what each orientation tells a viewer to do (EXIF 2.32, tag 274).
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
ORIENTATIONS = range(1, 9)


def stored(picture: Image.Image, orientation: int) -> tuple[Image.Image, Image.Exif]:
    """The pixels and the EXIF data of a file that shows this picture."""
    exif = Image.Exif()
    exif[_TAG] = orientation
    return picture.transpose(_STORED[orientation]) if orientation in _STORED else picture, exif
