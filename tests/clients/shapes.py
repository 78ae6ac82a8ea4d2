"""Whether a JSON value is what a generated type says: the same keys, and a fitting value under each."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict


def misfits(value: Any, kind: Any, place: str = "$") -> Iterator[str]:
    """What does not fit, by its place."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        yield from _in_object(value, kind, place)
    elif origin is list and isinstance(value, list):
        for number, each in enumerate(value):
            yield from misfits(each, arguments[0], f"{place}[{number}]")
    elif origin is dict and isinstance(value, dict):
        for name, each in value.items():
            yield from misfits(each, arguments[1], f"{place}.{name}")
    elif not _fits(value, kind):
        yield f"{place}: {value!r:.80} is not of {kind}"


def _in_object(value: Any, kind: Any, place: str) -> Iterator[str]:
    hints = get_type_hints(kind)
    if not isinstance(value, dict) or set(hints) != set(value):
        yield f"{place}: {value!r:.200} has not the keys {sorted(hints)}"
        return
    for name, each in hints.items():
        yield from misfits(value[name], each, f"{place}.{name}")


def _fits(value: Any, kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(not list(misfits(value, each)) for each in arguments)
    if origin is Literal:
        return value in arguments
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind if origin is None else ())
