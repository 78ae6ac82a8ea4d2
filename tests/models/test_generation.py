"""How tokens are chosen, on decoders written down as tables."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

END = 0


@pytest.fixture
def generation(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, which otherwise runs inside Triton alone."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "models" / "lib")
    return importlib.import_module("lensmesh_models.generation")


class Table:
    """A decoder whose next token depends on the last one alone; remembers whom it was asked to go on from."""

    def __init__(self, probabilities: dict[int, list[float]]) -> None:
        with np.errstate(divide="ignore"):
            rows = [probabilities.get(token, probabilities[END]) for token in range(max(probabilities) + 1)]
            self.logits = np.maximum(np.log(np.array(rows, np.float32)), -1e4)
        self.parents: list[list[int]] = []

    @property
    def first(self) -> NDArray[np.float32]:
        """What comes first stands under the stop token."""
        return self.logits[[END]]

    def __call__(self, tokens: NDArray[np.int64], parents: NDArray[np.int64]) -> NDArray[np.float32]:
        self.parents.append(parents.tolist())
        return self.logits[tokens]


# 1 is likelier first, but then 3, 4 and the end are equally likely; 2 is surely followed by the end.
TRAP = {
    END: [0, 0.6, 0.4, 0, 0],
    1: [0.34, 0, 0, 0.33, 0.33],
    2: [1, 0, 0, 0, 0],
    3: [1, 0, 0, 0, 0],
    4: [1, 0, 0, 0, 0],
}
# 1 for ever.
LOOP = {END: [0, 1, 0], 1: [0.01, 0.9, 0.09], 2: [0.9, 0.05, 0.05]}


def test_greedy_takes_the_likeliest_each_time(generation: Any) -> None:
    """One beam never looks further than the next token."""
    found = generation.generate(Table(TRAP).first, Table(TRAP), generation.Rules(END, 1, 10, 3))

    assert ((1,), True) == (found.tokens, found.complete)
    assert np.isclose(np.log(0.6 * 0.34), found.log_probability)


def test_beams_look_further(generation: Any) -> None:
    """Two beams find the likelier whole."""
    found = generation.generate(Table(TRAP).first, Table(TRAP), generation.Rules(END, 2, 10, 3))

    assert (2,) == found.tokens
    assert np.isclose(np.log(0.4), found.log_probability)


def test_each_hypothesis_goes_on_from_its_own(generation: Any) -> None:
    """The decoder hears which row of its last call every hypothesis continues."""
    table = Table({END: [0, 0.6, 0.4], 1: [0, 0.5, 0.5], 2: [0, 0.9, 0.1]})

    generation.generate(table.first, table, generation.Rules(END, 2, 3, 9))

    # First both from the one beginning; then 2 1 (.36) from row 1 before 1 1 (.30) from row 0.
    assert [[0, 0], [1, 0]] == table.parents


def test_the_limit_on_tokens_is_kept(generation: Any) -> None:
    """Without a stop token in sight the text ends at the limit and says so."""
    found = generation.generate(Table(LOOP).first, Table(LOOP), generation.Rules(END, 1, 5, 99))

    assert ((1, 1, 1, 1, 1), False) == (found.tokens, found.complete)


def test_a_run_is_not_repeated(generation: Any) -> None:
    """After as many equal tokens as a run has, another has to come."""
    found = generation.generate(Table(LOOP).first, Table(LOOP), generation.Rules(END, 1, 10, 3))

    assert ((1, 1, 1, 2), True) == (found.tokens, found.complete)


def test_an_end_at_once_is_an_empty_text(generation: Any) -> None:
    """A decoder that stops before the first token has said nothing, completely."""
    table = Table({END: [1, 0], 1: [1, 0]})

    found = generation.generate(table.first, table, generation.Rules(END, 1, 5, 3))

    assert ((), True) == (found.tokens, found.complete)
    assert np.isclose(0, found.log_probability)


def test_numbers_that_are_none_are_an_error(generation: Any) -> None:
    """A broken decoder gives no text."""
    table = Table(TRAP)

    with pytest.raises(ValueError, match="no number"):
        generation.generate(np.full((1, 5), np.nan, np.float32), table, generation.Rules(END, 1, 5, 3))


@pytest.mark.parametrize("rules", [(0, 5, 3), (1, 0, 3), (1, 5, 1)])
def test_rules_that_cannot_be_kept_are_refused(generation: Any, rules: tuple[int, int, int]) -> None:
    """At least one beam, one token, and runs of two."""
    with pytest.raises(ValueError, match="at least"):
        generation.Rules(END, *rules)
