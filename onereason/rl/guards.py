"""What a run of reinforcement is watched by, and when it counts as collapsed.

Notation: `G` groups, `N` traces, `K` items, `L` levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onereason.errors import ConfigError
from onereason.itemic.matching import first_code_diversity
from onereason.rl.records import RewardInputs
from onereason.rl.rewards.traces import ANSWER_LIKELIHOOD

Logged = Mapping[str, float]


@dataclass(frozen=True)
class GuardConfig:
    """When a run is stopped. Each figure is the mean of `window` log lines, against the run's first `window`."""

    window: int = 5
    """Log lines that are averaged; a collapse is looked for from twice as many on."""
    min_entropy: float = 0.25
    """Least share of its start that the entropy of the items' codes may keep, at any level; 0 switches it off."""
    min_diversity: float = 0.25
    """The same for the spread of a trace's first codes."""
    min_legality: float = 0.5
    """The same for the share of rolled-out items that are in the catalog."""
    min_recall: float = 0.5
    """The same for the share of positives that a group's items find (recall at N x K)."""
    min_closed: float = 0.5
    """Least share of traces that close by themselves (where at least so many did at the start); 0 switches it off."""
    min_trace_tokens: float = 0.1
    """Least share of its start that the mean length of traces may keep."""
    max_kl: float = 10.0
    """Most the KL divergence from the reference may be, in nats a token."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ConfigError(f"guards.window must be at least 1, got {self.window}.")
        for name in ("entropy", "diversity", "legality", "recall", "closed", "trace_tokens"):
            if not 0 <= getattr(self, f"min_{name}") <= 1:
                raise ConfigError(f"guards.min_{name} must lie in 0 .. 1, got {getattr(self, f'min_{name}')}.")
        if not self.max_kl > 0:
            raise ConfigError(f"guards.max_kl must be above 0 (.inf switches it off), got {self.max_kl}.")


CAUSES = {
    "item_entropy": "the policy answers everyone with few items: item tokens are clipped too loosely, or misses push "
    "too hard; tighten loss.item_clip, lower loss.miss_weight, or add the diversity reward",
    "first_code_diversity": "all items of a trace share their first code; add the diversity reward, or lower "
    "training.learning_rate",
    "legality": "probability is squeezed out to tokens that are no item; add the format reward, or roll out over the "
    "trie (rollout.items=beam)",
    "recall": "rollouts find fewer right answers than the start model did; lower training.learning_rate, or set "
    "loss.kl_beta",
    "closed": "traces run into the thinking budget: length is rewarded; add trace_length to the rewards, or raise "
    "rollout.sampling.max_new_tokens",
    "trace_tokens": "traces have become empty: thinking does not pay under this reward; look at the traces of the "
    "start model first (its dLL), and at reward/... by group",
    "kl/reference": "the policy has left its start model; lower training.learning_rate, or raise loss.kl_beta",
}
"""Figure -> the likely cause of its collapse, and the way out."""

BROKEN_OFF = (
    "traces are broken off by another token than the one that closes them: the policy thinks less, as its traces do "
    "not pay; look at the traces of the start model first (its dLL), reward closing (format), or lower "
    "training.learning_rate"
)
"""The cause where fewer traces close and they are no longer than before."""


def rollout_metrics(inputs: RewardInputs) -> dict[str, float]:
    """Figures of a generation batch, under `rollout/`.

    `item_entropy_<level>`: entropy in nats of the codes of a level over all legal items; `first_code_diversity`: mean
    over traces; `legality`: legal over rolled-out items; `recall`: share of a group's positives among its items, mean
    over groups; `hit_groups`: share of groups with a hit; `trace_tokens`, `closed`: of traces;
    `answer_loglikelihood_<mode>`, mean of the next item's behind traces, or behind prompts. What there is none of is
    left out, and so are guided items.
    """
    num_levels = inputs.candidates.shape[-1]
    present, legal = inputs.rolled_out, inputs.legal & inputs.rolled_out
    metrics = {}
    codes = inputs.candidates[legal]  # [n, L]
    for level in range(num_levels if len(codes) else 0):
        share = np.unique(codes[:, level], return_counts=True)[1] / len(codes)
        metrics[f"item_entropy_{level + 1}"] = float(-(share * np.log(share)).sum()) + 0.0
    shown = np.where(present[..., None], inputs.candidates, -1)
    if present.any():
        metrics["first_code_diversity"] = float(first_code_diversity(shown)[present.any(2)].mean())
        metrics["legality"] = float(legal.sum() / present.sum())
    found = [_recall(inputs.candidates[g][legal[g]], positives) for g, positives in enumerate(inputs.positives)]
    known = [value for value in found if value is not None]
    if known:
        metrics["recall"] = float(np.mean(known))
        metrics["hit_groups"] = float(np.mean([value > 0 for value in known]))
    if inputs.thinks.any():
        metrics["trace_tokens"] = float(inputs.trace_lengths[inputs.thinks].mean())
        metrics["closed"] = float(inputs.closed[inputs.thinks].mean())
    if ANSWER_LIKELIHOOD in inputs.values:
        for mode, own in (("think", inputs.thinks), ("no_think", ~inputs.thinks)):
            if own.any():
                metrics[f"answer_loglikelihood_{mode}"] = float(inputs.values[ANSWER_LIKELIHOOD][own].mean())
    return {f"rollout/{name}": value for name, value in metrics.items()}


def _recall(items: np.ndarray, positives: np.ndarray) -> float | None:
    """Share of the distinct positives `[P, L]` among the items `[n, L]`; None without a positive."""
    wanted = {tuple(row) for row in np.asarray(positives).tolist()}
    return len(wanted & {tuple(row) for row in items.tolist()}) / len(wanted) if wanted else None


def hits(inputs: RewardInputs) -> np.ndarray:
    """bool `[G, N, K]`; True selects items of the positive set."""
    found = np.zeros(inputs.shape, bool)
    for group, positives in enumerate(inputs.positives):
        if len(positives):
            same = (inputs.candidates[group][:, :, None] == np.asarray(positives)).all(-1)  # [N, K, P]
            found[group] = same.any(-1)
    return found & inputs.legal


def find_collapse(history: Sequence[Logged], config: GuardConfig) -> str | None:
    """What has collapsed, in words, with the likely cause and the way out; None where nothing has.

    Args:
        history: the log lines of the run so far, oldest first; keys as logged (`rollout/...`, `kl/reference`).
    """
    if len(history) < 2 * config.window:
        return None
    first, last = history[: config.window], history[-config.window :]
    least = {"first_code_diversity": config.min_diversity, "legality": config.min_legality}
    least |= {"recall": config.min_recall, "trace_tokens": config.min_trace_tokens, "closed": config.min_closed}
    names = sorted({name.removeprefix("rollout/") for line in first for name in line})
    least |= {name: config.min_entropy for name in names if name.startswith("item_entropy")}
    for name, share in least.items():
        start, now = _mean(first, f"rollout/{name}"), _mean(last, f"rollout/{name}")
        if start is None or now is None:
            continue
        if name == "closed" and start < share:
            continue  # a start model that hardly closes is no measure
        bound = share if name == "closed" else share * start
        if now < bound:
            what = f"fell from {start:.3g} to {now:.3g} (bound {bound:.3g})"
            if name == "closed" and _shorter(first, last):
                return f"{name} {what} while traces grew shorter. Likely cause: {BROKEN_OFF}."
            return _say(name, what)
    # A trainer that averages over numbers alone logs None where none was one.
    measured = [line["kl/reference"] for line in last if "kl/reference" in line]
    divergence = float(np.mean([np.nan if value is None else value for value in measured])) if measured else 0.0
    if not divergence <= config.max_kl:  # NaN is no small number
        return _say("kl/reference", f"rose to {divergence:.3g} nats a token (bound {config.max_kl:g})")
    return None


def _shorter(first: Sequence[Logged], last: Sequence[Logged]) -> bool:
    start, now = _mean(first, "rollout/trace_tokens"), _mean(last, "rollout/trace_tokens")
    return start is not None and now is not None and now < start


def _say(name: str, what: str) -> str:
    return f"{name} {what}. Likely cause: {CAUSES[name.rstrip('0123456789').rstrip('_')]}."


def _mean(lines: Sequence[Logged], name: str) -> float | None:
    values = [float(line[name]) for line in lines if line.get(name) is not None]
    return float(np.mean(values)) if values else None
