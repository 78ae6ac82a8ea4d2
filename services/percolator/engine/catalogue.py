"""The stored queries of a namespace as columns: put, removed, listed. How they are matched, `core` knows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.percolator.engine.conditions import Conditions
from services.percolator.engine.first_pass import IntegerProduct
from services.percolator.engine.payloads import Payloads
from services.percolator.engine.scopes import Scopes
from services.percolator.engine.spaces import DenseRows, DenseSpace, KeywordSpace
from services.percolator.engine.table import Column
from services.percolator.engine.types import Space, StoredQuery

Numbers = NDArray[np.int64]
_NOBODY = np.zeros(0, np.int64)


class Catalogue:
    """Stored queries by number, and their queries by place.

    Args:
        product: what multiplies 8-bit matrices; several may share it.
        directory: where vectors go that are too many for memory; None: where temporary files go.
        payloads: where payloads go; several may share it. None: into a file of its own.
    """

    def __init__(
        self, product: IntegerProduct, directory: Path | None = None, payloads: Payloads | None = None
    ) -> None:
        self._product = product
        self._directory = directory
        self._payloads = payloads or Payloads(directory)
        self.conditions = Conditions()
        self.scopes = Scopes(self.conditions)
        self._by_id: dict[str, int] = {}
        self.ids: list[str] = []
        self._free: list[int] = []
        # By stored query. An infinite threshold marks one that matches nothing: it is gone, or not enabled.
        self.threshold = Column(np.float64)
        self.scope = Column(np.int32)
        self.partition = Column(np.uint8)
        self._created_ns = Column(np.int64)
        self.expires_ns = Column(np.int64)
        self.count = Column(np.uint8)
        self._live = Column(np.bool_)
        self._payload_place = Column(np.int32)
        self._payload_size = Column(np.int32)
        self.first = Column(np.int32)
        # By query. Those of one stored query stand together, from `first` on.
        self.space = Column(np.int16)
        self.row = Column(np.int32)
        self.condition = Column(np.int32)
        self._queries_used = 0
        # Places of queries that are free, by how many are free together.
        self._free_queries: dict[int, list[int]] = {}
        # Stored queries that everything in their scope matches, even without a vector.
        self.always: set[int] = set()
        # For each matching under way, the stored queries that have changed since it began.
        self._changed_since: list[set[int]] = []
        self.space_numbers: dict[Space, int] = {}
        self.spaces: list[DenseSpace | KeywordSpace] = []
        self.indexes: list[int] = []

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, percolator_id: str) -> bool:
        return percolator_id in self._by_id

    def put(self, queries: Iterable[StoredQuery]) -> None:
        """Add stored queries, each in the place of the one with its id.

        Raises:
            ValueError: a vector is of another kind or dimension than the others of its space; nothing is added then.
        """
        latest = list({each.percolator_id: each for each in queries}.values())
        for stored in latest:
            for query in stored.queries:
                self._space_for(query.space, None if query.dense is None else len(query.dense))
        numbers = [self._take(each.percolator_id) for each in latest]
        self._note_changed(numbers)
        places = np.array(numbers, np.int64)
        self._live.put(places, True)
        self.threshold.put(places, [each.min_score if each.enabled else np.inf for each in latest])
        self.scope.put(places, [self.scopes.hold(each.collection_ids, each.condition) for each in latest])
        self.partition.put(places, [each.partition for each in latest])
        self._created_ns.put(places, [each.created_ns for each in latest])
        self.expires_ns.put(places, [each.expires_ns for each in latest])
        self._payload_place.put(places, self._payloads.put([each.payload for each in latest]))
        self._payload_size.put(places, [len(each.payload) for each in latest])
        enabled = [(number, each) for number, each in zip(numbers, latest, strict=True) if each.enabled]
        self.always.update(number for number, each in enabled if each.min_score <= 0)
        self.count.put(places, [len(each.queries) if each.enabled else 0 for each in latest])
        self._put_queries(enabled)

    def remove(self, percolator_id: str) -> None:
        """Remove a stored query; nothing happens when there is none."""
        number = self._by_id.pop(percolator_id, None)
        if number is None:
            return
        first, count = int(self.first[number]), int(self.count[number])
        for place in range(first, first + count):
            self.spaces[self.space[place]].remove(int(self.row[place]))
            if self.condition[place] >= 0:
                self.conditions.release(int(self.condition[place]))
        if count:
            self._free_queries.setdefault(count, []).append(first)
        self.scopes.release(int(self.scope[number]))
        self.always.discard(number)
        self._payloads.free(int(self._payload_place[number]), int(self._payload_size[number]))
        self.threshold[number], self.count[number], self._live[number] = np.inf, 0, False
        self._free.append(number)
        self._note_changed([number])

    def remove_partition(self, partition: int) -> None:
        """Remove all stored queries of a partition."""
        used = len(self.ids)
        here = self._live.values[:used] & (self.partition.values[:used] == partition)
        for number in np.flatnonzero(here).tolist():
            self.remove(self.ids[number])

    def keys(
        self, limit: int, *, partitions: Sequence[int] | None = None, stale: Space | None = None
    ) -> tuple[list[tuple[int, str]], int]:
        """The first stored queries, oldest first, as (created_ns, id), and how many there are in all.

        Args:
            partitions: only those of these partitions.
            stale: only those with a query in this index and another version of its model.
        """
        kept = self._live.values[: len(self.ids)].copy()
        if partitions is not None:
            kept &= np.isin(self.partition.values[: len(kept)], partitions)
        if stale is not None:
            kept &= self._is_stale(stale)
        numbers = np.flatnonzero(kept)
        created = self._created_ns.values[numbers]
        if limit < len(numbers):
            numbers = numbers[created <= np.partition(created, limit - 1)[limit - 1]] if limit else _NOBODY
        first = sorted((int(self._created_ns[number]), self.ids[number]) for number in numbers.tolist())
        return first[:limit], int(kept.sum())

    def expired(self, now_ns: int) -> list[str]:
        """The ids of stored queries that are matched no more since some time."""
        used = len(self.ids)
        late = self._live.values[:used] & (self.expires_ns.values[:used] <= now_ns)
        return [self.ids[number] for number in np.flatnonzero(late).tolist()]

    def payload(self, number: int) -> bytes:
        """What comes back with the matches of a stored query."""
        return self._payloads.read(int(self._payload_place[number]), int(self._payload_size[number]))

    @property
    def is_matching(self) -> bool:
        """Whether a matching has begun and not ended."""
        return bool(self._changed_since)

    @contextlib.contextmanager
    def _noting_changes(self) -> Iterator[set[int]]:
        """The numbers of the stored queries that change from now on."""
        changed: set[int] = set()
        self._changed_since.append(changed)
        try:
            yield changed
        finally:
            self._changed_since = [each for each in self._changed_since if each is not changed]

    def _note_changed(self, numbers: Iterable[int]) -> None:
        for each in self._changed_since:
            each.update(numbers)

    def close(self) -> None:
        """Let go of files."""
        for space in self.spaces:
            if isinstance(space, DenseSpace):
                space.exact.close()

    def _take(self, percolator_id: str) -> int:
        """A number for a stored query, whose place is empty then."""
        if percolator_id in self._by_id:
            self.remove(percolator_id)
        if self._free:
            number = self._free.pop()
            self.ids[number] = percolator_id
        else:
            number = len(self.ids)
            self.ids.append(percolator_id)
        self._by_id[percolator_id] = number
        return number

    def _put_queries(self, stored: Sequence[tuple[int, StoredQuery]]) -> None:
        """Set the queries of stored queries, given with their numbers."""
        firsts: list[int] = []
        places: list[int] = []
        spaces: list[int] = []
        rows: list[int] = []
        conditions: list[int] = []
        dense: dict[int, DenseRows] = {}
        for number, query in stored:
            first = self._take_places(len(query.queries))
            firsts.append(first)
            for place, one in enumerate(query.queries, start=first):
                space_number = self.space_numbers[one.space]
                space, row = self.spaces[space_number], self.spaces[space_number].rows.take()
                places.append(place)
                spaces.append(space_number)
                rows.append(row)
                conditions.append(-1 if one.condition is None else self.conditions.hold(one.condition))
                if isinstance(space, KeywordSpace):
                    space.put(row, number, one.sparse or {})
                elif one.dense is not None:
                    dense.setdefault(space_number, DenseRows()).add(row, number, one.dense, query.min_score)
        self.first.put(np.array([number for number, _ in stored], np.int64), firsts)
        at = np.array(places, np.int64)
        self.space.put(at, spaces)
        self.row.put(at, rows)
        self.condition.put(at, conditions)
        for space_number, several in dense.items():
            known = self.spaces[space_number]
            assert isinstance(known, DenseSpace)
            known.put(several)

    def _take_places(self, count: int) -> int:
        """The first of some places for queries that stand together."""
        if free := self._free_queries.get(count):
            return free.pop()
        first, self._queries_used = self._queries_used, self._queries_used + count
        return first

    def _space_for(self, space: Space, dim: int | None) -> None:
        """Make sure that there is a space for vectors of this dimension; None: for keywords."""
        number = self.space_numbers.get(space)
        if number is None:
            number = self.space_numbers[space] = len(self.spaces)
            made = KeywordSpace() if dim is None else DenseSpace(dim, self._product, self._directory)
            self.spaces.append(made)
            self.indexes.append(space[0])
        known = self.spaces[number]
        if (known.dim if isinstance(known, DenseSpace) else None) != dim:
            raise ValueError(f"the vectors of {space} are of another kind: {dim or 'sparse'}")

    def _is_stale(self, current: Space) -> NDArray[np.bool_]:
        """Which stored queries have a query in an index with another version of its model."""
        stale = np.zeros(len(self.ids), np.bool_)
        for (index, version), number in self.space_numbers.items():
            if index == current[0] and version != current[1]:
                rows = self.spaces[number].rows
                owners = rows.owners.values[: rows.used]
                stale[owners[owners >= 0]] = True
        return stale
