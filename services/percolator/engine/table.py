"""Columns that grow: arrays by number, for what a dataclass a stored query would need ten times the memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FIRST = 64


class Column:
    """One value a number, and room for more."""

    __slots__ = ("values",)

    def __init__(self, dtype: Any) -> None:
        self.values: NDArray[Any] = np.zeros(_FIRST, dtype)

    def reserve(self, size: int) -> None:
        """Make room for numbers below `size`."""
        if size > len(self.values):
            wider = np.zeros(max(size, len(self.values) * 3 // 2), self.values.dtype)
            wider[: len(self.values)] = self.values
            self.values = wider

    def put(self, numbers: NDArray[np.int64], values: Any) -> None:
        """Set many."""
        if len(numbers):
            self.reserve(int(numbers.max()) + 1)
            self.values[numbers] = values

    def __getitem__(self, number: int) -> Any:
        return self.values[number]

    def __setitem__(self, number: int, value: Any) -> None:
        if number >= len(self.values):
            self.reserve(number + 1)
        self.values[number] = value
