"""Is one item explicitly related to another, unrelated, or is it uncertain (R1)? Only the first teaches.

What is counted decides, together with what can be said: a pair that is seen together often but that nothing bridges
teaches a hop that nobody can tell.

Notation: `M` pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onereason.errors import ConfigError

RELATIONS = ("explicitly_related", "uncertain", "unrelated")
"""The classes; results are indices into them."""
EXPLICITLY_RELATED, UNCERTAIN, UNRELATED = range(3)


@dataclass(frozen=True)
class RelationRules:
    """What a pair needs.

    A pair is explicitly related where it was seen at least `min_count` times, at least `min_lift` times more often
    than by chance, with a support of at least `min_support`, and something bridges it: a theme, an attribute, or a
    lift of `bridging_lift` by itself. It is unrelated where it was seen no more often than `max_chance` times chance,
    and nothing bridges it, or where it was never seen. Everything between is uncertain.
    """

    min_count: int = 1
    """Times the two items were seen together."""
    min_support: int = 5
    """Sightings that the lift rests on, of the items' groups where it is a group's."""
    min_lift: float = 1.5
    """Times more often than by chance."""
    bridging_lift: float = 3.0
    """A lift that speaks for itself, where the two share nothing."""
    max_chance: float = 1.0
    """Up to this lift, a pair that shares nothing is unrelated."""

    def __post_init__(self) -> None:
        if self.min_count < 1 or self.min_support < 0:
            raise ConfigError(f"min_count ({self.min_count}) must be at least 1, min_support ({self.min_support}) 0.")
        if not 0 <= self.max_chance <= self.min_lift <= self.bridging_lift:
            raise ConfigError(
                f"max_chance ({self.max_chance}), min_lift ({self.min_lift}) and bridging_lift ({self.bridging_lift}) "
                "must rise in this order."
            )


def compute_pmi(counts: np.ndarray, sources: np.ndarray, targets: np.ndarray, total: float) -> np.ndarray:
    """Pointwise mutual information `log(p(s, t) / (p(s) p(t)))` `[M]`; minus infinity where a pair was never seen.

    Its exponential is the lift.

    Args:
        counts: `[M]`, times the pair was seen.
        sources, targets: `[M]`, times each of the two was seen in a pair.
        total: pairs in all.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = np.asarray(counts, float) * total / (np.asarray(sources, float) * np.asarray(targets, float))
        return np.where(np.asarray(counts) > 0, np.log(lift), -np.inf)


def judge_relations(
    counts: np.ndarray,
    lifts: np.ndarray,
    supports: np.ndarray,
    shares: np.ndarray,
    rules: RelationRules | None = None,
) -> np.ndarray:
    """The class of each pair, int8 `[M]`, an index into `RELATIONS`.

    Args:
        counts: `[M]`, times the two items were seen together.
        lifts: `[M]`, how much more often than by chance they, or their groups, are; `exp(PMI)`.
        supports: `[M]`, sightings that the lift rests on.
        shares: boolean `[M]`, whether they share a theme or an attribute, or their themes are known to go together.
        rules: thresholds.
    """
    rules = rules or RelationRules()
    counts, lifts, supports = np.asarray(counts), np.asarray(lifts, float), np.asarray(supports)
    shares = np.asarray(shares, bool)
    seen = (counts >= rules.min_count) & (supports >= rules.min_support)
    related = seen & (lifts >= rules.min_lift) & (shares | (lifts >= rules.bridging_lift))
    unrelated = (counts == 0) | (~shares & (lifts <= rules.max_chance))
    return np.select([related, unrelated], [EXPLICITLY_RELATED, UNRELATED], UNCERTAIN).astype(np.int8)


def judge_relation(count: int, lift: float, support: int, shares: bool, rules: RelationRules | None = None) -> str:
    """The class of one pair, by its name (see `judge_relations`)."""
    one = judge_relations(np.array([count]), np.array([lift]), np.array([support]), np.array([shares]), rules)
    return RELATIONS[int(one[0])]
