"""The Action-Logic score of a generated chain of events against the true one (OneReason benchmark, topic generation).

A chain tells how one interest evolves: events with a date, the action taken, and the logic that leads to it. Events are
aligned by their actions; the logic is compared on the aligned pairs.

Notation: `n` true events, `m` generated events.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onereason.data.json_answers import Event, parse_logic_chain
from onereason.evaluation.scores.set_scores import harmonic_mean
from onereason.evaluation.scores.text_scores import text_similarity

__all__ = [
    "ActionLogicScore",
    "Entail",
    "Event",
    "action_similarity",
    "align_events",
    "parse_logic_chain",
    "score_chain",
    "split_sub_actions",
]

Entail = Callable[[str, str], float]
"""`(premise, hypothesis)` -> probability in 0 .. 1 that the premise entails the hypothesis."""

_COLON, _SEMICOLON, _ENUMERATION = "\uff1a", "\uff1b", "\u3001"  # full-width, as Chinese text has them
_SUB_ACTION_ENDS = re.compile(f"[{_SEMICOLON}/{_ENUMERATION}]")
_SCENE_TAG = re.compile(r"^\[.*?\]\s*")
_ROUNDING = 1e-9  # sums of similarities that differ by less are ties


@dataclass(frozen=True)
class ActionLogicScore:
    """What `score_chain` found.

    Attributes:
        action_f1: how well the actions agree, in their order.
        logic_f1: how well the texts of the logic agree on the aligned pairs.
        entailment_rate: mean probability that the true logic entails the generated one on the aligned pairs; None
            where no judge is given.
        pairs: the alignment, `(true event, generated event)` from 0.
    """

    action_f1: float
    logic_f1: float
    entailment_rate: float | None
    pairs: tuple[tuple[int, int], ...]


# -- actions --------------------------------------------------------------------------------------------------------


def split_sub_actions(action: str) -> list[str]:
    """An action's parts between full-width semicolons, slashes and enumeration commas, stripped, none of them empty.

    The text up to the first full-width colon of the first part (what kind of action it is) is carried to the parts
    that have no such colon; then a leading `[scene]` tag is dropped. With ASCII for the full-width marks,
    `"[home] search: tea; cup"` gives `["search: tea", "search:cup"]`.
    """
    parts = [part.strip() for part in _SUB_ACTION_ENDS.split(action)]
    parts = [part for part in parts if part]
    kind, colon, _ = parts[0].partition(_COLON) if parts else ("", "", "")
    carried = [part if _COLON in part else kind + colon + part for part in parts] if colon else parts
    return [_SCENE_TAG.sub("", part) for part in carried]


def action_similarity(true: str, generated: str) -> float:
    """F1 of exact matches between sub-actions; a sub-action matches as often as both actions have it."""
    wanted, found = split_sub_actions(true), split_sub_actions(generated)
    both = (Counter(wanted) & Counter(found)).total()
    return harmonic_mean(both / max(len(found), 1), both / max(len(wanted), 1))


def align_events(similarity: np.ndarray) -> list[tuple[int, int]]:
    """The ordered one-to-one alignment with the largest summed similarity, `[n, m]` -> pairs `(i, j)`, both ascending.

    A weighted longest common subsequence, by dynamic programming over prefixes:
    `best[i, j] = max(best[i-1, j-1] + similarity[i-1, j-1], best[i-1, j], best[i, j-1])`. Going back from the end, a
    match is preferred to a skip on ties, and skipping a true event to skipping a generated one; aligned pairs may
    therefore have similarity 0.
    """
    n, m = similarity.shape
    weight = similarity.tolist()
    best = [[0.0] * (m + 1) for _ in range(n + 1)]
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            match = best[i - 1][j - 1] + weight[i - 1][j - 1]
            best[i][j] = max(match, best[i - 1][j], best[i][j - 1])
    pairs = []
    i, j = n, m
    while i and j:
        if best[i - 1][j - 1] + weight[i - 1][j - 1] >= best[i][j] - _ROUNDING:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif best[i - 1][j] >= best[i][j] - _ROUNDING:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


# -- score ----------------------------------------------------------------------------------------------------------


def score_chain(
    true: Sequence[Event], generated: Sequence[Event] | None, entail: Entail | None = None
) -> ActionLogicScore:
    """The Action-Logic score of one pair of chains.

    `action_f1` is the harmonic mean of `s / m` and `s / n`, where `s` sums `action_similarity` over the pairs of
    `align_events`; `logic_f1` is the same with `s` summing `text_similarity` of the logic over those pairs.

    A malformed chain (None) and an empty one score 0 against events. Where there is no true chain, an empty list is
    the right answer and scores 1.

    Raises:
        ValueError: `entail` returns a number outside 0 .. 1.
    """
    if generated is not None and not true and not generated:
        return ActionLogicScore(1.0, 1.0, None if entail is None else 1.0, ())
    generated = generated or []
    similarity = np.array([[action_similarity(t.action, g.action) for g in generated] for t in true])
    similarity = similarity.reshape(len(true), len(generated))
    pairs = align_events(similarity)
    action = sum(float(similarity[pair]) for pair in pairs)
    logic = sum(text_similarity(true[i].logic, generated[j].logic) for i, j in pairs)
    rate = None if entail is None else _entailment_rate([(true[i].logic, generated[j].logic) for i, j in pairs], entail)
    return ActionLogicScore(
        _chain_f1(action, len(true), len(generated)), _chain_f1(logic, len(true), len(generated)), rate, tuple(pairs)
    )


def _chain_f1(total: float, num_true: int, num_generated: int) -> float:
    return harmonic_mean(total / max(num_generated, 1), total / max(num_true, 1))


def _entailment_rate(pairs: Sequence[tuple[str, str]], entail: Entail) -> float:
    """Mean over pairs `(premise, hypothesis)`; 0 without a pair, for nothing generated is entailed."""
    rates = [entail(premise, hypothesis) for premise, hypothesis in pairs]
    wrong = [rate for rate in rates if not 0 <= rate <= 1]
    if wrong:
        raise ValueError(f"entail must return a probability in 0 .. 1, got {wrong[0]}; return that of entailment.")
    return sum(rates) / len(rates) if rates else 0.0
