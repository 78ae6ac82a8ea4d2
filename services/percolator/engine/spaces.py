"""The queries of one space: which stored query each belongs to, and what is needed to score it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.percolator.engine.exact_rows import ExactRows
from services.percolator.engine.first_pass import CodedRows, IntegerProduct
from services.percolator.engine.postings import Postings
from services.percolator.engine.table import Column
from services.percolator.engine.types import Dense, Sparse


class Rows:
    """Numbers of rows, given and taken back, and whose each one is: -1 for those that are free."""

    def __init__(self) -> None:
        self.owners = Column(np.int32)
        self._free: list[int] = []
        self.used = 0

    def take(self, owner: int) -> int:
        """A row for the stored query under this number."""
        row = self._free.pop() if self._free else self.used
        self.used = max(self.used, row + 1)
        self.owners[row] = owner
        return row

    def give_back(self, row: int) -> None:
        """Let another have the row."""
        self.owners[row] = -1
        self._free.append(row)


class DenseSpace:
    """Dense queries: coded for the first pass, and as they are."""

    def __init__(self, dim: int, product: IntegerProduct, directory: Path | None) -> None:
        self.dim = dim
        self.rows = Rows()
        self.coded = CodedRows(dim, product)
        self.exact = ExactRows(dim, directory)

    def put(self, rows: Sequence[int], vectors: Sequence[Dense], thresholds: Sequence[float]) -> None:
        """Set rows, each with its vector and the threshold of its stored query."""
        places, values = np.array(rows, np.int64), np.stack(vectors)
        self.coded.put(places, values, np.array(thresholds, np.float64))
        self.exact.put(places, values)

    def remove(self, row: int) -> None:
        """Remove a row."""
        self.coded.clear(np.array([row], np.int64))
        self.rows.give_back(row)


class KeywordSpace:
    """Keyword queries."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.postings = Postings()
        # The terms of each row, to find its entries by.
        self._terms: dict[int, NDArray[np.uint32]] = {}

    def put(self, row: int, weights: Sparse) -> None:
        """Set a row."""
        self._terms[row] = np.fromiter(weights, np.uint32, len(weights))
        self.postings.put(row, weights)

    def remove(self, row: int) -> None:
        """Remove a row."""
        self.postings.remove(row, self._terms.pop(row).tolist())
        self.rows.give_back(row)
