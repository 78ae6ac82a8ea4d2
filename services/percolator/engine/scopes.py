"""Whom a stored query is for: its collections and its condition, each distinct pair kept once.

Thousands of stored queries share a scope, so that what an asset satisfies is found out once for all of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.mesh.filters import MATCH_ALL, Condition
from services.percolator.engine.conditions import Conditions
from services.percolator.engine.table import Column
from services.percolator.engine.types import Asset


class Scopes:
    """The distinct scopes, each under a number of its own for as long as a stored query has it."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions
        # That of most stored queries, held for good.
        self._match_all = conditions.hold(MATCH_ALL)
        self._numbers: dict[tuple[int, int], int] = {}
        self._free: list[int] = []
        self._sets: dict[frozenset[str], int] = {}
        self._free_sets: list[int] = []
        self._set_holders: list[int] = []
        self._by_number: list[frozenset[str]] = []
        self._by_collection: dict[str, set[int]] = {}
        # By scope: its set of collections, its condition, and how many stored queries have it.
        self._set_of = Column(np.int64)
        self._condition_of = Column(np.int64)
        self._count = Column(np.int64)
        self._used = 0

    @property
    def size(self) -> int:
        """Numbers in use, and some that are free."""
        return self._used

    def hold(self, collection_ids: frozenset[str], condition: Condition) -> int:
        """The number of a scope, which is kept until it is released as often as it is held."""
        of_condition = self._match_all if condition is MATCH_ALL else self._conditions.hold(condition)
        pair = (self._hold_set(collection_ids), of_condition)
        number = self._numbers.get(pair)
        if number is None:
            number = self._free.pop() if self._free else self._used
            self._used = max(self._used, number + 1)
            self._numbers[pair] = number
            self._set_of[number], self._condition_of[number] = pair
            self._count[number] = 0
        self._count[number] += 1
        return number

    def release(self, number: int) -> None:
        """Let go of a scope."""
        pair = (int(self._set_of[number]), int(self._condition_of[number]))
        self._release_set(pair[0])
        if pair[1] != self._match_all:
            self._conditions.release(pair[1])
        self._count[number] -= 1
        if not self._count[number]:
            del self._numbers[pair]
            self._free.append(number)

    def holds(self, numbers: NDArray[np.int64], asset: Asset) -> NDArray[np.bool_]:
        """Whether an asset is in each of these scopes, int64[N] without repetition; bool[N]."""
        of_collection = self._sets_of(asset.collection_id)
        held: NDArray[np.bool_] = of_collection[self._set_of.values[numbers]]
        conditions = self._condition_of.values[numbers[held]]
        distinct, places = np.unique(conditions, return_inverse=True)
        held[held] = self._conditions.truths(distinct, asset.document)[places]
        return held

    def of_collection(self, collection_id: str) -> NDArray[np.int64]:
        """The scopes that a collection is in."""
        sets = self._set_of.values[: self._used]
        return np.flatnonzero(self._sets_of(collection_id)[sets] & (self._count.values[: self._used] > 0))

    def counts(self, numbers: NDArray[np.int64]) -> int:
        """How many stored queries have one of these scopes."""
        return int(self._count.values[numbers].sum())

    def _sets_of(self, collection_id: str) -> NDArray[np.bool_]:
        held = np.zeros(len(self._by_number), np.bool_)
        held[list(self._by_collection.get(collection_id, ()))] = True
        return held

    def _hold_set(self, collection_ids: frozenset[str]) -> int:
        number = self._sets.get(collection_ids)
        if number is None:
            number = self._free_sets.pop() if self._free_sets else len(self._by_number)
            if number == len(self._by_number):
                self._by_number.append(collection_ids)
                self._set_holders.append(0)
            self._sets[collection_ids], self._by_number[number] = number, collection_ids
            for each in collection_ids:
                self._by_collection.setdefault(each, set()).add(number)
        self._set_holders[number] += 1
        return number

    def _release_set(self, number: int) -> None:
        self._set_holders[number] -= 1
        if self._set_holders[number]:
            return
        for each in self._by_number[number]:
            self._by_collection[each].discard(number)
            if not self._by_collection[each]:
                del self._by_collection[each]
        del self._sets[self._by_number[number]]
        self._free_sets.append(number)
