"""Which readings are text, and which are texture that looked like it.

A cup's rim is an excellent 8: confidence alone does not tell. What is short has to be surer, and a lone character that
fills the picture is taken for a thing.
"""

from __future__ import annotations

from lensmesh_models.text_detection import Quad
from lensmesh_models.text_reading import Reading

# Least confidence of a reading of one, of two, and of more letters and digits.
_CONFIDENCE_MIN = {1: 0.9, 2: 0.75}
_CONFIDENCE_MIN_LONG = 0.6
# Marks without any letter or digit say next to nothing, and most are texture.
_CONFIDENCE_MIN_MARKS = 0.9
# The share of the picture that the box of a lone character may cover.
_LONE_SHARE_MAX = 0.4


def believable(reading: Reading, quad: Quad, picture_px: int) -> bool:
    """Whether a line is reported; ``picture_px`` is the area of the whole picture in pixels."""
    letters = sum(character.isalnum() for character in reading.text)
    if not letters:
        return bool(reading.text.strip()) and reading.confidence >= _CONFIDENCE_MIN_MARKS
    width, height = quad.sides
    if letters == 1 and width * height > _LONE_SHARE_MAX * picture_px:
        return False
    return reading.confidence >= _CONFIDENCE_MIN.get(letters, _CONFIDENCE_MIN_LONG)
