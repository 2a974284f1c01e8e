"""Scores of answers that are sets or choices: which actions of a timeline, which letters of a question.

An answer that cannot be read is `None`: it scores 0 whatever the truth is, so that it never passes for a rightly empty
one. Count such answers apart.

Notation: `E` examples.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SetScores:
    """Of each example, float64 `[E]`: see `compute_set_scores`."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def harmonic_mean(precision: float, recall: float) -> float:
    """F1 of a precision and a recall, `2 p r / (p + r)`; 0 where both are (van Rijsbergen 1979, chapter 7)."""
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def compute_set_scores(
    predicted: Sequence[Collection[Hashable] | None], truths: Sequence[Collection[Hashable]]
) -> SetScores:
    """Precision, recall and F1 of predicted against true sets; elements that repeat count once.

    `precision = |both| / |predicted|`, `recall = |both| / |truth|`, F1 their harmonic mean, each 0 where it divides by
    0 (action selection in the OneReason benchmark). An empty answer to an empty truth is right: all three are 1.
    """
    _check_lengths(predicted, truths)
    scores = np.zeros((3, len(truths)))
    for e, (answer, truth) in enumerate(zip(predicted, truths, strict=True)):
        if answer is None:
            continue
        found, wanted = set(answer), set(truth)
        if not found and not wanted:
            scores[:, e] = 1
            continue
        both = len(found & wanted)
        precision, recall = both / max(len(found), 1), both / max(len(wanted), 1)
        scores[:, e] = precision, recall, harmonic_mean(precision, recall)
    return SetScores(*scores)


def normalise_choice(letters: str) -> str:
    """Letters of chosen options -> each once, ascending, upper-case: `"c, A"` -> `"AC"`."""
    return "".join(sorted({c for c in letters.upper() if c.isalpha()}))


def choice_accuracy(predicted: Sequence[str | None], truths: Sequence[str]) -> np.ndarray:
    """1 where the chosen letters are exactly the true ones, else 0, float64 `[E]`.

    One letter, or several for a multi-select question: then all of them and no other (OneReason benchmark, general
    multiple choice).

    Raises:
        ValueError: a truth without a letter.
    """
    _check_lengths(predicted, truths)
    wanted = [normalise_choice(truth) for truth in truths]
    if "" in wanted:
        raise ValueError(f"truth {truths[wanted.index('')]!r} names no option; give its letter or letters, e.g. 'AC'.")
    pairs = zip(predicted, wanted, strict=True)
    return np.array([answer is not None and normalise_choice(answer) == truth for answer, truth in pairs], np.float64)


def _check_lengths(predicted: Sequence, truths: Sequence) -> None:
    if len(predicted) != len(truths):
        raise ValueError(f"predicted has {len(predicted)} answers for {len(truths)} truths; give one a truth.")
