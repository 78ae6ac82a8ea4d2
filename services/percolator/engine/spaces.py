"""The queries of one space: which stored query each belongs to, and what is needed to score it."""

from __future__ import annotations

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

    def take(self) -> int:
        """A row; its owner is still to be set."""
        if self._free:
            return self._free.pop()
        self.used += 1
        return self.used - 1

    def give_back(self, row: int) -> None:
        """Let another have the row."""
        self.owners[row] = -1
        self._free.append(row)


class DenseRows:
    """Some dense queries to be set at once."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.owners: list[int] = []
        self.vectors: list[Dense] = []
        self.thresholds: list[float] = []

    def add(self, row: int, owner: int, vector: Dense, threshold: float) -> None:
        """Add one, with the threshold of the stored query that owns it."""
        self.rows.append(row)
        self.owners.append(owner)
        self.vectors.append(vector)
        self.thresholds.append(threshold)


class DenseSpace:
    """Dense queries: coded for the first pass, and as they are."""

    def __init__(self, dim: int, product: IntegerProduct, directory: Path | None) -> None:
        self.dim = dim
        self.rows = Rows()
        self.coded = CodedRows(dim, product)
        self.exact = ExactRows(dim, directory)

    def put(self, several: DenseRows) -> None:
        """Set rows."""
        places, values = np.array(several.rows, np.int64), np.concatenate(several.vectors).reshape(-1, self.dim)
        self.rows.owners.put(places, several.owners)
        self.coded.put(places, values, np.array(several.thresholds, np.float64))
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

    def put(self, row: int, owner: int, weights: Sparse) -> None:
        """Set a row."""
        self.rows.owners[row] = owner
        self._terms[row] = np.fromiter(weights, np.uint32, len(weights))
        self.postings.put(row, weights)

    def remove(self, row: int) -> None:
        """Remove a row."""
        self.postings.remove(row, self._terms.pop(row).tolist())
        self.rows.give_back(row)
