"""The distinct conditions of stored queries, evaluated together: those of one shape in a few array operations.

Two conditions have one shape when they differ in the values that they compare with and in nothing else, as the filters
of one application mostly do. What a condition means says `services.mesh.filters.matches`, which evaluates single ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.mesh.filters import AllOf, Condition, Leaf, NoneOf, Operator, matches, value_at, words

Truths = NDArray[np.bool_]
Rows = NDArray[np.int64]
Document = Mapping[str, object]
# Fewer conditions of a shape are as cheap one by one.
_TOGETHER_MIN = 16
_FIRST = 16
# Rows that a shape may have taken in since it was made, beyond four times those that it has, before it is made anew:
# columns keep the values of rows that are gone.
_STALE_ROWS_MAX = 1000
# Integers beyond are not exact as float64; a document that has one is compared one condition at a time.
_EXACT_MAX = 2**53
# A bound compared with the value that a document has.
_COMPARE: Mapping[Operator, Callable[[Any, Any], Truths]] = {
    Operator.GT: np.less,
    Operator.GTE: np.less_equal,
    Operator.LT: np.greater,
    Operator.LTE: np.greater_equal,
}
_EQUAL = frozenset({Operator.EQ, Operator.NE, Operator.IN, Operator.NIN})


class _Unknown(Exception):
    """A column can't tell for this document; the conditions are asked one by one."""


class _Column(Protocol):
    """The values that one leaf of a shape compares with, a row a condition."""

    def put(self, row: int, leaf: Leaf) -> None: ...
    def truths(self, document: Document, rows: Rows) -> Truths: ...


_Array = TypeVar("_Array", bound=np.ndarray[Any, Any])


def _room(values: _Array, row: int) -> _Array:
    """The array, with room for a row."""
    if row < len(values):
        return values
    wider = np.zeros((max(row + 1, 2 * len(values)), *values.shape[1:]), values.dtype)
    wider[: len(values)] = values
    return wider  # type: ignore[return-value]


def _elements(found: object) -> Sequence[object]:
    return found if isinstance(found, list | tuple) else (found,)


class _Codes:
    """Numbers for texts, so that arrays can hold them; a text keeps its number. 0 is no text."""

    def __init__(self) -> None:
        self._codes: dict[object, int] = {}

    def made(self, value: object) -> int:
        return self._codes.setdefault(value, len(self._codes) + 1)

    def known(self, values: Iterator[object]) -> NDArray[np.int64]:
        return np.array([self._codes[each] for each in values if each in self._codes], np.int64)


def _identity(value: object, case_sensitive: bool) -> object:
    """What two equal values have in common, and no other: truth values are no numbers, numbers no texts."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, str) and not case_sensitive:
        return value.casefold()
    return value


class _EqualColumn:
    """eq, in, and their contraries ne and nin."""

    def __init__(self, leaf: Leaf) -> None:
        self._path, self._case_sensitive = leaf.path, leaf.case_sensitive
        self._negated = leaf.operator in (Operator.NE, Operator.NIN)
        self._codes = _Codes()
        self._wanted: NDArray[np.int64] = np.zeros((_FIRST, len(_values(leaf))), np.int64)

    def put(self, row: int, leaf: Leaf) -> None:
        self._wanted = _room(self._wanted, row)
        self._wanted[row] = [self._codes.made(_identity(each, self._case_sensitive)) for each in _values(leaf)]

    def truths(self, document: Document, rows: Rows) -> Truths:
        found = _elements(value_at(self._path, document))
        known = self._codes.known(
            _identity(each, self._case_sensitive) for each in found if isinstance(each, str | int | float)
        )
        equal, wanted = np.zeros(len(rows), np.bool_), self._wanted[rows]
        for code in known:
            equal |= (wanted == code).any(axis=1)
        return ~equal if self._negated else equal


class _WordsColumn:
    """text: all of the words are among the value's."""

    def __init__(self, leaf: Leaf) -> None:
        self._path = leaf.path
        self._codes = _Codes()
        self._wanted: NDArray[np.int64] = np.zeros((_FIRST, len(words(str(leaf.value)))), np.int64)

    def put(self, row: int, leaf: Leaf) -> None:
        self._wanted = _room(self._wanted, row)
        self._wanted[row] = [self._codes.made(each) for each in words(str(leaf.value))]

    def truths(self, document: Document, rows: Rows) -> Truths:
        held, wanted = np.zeros(len(rows), np.bool_), self._wanted[rows]
        for each in _elements(value_at(self._path, document)):
            if isinstance(each, str):
                held |= np.isin(wanted, self._codes.known(iter(words(each)))).all(axis=1)
        return held


class _OrderColumn:
    """gt, gte, lt and lte of numbers."""

    def __init__(self, leaf: Leaf) -> None:
        self._path = leaf.path
        self._compare = _COMPARE[leaf.operator]
        self._bounds: NDArray[np.float64] = np.zeros(_FIRST)

    def put(self, row: int, leaf: Leaf) -> None:
        self._bounds = _room(self._bounds, row)
        self._bounds[row] = leaf.value

    def truths(self, document: Document, rows: Rows) -> Truths:
        found = value_at(self._path, document)
        if isinstance(found, bool) or not isinstance(found, int | float) or found != found:
            return np.zeros(len(rows), np.bool_)
        if abs(found) > _EXACT_MAX:
            raise _Unknown
        return self._compare(self._bounds[rows], float(found))


class _TextOrderColumn:
    """gt, gte, lt and lte of texts, by code point, as UTF-8 has them in order."""

    def __init__(self, leaf: Leaf) -> None:
        self._path, self._case_sensitive = leaf.path, leaf.case_sensitive
        self._compare = _COMPARE[leaf.operator]
        self._bounds: np.ndarray[Any, Any] = np.zeros(_FIRST, np.dtypes.StringDType())

    def put(self, row: int, leaf: Leaf) -> None:
        self._bounds = _room(self._bounds, row)
        self._bounds[row] = leaf.value if self._case_sensitive else str(leaf.value).casefold()

    def truths(self, document: Document, rows: Rows) -> Truths:
        found = value_at(self._path, document)
        if not isinstance(found, str):
            return np.zeros(len(rows), np.bool_)
        return self._compare(self._bounds[rows], found if self._case_sensitive else found.casefold())


class _SameColumn:
    """A leaf whose value belongs to the shape: exists, is_null and regex."""

    def __init__(self, leaf: Leaf) -> None:
        self._leaf = leaf

    def put(self, row: int, leaf: Leaf) -> None:
        """Nothing differs from row to row."""

    def truths(self, document: Document, rows: Rows) -> Truths:
        return np.full(len(rows), matches(self._leaf, document))


def _values(leaf: Leaf) -> tuple[object, ...]:
    return leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)


def _kind(leaf: Leaf) -> tuple[object, Callable[[Leaf], _Column]]:
    """What must be the same in two leaves to share a column, beside path, operator and case; and that column."""
    if leaf.operator in _EQUAL:
        return len(_values(leaf)), _EqualColumn
    if leaf.operator is Operator.TEXT:
        return len(words(str(leaf.value))), _WordsColumn
    if leaf.operator in _COMPARE:
        return ("text", _TextOrderColumn) if isinstance(leaf.value, str) else ("number", _OrderColumn)
    return leaf.value, _SameColumn


def _shape(condition: Condition) -> object:
    if isinstance(condition, Leaf):
        return (condition.path, condition.operator, condition.case_sensitive, _kind(condition)[0])
    return (type(condition), *(_shape(each) for each in condition.conditions))


def _leaves(condition: Condition) -> Iterator[Leaf]:
    if isinstance(condition, Leaf):
        yield condition
        return
    for each in condition.conditions:
        yield from _leaves(each)


def _typed(condition: Condition) -> object:
    """What tells two conditions apart: Python takes 1 and True for equal, filters don't."""
    if isinstance(condition, Leaf):
        return (condition, tuple(isinstance(each, bool) for each in _values(condition)))
    return (type(condition), *(_typed(each) for each in condition.conditions))


class _Shape:
    """All conditions of one shape."""

    def __init__(self, condition: Condition) -> None:
        self._example = condition
        self._columns = [_kind(leaf)[1](leaf) for leaf in _leaves(condition)]
        self._free: list[int] = []
        self.used = 0
        # Conditions that it was ever given.
        self.given = 0

    @property
    def live(self) -> int:
        """Conditions that it has."""
        return self.used - len(self._free)

    def put(self, condition: Condition) -> int:
        """Add a condition; returns its row."""
        row = self._free.pop() if self._free else self.used
        self.used = max(self.used, row + 1)
        self.given += 1
        for column, leaf in zip(self._columns, _leaves(condition), strict=True):
            column.put(row, leaf)
        return row

    def remove(self, row: int) -> None:
        """Give a row back."""
        self._free.append(row)

    def truths(self, document: Document, rows: Rows) -> Truths:
        """Which of these rows, int64[N], hold; bool[N]. Raises _Unknown."""
        columns = iter(self._columns)

        def evaluate(condition: Condition) -> Truths:
            if isinstance(condition, Leaf):
                return next(columns).truths(document, rows)
            inner = [evaluate(each) for each in condition.conditions]
            if isinstance(condition, AllOf):
                return np.logical_and.reduce(inner) if inner else np.ones(len(rows), np.bool_)
            any_of = np.logical_or.reduce(inner) if inner else np.zeros(len(rows), np.bool_)
            return ~any_of if isinstance(condition, NoneOf) else any_of

        return evaluate(self._example)


class Conditions:
    """The distinct conditions, each under a number of its own for as long as somebody holds it."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}
        self._conditions: list[Condition] = []
        self._holders: list[int] = []
        self._free: list[int] = []
        self._shapes: dict[int, _Shape] = {}
        self._shape_numbers: dict[object, int] = {}
        self._next_shape = 0
        # The shape of each condition (-1: the number is free), and its row there.
        self._shape_of: NDArray[np.int64] = np.zeros(_FIRST, np.int64)
        self._row_of: NDArray[np.int64] = np.zeros(_FIRST, np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def hold(self, condition: Condition) -> int:
        """The number of a condition, which is kept until it is released as often as it is held."""
        identity = _typed(condition)
        number = self._numbers.get(identity)
        if number is None:
            number = self._free.pop() if self._free else len(self._conditions)
            if number == len(self._conditions):
                self._conditions.append(condition)
                self._holders.append(0)
                self._shape_of, self._row_of = _room(self._shape_of, number), _room(self._row_of, number)
                self._shape_of[number] = -1
            self._numbers[identity], self._conditions[number] = number, condition
            self._put(number, condition)
        self._holders[number] += 1
        return number

    def release(self, number: int) -> None:
        """Let go of a condition."""
        self._holders[number] -= 1
        if self._holders[number]:
            return
        condition, shape_number = self._conditions[number], int(self._shape_of[number])
        del self._numbers[_typed(condition)]
        shape = self._shapes[shape_number]
        shape.remove(int(self._row_of[number]))
        if not shape.live:
            del self._shapes[shape_number], self._shape_numbers[_shape(condition)]
        self._shape_of[number] = -1
        self._free.append(number)

    def truths(self, numbers: NDArray[np.int64], document: Document) -> Truths:
        """Whether each of these conditions, int64[N] without repetition, holds for a document; bool[N]."""
        held = np.zeros(len(numbers), np.bool_)
        order = np.argsort(self._shape_of[numbers], kind="stable")
        shapes = self._shape_of[numbers][order]
        for here in np.split(order, np.flatnonzero(np.diff(shapes)) + 1):
            if len(here):
                shape = self._shapes[int(self._shape_of[numbers[here[0]]])]
                held[here] = self._shape_truths(shape, numbers[here], document)
        return held

    def _put(self, number: int, condition: Condition) -> None:
        key = _shape(condition)
        shape_number = self._shape_numbers.get(key)
        if shape_number is None:
            shape_number, self._next_shape = self._next_shape, self._next_shape + 1
            self._shape_numbers[key], self._shapes[shape_number] = shape_number, _Shape(condition)
        shape = self._shapes[shape_number]
        if shape.given > 4 * shape.live + _STALE_ROWS_MAX:
            shape = self._shapes[shape_number] = _Shape(condition)
            for each in np.flatnonzero(self._shape_of[: len(self._conditions)] == shape_number):
                self._row_of[each] = shape.put(self._conditions[each])
        self._shape_of[number], self._row_of[number] = shape_number, shape.put(condition)

    def _shape_truths(self, shape: _Shape, numbers: NDArray[np.int64], document: Document) -> Truths:
        if len(numbers) >= _TOGETHER_MIN:
            try:
                return shape.truths(document, self._row_of[numbers])
            except _Unknown:
                pass
        return np.array([matches(self._conditions[number], document) for number in numbers], np.bool_)
