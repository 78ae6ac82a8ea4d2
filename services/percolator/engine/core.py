"""Exact matching of assets against all stored queries of a namespace.

A first pass rules out what can't match; what it leaves is scored in double precision, rounded, and compared. Nothing
that matches is ever ruled out, so that the result is that of scoring every stored query.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.percolator.engine.conditions import Conditions
from services.percolator.engine.first_pass import IntegerProduct, codable
from services.percolator.engine.scopes import Scopes
from services.percolator.engine.spaces import DenseSpace, KeywordSpace
from services.percolator.engine.table import Column
from services.percolator.engine.types import (
    SCORE_DECIMALS,
    Asset,
    Dense,
    Found,
    Matched,
    Probe,
    Space,
    Stats,
    StoredQuery,
)

Numbers = NDArray[np.int64]
Words = dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]]

# Nanoseconds that an asset costs, as measured with 512 dimensions; only what is done first depends on them. A row in
# the first pass, alone and in a large batch, and what a pass costs whatever its rows; a stored query that is scored
# exactly, or whose scope is looked up; a condition that is evaluated by itself.
_SCAN_ALONE_NS, _SCAN_BATCH_NS, _SCAN_FIXED_NS = 27.0, 8.0, 100_000.0
_EXACT_NS, _LOOK_UP_NS, _CONDITION_NS = 2_000.0, 2.0, 2_000.0
# Filters come first where finding out what they leave takes at most this share of a first pass.
_FILTER_SHARE = 0.1
_NOBODY = np.zeros(0, np.int64)


class Engine:
    """The stored queries of one namespace. It is not made for use by several threads at once.

    Args:
        product: what multiplies 8-bit matrices; engines share it.
        directory: where vectors go that are too many for memory; None: where temporary files go.
    """

    def __init__(self, product: IntegerProduct, directory: Path | None = None) -> None:
        self._product = product
        self._directory = directory
        self._conditions = Conditions()
        self._scopes = Scopes(self._conditions)
        self._by_id: dict[str, int] = {}
        self._ids: list[str] = []
        self._free: list[int] = []
        # By stored query. An infinite threshold marks one that matches nothing: it is gone, or not enabled.
        self._threshold = Column(np.float64)
        self._scope = Column(np.int32)
        self._partition = Column(np.uint8)
        self._created_ns = Column(np.int64)
        self._expires_ns = Column(np.int64)
        self._count = Column(np.uint8)
        self._live = Column(np.bool_)
        self._first = Column(np.int32)
        # By query. Those of one stored query stand together, from `_first` on.
        self._space = Column(np.int16)
        self._row = Column(np.int32)
        self._condition = Column(np.int32)
        self._queries_used = 0
        # Places of queries that are free, by how many are free together.
        self._free_queries: dict[int, list[int]] = {}
        # Stored queries that everything in their scope matches, even without a vector.
        self._always: set[int] = set()
        self._space_numbers: dict[Space, int] = {}
        self._spaces: list[DenseSpace | KeywordSpace] = []

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, percolator_id: str) -> bool:
        return percolator_id in self._by_id

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the arrays take; the exact vectors, once they are in a file, not among them."""
        columns = [each for each in vars(self).values() if isinstance(each, Column)]
        dense = [each for each in self._spaces if isinstance(each, DenseSpace)]
        return sum(each.nbytes for each in columns) + sum(each.coded.nbytes for each in dense)

    def put(self, queries: Iterable[StoredQuery]) -> None:
        """Add stored queries, each in the place of the one with its id."""
        dense: dict[int, tuple[list[int], list[Dense], list[float]]] = {}
        for query in {each.percolator_id: each for each in queries}.values():
            self.remove(query.percolator_id)
            number = self._free.pop() if self._free else len(self._ids)
            if number == len(self._ids):
                self._ids.append(query.percolator_id)
            self._ids[number] = query.percolator_id
            self._by_id[query.percolator_id] = number
            self._threshold[number] = query.min_score if query.enabled else np.inf
            self._scope[number] = self._scopes.hold(query.collection_ids, query.condition)
            self._partition[number], self._created_ns[number] = query.partition, query.created_ns
            self._expires_ns[number], self._live[number] = query.expires_ns, True
            self._put_queries(number, query, dense)
            if query.enabled and query.min_score <= 0:
                self._always.add(number)
        for space_number, (rows, vectors, thresholds) in dense.items():
            space = self._spaces[space_number]
            assert isinstance(space, DenseSpace)
            space.put(rows, vectors, thresholds)

    def remove(self, percolator_id: str) -> None:
        """Remove a stored query; nothing happens when there is none."""
        number = self._by_id.pop(percolator_id, None)
        if number is None:
            return
        first, count = int(self._first[number]), int(self._count[number])
        for place in range(first, first + count):
            self._spaces[self._space[place]].remove(int(self._row[place]))
            if self._condition[place] >= 0:
                self._conditions.release(int(self._condition[place]))
        if count:
            self._free_queries.setdefault(count, []).append(first)
        self._scopes.release(int(self._scope[number]))
        self._always.discard(number)
        self._threshold[number], self._count[number], self._live[number] = np.inf, 0, False
        self._free.append(number)

    def remove_partition(self, partition: int) -> None:
        """Remove all stored queries of a partition."""
        used = len(self._ids)
        here = self._live.values[:used] & (self._partition.values[:used] == partition)
        for number in np.flatnonzero(here).tolist():
            self.remove(self._ids[number])

    def keys(
        self, limit: int, *, partitions: Sequence[int] | None = None, stale: Space | None = None
    ) -> tuple[list[tuple[int, str]], int]:
        """The first stored queries, oldest first, as (created_ns, id), and how many there are in all.

        Args:
            partitions: only those of these partitions.
            stale: only those with a query in this index and another version of its model.
        """
        kept = self._live.values[: len(self._ids)].copy()
        if partitions is not None:
            kept &= np.isin(self._partition.values[: len(kept)], partitions)
        if stale is not None:
            kept &= self._is_stale(stale)
        numbers = np.flatnonzero(kept)
        created = self._created_ns.values[numbers]
        if limit < len(numbers):
            numbers = numbers[created <= np.partition(created, limit - 1)[limit - 1]] if limit else _NOBODY
        first = sorted((int(self._created_ns[number]), self._ids[number]) for number in numbers.tolist())
        return first[:limit], int(kept.sum())

    def expired(self, now_ns: int) -> list[str]:
        """The ids of stored queries that are matched no more since some time."""
        used = len(self._ids)
        late = self._live.values[:used] & (self._expires_ns.values[:used] <= now_ns)
        return [self._ids[number] for number in np.flatnonzero(late).tolist()]

    def close(self) -> None:
        """Let go of files."""
        for space in self._spaces:
            if isinstance(space, DenseSpace):
                space.exact.close()

    def match(
        self, probes: Sequence[Probe], partitions: Sequence[int] | None = None, now_ns: int | None = None
    ) -> list[Matched]:
        """The stored queries that each asset matches. For the arguments, see `steps`."""
        steps = self.steps(probes, partitions, now_ns)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: list[Matched] = end.value
                return found

    def steps(
        self, probes: Sequence[Probe], partitions: Sequence[int] | None = None, now_ns: int | None = None
    ) -> Generator[None, None, list[Matched]]:
        """Match in steps of a few milliseconds; between them its caller may do something else, but change nothing.

        A dense query's score is the cosine clipped to 0..1, the best where the asset has several vectors in one index;
        a keyword query's is the inner product, clipped likewise; a query whose index the asset lacks, or whose own
        condition it does not satisfy, scores 0. The stored query's score is the mean. All are rounded to six decimals.
        The threshold is the larger of the probe's and the stored query's own, inclusive.

        Args:
            partitions: only stored queries of these count; None: all.
            now_ns: stored queries that expire until then don't count; None: the clock's time.

        Returns:
            What each asset matches.
        """
        now_ns = time.time_ns() if now_ns is None else now_ns
        selected = [self._selected(probe.asset, len(probes)) for probe in probes]
        yield
        scanned = yield from self._scan(
            [probe.asset if chosen is None else None for probe, chosen in zip(probes, selected, strict=True)],
            min((probe.min_score for probe in probes), default=0.0),
        )
        allowed = None
        if partitions is not None:
            allowed = np.zeros(256, np.bool_)
            allowed[list(partitions)] = True
        matched = []
        for probe, chosen, found in zip(probes, selected, scanned, strict=True):
            words = self._words(probe.asset)
            if chosen is None:
                candidates = self._candidates(found, words, probe.min_score)
                numbers = self._in_scope(candidates, probe.asset)
            else:
                candidates = numbers = chosen
            numbers = numbers[self._expires_ns.values[numbers] > now_ns]
            if allowed is not None:
                numbers = numbers[allowed[self._partition.values[numbers]]]
            matched.append(self._score(probe, numbers, words, len(candidates)))
            yield
        return matched

    # Putting.

    def _put_queries(
        self, number: int, query: StoredQuery, dense: dict[int, tuple[list[int], list[Dense], list[float]]]
    ) -> None:
        if not query.enabled:
            self._count[number] = 0
            return
        free = self._free_queries.get(len(query.queries))
        first = free.pop() if free else self._queries_used
        self._queries_used = max(self._queries_used, first + len(query.queries))
        self._first[number], self._count[number] = first, len(query.queries)
        for place, one in enumerate(query.queries, start=first):
            space_number, space = self._space_for(one.space, None if one.dense is None else len(one.dense))
            row = space.rows.take(number)
            self._space[place], self._row[place] = space_number, row
            self._condition[place] = -1 if one.condition is None else self._conditions.hold(one.condition)
            if isinstance(space, KeywordSpace):
                space.put(row, one.sparse or {})
            elif one.dense is not None:
                rows, vectors, thresholds = dense.setdefault(space_number, ([], [], []))
                rows.append(row)
                vectors.append(one.dense)
                thresholds.append(query.min_score)

    def _space_for(self, space: Space, dim: int | None) -> tuple[int, DenseSpace | KeywordSpace]:
        number = self._space_numbers.get(space)
        if number is None:
            number = self._space_numbers[space] = len(self._spaces)
            made = KeywordSpace() if dim is None else DenseSpace(dim, self._product, self._directory)
            self._spaces.append(made)
        known = self._spaces[number]
        if (known.dim if isinstance(known, DenseSpace) else None) != dim:
            raise ValueError(f"the vectors of {space} are of another kind: {dim or 'sparse'}")
        return number, known

    def _is_stale(self, current: Space) -> NDArray[np.bool_]:
        """Which stored queries have a query in an index with another version of its model."""
        stale = np.zeros(len(self._ids), np.bool_)
        for (index, version), number in self._space_numbers.items():
            if index == current[0] and version != current[1]:
                rows = self._spaces[number].rows
                owners = rows.owners.values[: rows.used]
                stale[owners[owners >= 0]] = True
        return stale

    # Matching.

    def _selected(self, asset: Asset, batch: int) -> Numbers | None:
        """The stored queries in the asset's scope, where scoring them all is cheaper than a first pass; else None."""
        scopes = self._scopes.of_collection(asset.collection_id)
        stored = self._scopes.counts(scopes)
        if not stored:
            return _NOBODY
        scan_ns = self._scan_ns(asset, batch)
        are_few = len(scopes) * _CONDITION_NS <= _FILTER_SHARE * scan_ns
        if are_few:
            scopes = scopes[self._scopes.holds(scopes, asset)]
            stored = self._scopes.counts(scopes)
        if stored * _EXACT_NS + len(self._ids) * _LOOK_UP_NS > scan_ns:
            return None
        numbers = self._of_scopes(scopes)
        return numbers if are_few else self._in_scope(numbers, asset)

    def _scan_ns(self, asset: Asset, batch: int) -> float:
        row_ns, total = _SCAN_BATCH_NS + (_SCAN_ALONE_NS - _SCAN_BATCH_NS) / batch, 0.0
        for space, number in self._dense_spaces(asset):
            given, dense = asset.dense[space], self._spaces[number]
            if not codable(np.stack(given)):
                return float("inf")
            total += (_SCAN_FIXED_NS + dense.rows.used * row_ns) * len(given)
        return total

    def _of_scopes(self, scopes: Numbers) -> Numbers:
        wanted = np.zeros(self._scopes.size, np.bool_)
        wanted[scopes] = True
        used = len(self._ids)
        return np.flatnonzero(wanted[self._scope.values[:used]] & (self._threshold.values[:used] < np.inf))

    def _in_scope(self, numbers: Numbers, asset: Asset) -> Numbers:
        scopes, places = np.unique(self._scope.values[numbers], return_inverse=True)
        return numbers[self._scopes.holds(scopes, asset)[places]]

    def _dense_spaces(self, asset: Asset) -> list[tuple[Space, int]]:
        numbers = self._space_numbers
        return [(space, numbers[space]) for space, each in asset.dense.items() if len(each) and space in numbers]

    def _scan(self, assets: Sequence[Asset | None], min_score: float) -> Generator[None, None, list[list[Numbers]]]:
        """For each asset, the stored queries that the first pass leaves; for None, nothing."""
        found: list[list[Numbers]] = [[] for _ in assets]
        vectors: dict[int, tuple[list[Dense], list[int]]] = {}
        for position, asset in enumerate(assets):
            for space, number in self._dense_spaces(asset) if asset else ():
                given, whose = vectors.setdefault(number, ([], []))
                given.extend(asset.dense[space])  # type: ignore[union-attr]
                whose.extend([position] * (len(given) - len(whose)))
        for number, (given, whose) in vectors.items():
            dense, positions = self._spaces[number], np.array(whose)
            assert isinstance(dense, DenseSpace)
            for which, rows in dense.coded.scan(np.stack(given), min_score, dense.rows.used):
                owners, of_assets = dense.rows.owners.values[rows], positions[which]
                for position in np.unique(of_assets):
                    found[position].append(owners[of_assets == position])
                yield
        return found

    def _words(self, asset: Asset) -> Words:
        """By keyword space: the rows that share a word with the asset, ascending, and their scores."""
        words: Words = {}
        for space, given in asset.sparse.items():
            keyword_space = self._spaces[self._space_numbers[space]] if space in self._space_numbers else None
            if isinstance(keyword_space, KeywordSpace):
                words[self._space_numbers[space]] = keyword_space.postings.score(given)
        return words

    def _candidates(self, found: list[Numbers], words: Words, min_score: float) -> Numbers:
        """Stored queries of which one query at least may reach the threshold: else the mean can't, either."""
        for number, (rows, scores) in words.items():
            owners = self._spaces[number].rows.owners.values[rows]
            found = [*found, owners[scores >= self._threshold.values[owners] - 10**-SCORE_DECIMALS]]
        if min_score <= 0 and self._always:
            found = [*found, np.fromiter(self._always, np.int64, len(self._always))]
        return np.unique(np.concatenate(found)).astype(np.int64) if found else _NOBODY

    def _score(
        self,
        probe: Probe,
        numbers: Numbers,
        words: Words,
        candidates: int,
    ) -> Matched:
        """Score stored queries exactly, and keep those that reach their thresholds."""
        stats = (len(self._by_id), candidates, len(numbers), candidates - len(numbers))
        if not len(numbers):
            return Matched((), Stats(*stats, matched=0))
        counts = self._count.values[numbers].astype(np.int64)
        starts = np.cumsum(counts) - counts
        places = np.arange(counts.sum()) + np.repeat(self._first.values[numbers] - starts, counts)
        scores = np.round(self._query_scores(probe.asset, places, words), SCORE_DECIMALS)
        means = np.round(np.add.reduceat(scores, starts) / counts, SCORE_DECIMALS)
        kept = np.flatnonzero(means >= np.maximum(self._threshold.values[numbers], probe.min_score))
        matched = len(kept)
        if matched > probe.limit:
            # Everything as good as the last one that is wanted; ids decide among equals.
            kept = kept[means[kept] >= np.partition(means[kept], -probe.limit)[-probe.limit]]
        ids = {int(each): self._ids[numbers[each]] for each in kept}
        best = sorted(ids, key=lambda each: (-means[each], ids[each]))[: probe.limit]
        found = (
            Found(ids[each], float(means[each]), tuple(scores[starts[each] : starts[each] + counts[each]].tolist()))
            for each in best
        )
        return Matched(tuple(found), Stats(*stats, matched=matched))

    def _query_scores(self, asset: Asset, places: Numbers, words: Words) -> NDArray[np.float64]:
        """The score of each query at these places, float64[N]."""
        scores, spaces, rows = np.zeros(len(places)), self._space.values[places], self._row.values[places]
        for space, number in self._dense_spaces(asset):
            here, dense = np.flatnonzero(spaces == number), self._spaces[number]
            assert isinstance(dense, DenseSpace)
            products = dense.exact.products(rows[here], np.stack(asset.dense[space]).astype(np.float64))
            scores[here] = np.clip(products, 0.0, 1.0)
        for number, (found, found_scores) in words.items():
            here = np.flatnonzero(spaces == number)
            if len(found):
                nearest = np.minimum(np.searchsorted(found, rows[here]), len(found) - 1)
                scores[here] = np.where(found[nearest] == rows[here], found_scores[nearest], 0.0)
        conditions = self._condition.values[places]
        asked = np.flatnonzero((conditions >= 0) & (scores > 0))
        if len(asked):
            distinct, back = np.unique(conditions[asked].astype(np.int64), return_inverse=True)
            scores[asked] *= self._conditions.truths(distinct, asset.document)[back]
        return scores
