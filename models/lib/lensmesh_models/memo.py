"""Remembers the last answers of a model by the SHA-256 of its input bytes.

Several roles ask for the same facts of the same image at about the same time; the second one gets them from here.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Memo(Generic[T]):
    """Least recently used values first out; failures are not kept. For one thread."""

    def __init__(self, compute: Callable[[bytes], T], *, entries_max: int = 64) -> None:
        self._compute, self._entries_max = compute, entries_max
        self._known: OrderedDict[bytes, T] = OrderedDict()

    def __call__(self, data: bytes) -> T:
        """The value of ``data``, computed once while remembered."""
        key = hashlib.sha256(data).digest()
        if key not in self._known:
            self._known[key] = self._compute(data)
            if len(self._known) > self._entries_max:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]
