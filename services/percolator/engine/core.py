"""Exact matching of assets against all stored queries of a namespace.

A first pass rules out what can't match; what it leaves is scored in double precision, rounded, and compared. Nothing
that matches is ever ruled out, so that the result is that of scoring every stored query.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence

import numpy as np
from numpy.typing import NDArray

from services.percolator.engine.catalogue import Catalogue, Numbers
from services.percolator.engine.spaces import DenseSpace, KeywordSpace
from services.percolator.engine.types import (
    SCORE_DECIMALS,
    Asset,
    Dense,
    Found,
    Matched,
    Probe,
    Space,
    Stats,
)

Words = dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]]

# Nanoseconds that an asset costs, as measured with 512 dimensions; only what is done first depends on them. A row in
# the first pass, alone and in a large batch, and what a pass costs whatever its rows; a stored query that is scored
# exactly, or whose scope is looked up; a condition that is evaluated by itself.
_SCAN_ALONE_NS, _SCAN_BATCH_NS, _SCAN_FIXED_NS = 27.0, 8.0, 100_000.0
_EXACT_NS, _LOOK_UP_NS, _CONDITION_NS = 2_000.0, 2.0, 2_000.0
# Filters come first where finding out what they leave takes at most this share of a first pass.
_FILTER_SHARE = 0.1
_NOBODY = np.zeros(0, np.int64)


class Engine(Catalogue):
    """The stored queries of one namespace, and matching against them. It is not made for several threads at once."""

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
        """Match in steps of a few milliseconds, between which stored queries may be put and removed.

        Each asset is matched against the stored queries as they are at one moment between the call and its answer:
        those that have changed since are scored without a first pass, which may have seen what they were.

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
        allowed = None
        if partitions is not None:
            allowed = np.zeros(256, np.bool_)
            allowed[list(partitions)] = True
        matched = []
        with self._noting_changes() as changed:
            selected = [self._selected(probe.asset, len(probes)) for probe in probes]
            yield
            scanned = yield from self._scan(
                [probe.asset if chosen is None else None for probe, chosen in zip(probes, selected, strict=True)],
                min((probe.min_score for probe in probes), default=0.0),
            )
            for probe, chosen, found in zip(probes, selected, scanned, strict=True):
                words = self._words(probe.asset)
                candidates = self._candidates(found, words, probe.min_score) if chosen is None else chosen
                if changed:
                    candidates = np.union1d(candidates, np.fromiter(changed, np.int64, len(changed)))
                    candidates = candidates[self.threshold.values[candidates] < np.inf]
                numbers = candidates
                if chosen is None or changed:
                    numbers = self._in_scope(candidates, probe.asset)
                numbers = numbers[self.expires_ns.values[numbers] > now_ns]
                if allowed is not None:
                    numbers = numbers[allowed[self.partition.values[numbers]]]
                matched.append(self._score(probe, numbers, words, len(candidates)))
                yield
        return matched

    def _selected(self, asset: Asset, batch: int) -> Numbers | None:
        """The stored queries in the asset's scope, where scoring them all is cheaper than a first pass; else None."""
        scopes = self.scopes.of_collection(asset.collection_id)
        stored = self.scopes.counts(scopes)
        if not stored:
            return _NOBODY
        scan_ns = self._scan_ns(asset, batch)
        are_few = len(scopes) * _CONDITION_NS <= _FILTER_SHARE * scan_ns
        if are_few:
            scopes = scopes[self.scopes.holds(scopes, asset)]
            stored = self.scopes.counts(scopes)
        if stored * _EXACT_NS + len(self.ids) * _LOOK_UP_NS > scan_ns:
            return None
        numbers = self._of_scopes(scopes)
        return numbers if are_few else self._in_scope(numbers, asset)

    def _scan_ns(self, asset: Asset, batch: int) -> float:
        row_ns, total = _SCAN_BATCH_NS + (_SCAN_ALONE_NS - _SCAN_BATCH_NS) / batch, 0.0
        for space, number in self._dense_spaces(asset):
            total += (_SCAN_FIXED_NS + self.spaces[number].rows.used * row_ns) * len(asset.dense[space])
        return total

    def _of_scopes(self, scopes: Numbers) -> Numbers:
        wanted = np.zeros(self.scopes.size, np.bool_)
        wanted[scopes] = True
        used = len(self.ids)
        return np.flatnonzero(wanted[self.scope.values[:used]] & (self.threshold.values[:used] < np.inf))

    def _in_scope(self, numbers: Numbers, asset: Asset) -> Numbers:
        scopes, places = np.unique(self.scope.values[numbers], return_inverse=True)
        return numbers[self.scopes.holds(scopes, asset)[places]]

    def _dense_spaces(self, asset: Asset) -> list[tuple[Space, int]]:
        numbers = self.space_numbers
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
            dense, positions = self.spaces[number], np.array(whose)
            assert isinstance(dense, DenseSpace)
            pairs: list[tuple[Numbers, Numbers]] = []
            for which, rows in dense.coded.scan(np.stack(given), min_score, dense.rows.used):
                if len(rows):
                    owners = dense.rows.owners.values[rows]
                    # Rows that were given back since the call are nobody's.
                    owned = owners >= 0
                    pairs.append((positions[which[owned]], owners[owned]))
                yield
            if pairs:
                of_assets, owners = (np.concatenate(each) for each in zip(*pairs, strict=True))
                order = np.argsort(of_assets, kind="stable")
                ends = np.flatnonzero(np.diff(of_assets[order])) + 1
                for part in np.split(order, ends):
                    found[of_assets[part[0]]].append(owners[part])
        return found

    def _words(self, asset: Asset) -> Words:
        """By keyword space: the rows that share a word with the asset, ascending, and their scores."""
        words: Words = {}
        for space, given in asset.sparse.items():
            keyword_space = self.spaces[self.space_numbers[space]] if space in self.space_numbers else None
            if isinstance(keyword_space, KeywordSpace):
                words[self.space_numbers[space]] = keyword_space.postings.score(given)
        return words

    def _candidates(self, found: list[Numbers], words: Words, min_score: float) -> Numbers:
        """Stored queries of which one query at least may reach the threshold: else the mean can't, either."""
        for number, (rows, scores) in words.items():
            owners = self.spaces[number].rows.owners.values[rows]
            found = [*found, owners[scores >= self.threshold.values[owners] - 10**-SCORE_DECIMALS]]
        if min_score <= 0 and self.always:
            found = [*found, np.fromiter(self.always, np.int64, len(self.always))]
        return np.unique(np.concatenate(found)).astype(np.int64) if found else _NOBODY

    def _score(
        self,
        probe: Probe,
        numbers: Numbers,
        words: Words,
        candidates: int,
    ) -> Matched:
        """Score stored queries exactly, and keep those that reach their thresholds."""
        stats = (len(self), candidates, len(numbers), candidates - len(numbers))
        if not len(numbers):
            return Matched((), Stats(*stats, matched=0))
        counts = self.count.values[numbers].astype(np.int64)
        starts = np.cumsum(counts) - counts
        places = np.arange(counts.sum()) + np.repeat(self.first.values[numbers] - starts, counts)
        scores = np.round(self._query_scores(probe.asset, places, words), SCORE_DECIMALS)
        means = np.round(np.add.reduceat(scores, starts) / counts, SCORE_DECIMALS)
        kept = np.flatnonzero(means >= np.maximum(self.threshold.values[numbers], probe.min_score))
        matched = len(kept)
        if matched > probe.limit:
            # Everything as good as the last one that is wanted; ids decide among equals.
            kept = kept[means[kept] >= np.partition(means[kept], -probe.limit)[-probe.limit]]
        ids = {int(each): self.ids[numbers[each]] for each in kept}
        best = sorted(ids, key=lambda each: (-means[each], ids[each]))[: probe.limit]
        parts = ((each, slice(starts[each], starts[each] + counts[each])) for each in best)
        found = (
            Found(
                ids[each],
                float(means[each]),
                tuple(scores[part].tolist()),
                tuple(self.indexes[number] for number in self.space.values[places[part]]),
                self.payload(int(numbers[each])),
            )
            for each, part in parts
        )
        return Matched(tuple(found), Stats(*stats, matched=matched))

    def _query_scores(self, asset: Asset, places: Numbers, words: Words) -> NDArray[np.float64]:
        """The score of each query at these places, float64[N]."""
        scores, spaces, rows = np.zeros(len(places)), self.space.values[places], self.row.values[places]
        for space, number in self._dense_spaces(asset):
            here, dense = np.flatnonzero(spaces == number), self.spaces[number]
            assert isinstance(dense, DenseSpace)
            products = dense.exact.products(rows[here], np.stack(asset.dense[space]).astype(np.float64))
            scores[here] = np.clip(products, 0.0, 1.0)
        for number, (found, found_scores) in words.items():
            here = np.flatnonzero(spaces == number)
            if len(found):
                nearest = np.minimum(np.searchsorted(found, rows[here]), len(found) - 1)
                scores[here] = np.where(found[nearest] == rows[here], found_scores[nearest], 0.0)
        conditions = self.condition.values[places]
        asked = np.flatnonzero((conditions >= 0) & (scores > 0))
        if len(asked):
            distinct, back = np.unique(conditions[asked].astype(np.int64), return_inverse=True)
            scores[asked] *= self.conditions.truths(distinct, asset.document)[back]
        return scores
