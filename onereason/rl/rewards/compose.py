"""Rewards by name, and several of them as one.

Notation: `G` groups, `N` traces a group, `K` items a trace, `L` levels.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onereason.config import build_config
from onereason.errors import ConfigError, RewardError
from onereason.rl.rewards.base import Reward, codes_of_positives
from onereason.rl.rewards.form import Format
from onereason.rl.rewards.items import Diversity, Graded, Hit, RolloutBeam
from onereason.rl.rewards.logged import DurationAware, PScore
from onereason.rl.rewards.own import load_own_reward
from onereason.rl.rewards.traces import AnswerLikelihood, HistoryGrounding, TraceLength

if TYPE_CHECKING:
    from onereason.rl.records import RewardInputs

Combine = Literal["product", "sum"]
NotFinite = Literal["skip", "raise"]

REWARDS: dict[str, type[Reward]] = {
    "rollout_beam": RolloutBeam,
    "hit": Hit,
    "graded": Graded,
    "diversity": Diversity,
    "format": Format,
    "answer_likelihood": AnswerLikelihood,
    "history_grounding": HistoryGrounding,
    "trace_length": TraceLength,
    "duration_aware": DurationAware,
    "p_score": PScore,
}
"""All rewards the toolkit has."""


@dataclass(frozen=True)
class RewardTerm:
    """One reward of several."""

    name: str
    """A reward of `REWARDS`, or the path of a function: `package.module:function`."""
    weight: float = 1.0
    """What it is multiplied by in a sum (0 only logs it); 1 in a product, whose advantages no factor would change."""
    options: dict[str, Any] = field(default_factory=dict)
    """The fields of the reward's class, or keyword arguments of the function."""
    alias: str | None = None
    """What it is called in metrics; needed where a reward stands twice. None takes the name."""

    @property
    def key(self) -> str:
        """What the term is called: its alias, its name, or the last part of its path."""
        return self.alias or self.name.replace(":", ".").rpartition(".")[2]


@dataclass(frozen=True)
class RewardConfig:
    """What rollouts are rewarded for; by default OneReason's product of hit and diversity (Eq. 9-11)."""

    terms: tuple[RewardTerm, ...] = (RewardTerm("hit"), RewardTerm("diversity"))
    """The rewards."""
    combine: Combine = "product"
    """How they become one number: `product`, or `sum` of weight times reward."""
    not_finite: NotFinite = "skip"
    """What NaN or infinity in a term does: `skip` leaves the group out, `raise` ends the run."""

    def __post_init__(self) -> None:
        self.build()

    def build(self, num_levels: int | None = None, num_items: int | None = None) -> CombinedReward:
        """See `build_reward`."""
        return build_reward(self.terms, self.combine, self.not_finite, num_levels, num_items)


@dataclass(frozen=True)
class RewardOutputs:
    """What rollouts earned.

    Attributes:
        total: float64 `[G, N, K]`; finite, 0 in groups that are not kept and where nothing was rolled out.
        terms: key -> the reward itself without its weight, as `total`; also 0 where a term that is only logged (weight
            0 in a sum) cannot be known.
        kept: bool `[G]`; True selects groups that may be trained on.
        skipped: `<term>/<reason>` -> groups that are not kept for it (a group may count for several). Reasons:
            `not_finite`, `no_positives`; `rollouts/no_items` where a group has no item at all, `total/not_finite` where
            finite terms have no finite total. A term that is only logged leaves no group out.
        metrics: over rolled-out items of kept groups (0 without any), `reward/<term>` and `reward/total`, means, with
            `_std`, guided items left out, of a term over groups in which it can be known; `reward/constant_groups`,
            the share of kept groups whose totals are all equal, so that their advantages vanish;
            `reward/skipped_groups`, the share of groups that are not kept.
    """

    total: np.ndarray
    terms: dict[str, np.ndarray]
    kept: np.ndarray
    skipped: dict[str, int]
    metrics: dict[str, float]


@dataclass(frozen=True)
class CombinedReward:
    """Several rewards as one; made by `build_reward`.

    Attributes:
        rewards: key -> reward, in the order of the terms.
        weights: key -> weight.
        combine: how they become one number.
        not_finite: what NaN or infinity does.
    """

    rewards: dict[str, Reward]
    weights: dict[str, float]
    combine: Combine
    not_finite: NotFinite

    @property
    def reads(self) -> dict[str, str]:
        """Names of `RewardInputs.values` that are needed -> the key of a reward that reads them."""
        return {name: key for key, reward in self.rewards.items() for name in reward.reads}

    def compute(self, inputs: RewardInputs) -> RewardOutputs:
        """The rewards of rollouts.

        Raises:
            RewardError: a reward does not fit the rollouts, lacks a value, gives another shape, or, with `not_finite:
                raise`, NaN or infinity.
        """
        for key, reward in self.rewards.items():
            problem = reward.find_problem(self.combine, inputs.candidates.shape[-1], inputs.shape[2])
            if problem is not None:
                raise RewardError(f"reward {key}: {problem}")
        skipped: Counter[str] = Counter()
        kept = np.asarray(inputs.valid.any((1, 2)))
        skipped["rollouts/no_items"] += int((~kept).sum())
        has_positives = np.array([len(codes_of_positives(inputs, g)) > 0 for g in range(len(kept))], bool)
        terms: dict[str, np.ndarray] = {}
        known: dict[str, np.ndarray] = {}  # [G]; True selects groups in which a term can be known
        for key, reward in self.rewards.items():
            terms[key], finite = self._finite_part(key, reward(inputs), inputs)
            judged = has_positives if reward.needs_positives else np.ones_like(has_positives)
            known[key] = judged & finite
            if self.combine == "product" or self.weights[key] != 0:
                skipped[f"{key}/no_positives"] += int((~judged).sum())
                skipped[f"{key}/not_finite"] += int((~finite).sum())
                kept = kept & known[key]
        total, finite = self._finite_part("total", self._combine(terms), inputs)
        skipped["total/not_finite"] += int((~finite).sum())
        known["total"] = kept = kept & finite
        values = {
            key: np.where((kept & known[key])[:, None, None], of_items, 0.0)
            for key, of_items in {**terms, "total": total}.items()
        }
        counted = {key: inputs.rolled_out & (kept & judged)[:, None, None] for key, judged in known.items()}
        metrics = _compute_metrics(values, counted)
        total = values.pop("total")
        low, high = (np.where(inputs.valid, total, fill) for fill in (np.inf, -np.inf))
        equal = low.min((1, 2), initial=np.inf) == high.max((1, 2), initial=-np.inf)
        metrics["reward/constant_groups"] = float(equal[kept].mean()) if kept.any() else 0.0
        metrics["reward/skipped_groups"] = float((~kept).mean()) if len(kept) else 0.0
        return RewardOutputs(total, values, kept, {key: count for key, count in skipped.items() if count}, metrics)

    def _combine(self, terms: dict[str, np.ndarray]) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            if self.combine == "product":
                return np.prod(list(terms.values()), axis=0)
            return np.sum([self.weights[key] * values for key, values in terms.items()], axis=0)

    def _finite_part(self, key: str, values: np.ndarray, inputs: RewardInputs) -> tuple[np.ndarray, np.ndarray]:
        """The values, 0 where nothing was rolled out and in groups in which one is not finite, which are False in the
        mask `[G]`.
        """
        values = np.where(inputs.valid, values, 0.0)
        wrong = np.argwhere(~np.isfinite(values))
        if len(wrong) and self.not_finite == "raise":
            group, trace, item = wrong[0]
            raise RewardError(
                f"reward {key}: {values[group, trace, item]} in group {group}, trace {trace}, item {item}; give a "
                "finite number for every rolled-out item, or set not_finite: skip to leave such groups out."
            )
        finite = np.isfinite(values).all((1, 2))
        return np.where(finite[:, None, None], values, 0.0), finite


def _compute_metrics(values: dict[str, np.ndarray], counted: dict[str, np.ndarray]) -> dict[str, float]:
    """Means of `RewardOutputs.metrics`; `counted`, key -> bool `[G, N, K]`, selects the items of a key's mean."""
    metrics = {}
    for key, of_items in values.items():
        chosen = of_items[counted[key]] if counted[key].any() else np.zeros(1)
        metrics[f"reward/{key}"], metrics[f"reward/{key}_std"] = float(chosen.mean()), float(chosen.std())
    return metrics


def build_reward(
    terms: Sequence[RewardTerm],
    combine: Combine = "product",
    not_finite: NotFinite = "skip",
    num_levels: int | None = None,
    num_items: int | None = None,
) -> CombinedReward:
    """Several rewards as one.

    A sum adds weight times reward. A product takes no weights: as a factor, a weight would scale all rewards of a group
    alike, which normalised advantages do not see, and as an exponent it would do nothing to rewards of 0 and 1.

    Args:
        num_levels: L, where known already, to refuse early what would not fit.
        num_items: K, likewise.

    Raises:
        ConfigError: an unknown reward or option, a wrong value, a weight in a product, two terms of one name, no terms.
    """
    if combine not in ("product", "sum"):
        raise ConfigError(f"combine must be product or sum, got {combine!r}.")
    if not_finite not in ("skip", "raise"):
        raise ConfigError(f"not_finite must be skip or raise, got {not_finite!r}.")
    if not terms:
        raise ConfigError(f"a reward needs at least one term; known rewards are {', '.join(REWARDS)}.")
    rewards: dict[str, Reward] = {}
    taken = {"total", "total_std", "constant_groups", "skipped_groups"}
    for term in terms:
        if not isfinite(term.weight) or (combine == "product" and term.weight != 1):
            way_out = "leave it at 1, or set combine: sum." if combine == "product" else "give a finite number."
            raise ConfigError(f"reward {term.key}: weight {term.weight:g} cannot be used in a {combine}; {way_out}")
        reward = _build_term(term)
        if {term.key, f"{term.key}_std"} & taken:
            raise ConfigError(f"two reward terms (or a metric) are called {term.key!r}; give one of them an alias.")
        taken |= {term.key, f"{term.key}_std"}
        rewards[term.key] = reward
        problem = reward.find_problem(combine, num_levels, num_items)
        if problem is not None:
            raise ConfigError(f"reward {term.key}: {problem}")
    return CombinedReward(rewards, {term.key: term.weight for term in terms}, combine, not_finite)


def _build_term(term: RewardTerm) -> Reward:
    if term.name not in REWARDS:
        if "." in term.name or ":" in term.name:
            return load_own_reward(term.name, term.options)
        raise ConfigError(
            f"reward {term.name!r} is not known;{_nearest(term.name, REWARDS)} known rewards are {', '.join(REWARDS)}; "
            "a function of your own is written package.module:function."
        )
    cls = REWARDS[term.name]
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for option in term.options:
        if option not in known:
            raise ConfigError(
                f"reward {term.name}: unknown option {option!r};{_nearest(option, known)} known options are "
                f"{', '.join(known) or 'none'}."
            )
    return build_config(cls, term.options, f"reward {term.name}")


def _nearest(name: str, known: Sequence[str] | dict[str, Any]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" did you mean {near[0]}?" if near else ""
