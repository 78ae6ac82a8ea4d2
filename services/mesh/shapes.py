"""The rules of response shapes: nested objects and lists of "str", "int", "float" and "bool".

The gateway refuses shapes that break them; filling a shape is vision's part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.mesh.errors import InvalidArgument

# Nesting of a response shape, and keys in all: far beyond any real shape.
SHAPE_DEPTH_MAX = 8
SHAPE_KEYS_MAX = 256

SCALARS = ("str", "int", "float", "bool")


def check_shape(shape: Mapping[str, Any], path: str) -> None:
    """Check a shape's types and size.

    Raises:
        InvalidArgument: naming the key that is wrong.
    """
    if (count := _check(shape, path, 1)) > SHAPE_KEYS_MAX:
        raise InvalidArgument.field(path, f"has {count} keys; at most {SHAPE_KEYS_MAX}", "shape.keys")


def _check(shape: Any, path: str, depth: int) -> int:
    if depth > SHAPE_DEPTH_MAX:
        raise InvalidArgument.field(path, f"is nested deeper than {SHAPE_DEPTH_MAX}", "shape.depth")
    if isinstance(shape, Mapping):
        return len(shape) + sum(_check(value, f"{path}.{key}", depth + 1) for key, value in shape.items())
    if isinstance(shape, list):
        if len(shape) != 1:
            raise InvalidArgument.field(path, "a list in a shape holds exactly one element type", "shape.list")
        return _check(shape[0], f"{path}.0", depth + 1)
    if shape not in SCALARS:
        raise InvalidArgument.field(path, f"must be one of {', '.join(SCALARS)}, an object or a list", "shape.type")
    return 0
