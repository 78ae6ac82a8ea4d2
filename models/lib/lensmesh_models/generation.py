"""Chooses the tokens of a text, one after the other, by what a decoder believes: greedily or with several beams.

Beam search with hypotheses compared by their mean log-probability, as Wu et al. 2016 (section 7, with the exponent 1).
A repeated run of tokens is forbidden as in Paulus et al. 2017. How a belief comes about is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Given the last token of each hypothesis, int64 [N], and which row of the call before each goes on from, int64 [N],
# returns what may come next, float32 [N,V], unnormalised.
Decode = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]


@dataclass(frozen=True)
class Rules:
    """``beams`` of 1 is greedy. ``repeat_tokens``: no run of so many tokens comes twice. ``end``: the stop token."""

    end: int
    beams: int
    tokens_max: int
    repeat_tokens: int

    def __post_init__(self) -> None:
        if self.beams < 1 or self.tokens_max < 1 or self.repeat_tokens < 2:
            raise ValueError("beams and tokens_max must be at least 1, repeat_tokens at least 2")


@dataclass(frozen=True)
class Hypothesis:
    """Tokens without the stop token and the natural logarithm of their probability, the stop token's included.

    ``complete`` says that the stop token came; else the limit on tokens cut the text.
    """

    tokens: tuple[int, ...] = ()
    log_probability: float = 0.0
    complete: bool = False

    @property
    def score(self) -> float:
        """Mean log-probability a token, so that long texts are not at a disadvantage."""
        return self.log_probability / max(1, len(self.tokens) + self.complete)

    def plus(self, token: int, log_probability: float) -> Hypothesis:
        """With one token more."""
        return Hypothesis((*self.tokens, token), self.log_probability + log_probability)


def generate(first: NDArray[np.float32], decode: Decode, rules: Rules) -> Hypothesis:
    """The best text found. ``first`` float32 [1,V] is what may come first.

    Raises ValueError where the decoder's numbers are none.
    """
    running, logits = [Hypothesis()], first
    ended: list[Hypothesis] = []
    for length in range(1, rules.tokens_max + 1):
        ranked = _ranked(running, logits, rules)
        ended += [_ended(running[row], value) for value, row, token in ranked[: rules.beams] if token == rules.end]
        going = [choice for choice in ranked if choice[2] != rules.end][: rules.beams]
        parents = [row for _, row, _ in going]
        running = [running[row].plus(token, value) for value, row, token in going]
        if not running or _settled(ended, running, rules.beams):
            return max(ended, key=lambda each: each.score)
        if length == rules.tokens_max:
            break
        last = np.array([each.tokens[-1] for each in running], np.int64)
        logits = decode(last, np.array(parents, np.int64))
    return max([*ended, *running], key=lambda each: each.score)


def _settled(ended: list[Hypothesis], running: Sequence[Hypothesis], beams: int) -> bool:
    """Whether as many texts have ended as there are beams, none of them worse than the best that goes on.

    The greedy choice does not look back: where it is the stop token, that is it.
    """
    ended.sort(key=lambda each: -each.score)
    del ended[beams:]
    best = max(each.score for each in running)
    return len(ended) == beams and (beams == 1 or ended[-1].score >= best)


def _ended(hypothesis: Hypothesis, log_probability: float) -> Hypothesis:
    return Hypothesis(hypothesis.tokens, hypothesis.log_probability + log_probability, complete=True)


def _ranked(running: Sequence[Hypothesis], logits: NDArray[Any], rules: Rules) -> list[tuple[float, int, int]]:
    """The likeliest next tokens over all hypotheses: log-probability of the token, hypothesis, token; best first."""
    beliefs = log_softmax(logits)
    for row, hypothesis in enumerate(running):
        beliefs[row, _forbidden(hypothesis.tokens, rules.repeat_tokens)] = -np.inf
    totals = beliefs + np.array([[each.log_probability] for each in running])
    # Of each hypothesis one choice may be the stop token, so twice as many leave enough to go on with.
    count = min(2 * rules.beams, totals.size)
    best = np.argsort(-totals, axis=None, kind="stable")[:count]
    rows, tokens = np.unravel_index(best, totals.shape)
    return [
        (float(beliefs[row, token]), int(row), int(token))
        for row, token in zip(rows, tokens, strict=True)
        if np.isfinite(totals[row, token])
    ]


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Natural logarithms of probabilities [N,V]. Raises ValueError where there is no largest number."""
    largest = logits.max(axis=1, keepdims=True).astype(np.float64)
    if not np.isfinite(largest).all():
        raise ValueError("the decoder's output is no number")
    shifted = logits - largest
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _forbidden(tokens: Sequence[int], run: int) -> list[int]:
    """What would repeat a run of ``run`` tokens."""
    if len(tokens) < run:
        return []
    last = tuple(tokens[1 - run :])
    return [tokens[at + run - 1] for at in range(len(tokens) - run + 1) if tuple(tokens[at : at + run - 1]) == last]
