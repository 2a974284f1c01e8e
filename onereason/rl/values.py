"""The numbers that rewards read beside the rollouts: what a scorer, and what the log, says of an item.

Notation: `G` groups, `N` traces a group, `K` items a trace, `n` interactions of one user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from onereason.data.schema import SIGNAL_PREFIX
from onereason.data.timelines import Split, Timelines, sort_by_user
from onereason.errors import ConfigError
from onereason.itemic.trie import ItemTrie
from onereason.rl.p_score import PScorer
from onereason.rl.prompts import Prompts
from onereason.rl.records import RewardInputs
from onereason.rl.rewards import label_interactions, look_up_logged, play_time_quantiles
from onereason.rl.rewards.logged import DURATION_AWARE, P_SCORE
from onereason.rl.rewards.traces import ANSWER_LIKELIHOOD
from onereason.rl.rollout import Rollouts

KNOWN_VALUES = (ANSWER_LIKELIHOOD, P_SCORE, DURATION_AWARE)


@dataclass(frozen=True)
class SignalConfig:
    """What the duration-aware reward reads of the log (columns `signal_<name>`)."""

    watch: str = "watch_seconds"
    """Signal: how long an item was played."""
    duration: str = "duration_seconds"
    """Signal: how long the item is, in the same unit."""
    negative: str | None = None
    """Signal that is above 0 where an item was disliked; None where none is logged."""
    threshold: float = 0.75
    """Share of the user's plays of that duration that an item must be played longer than."""
    base: float = 2.0
    """Durations are compared inside powers of it."""


def rolled_out_items(trie: ItemTrie, rollouts: Rollouts) -> np.ndarray:
    """Item indices of rollouts, int64 `[G, N, K]`, -1 where there is none; of several under one sid the first that a
    list would hold (that of the highest priority).
    """
    leaves = rollouts.leaves.cpu().numpy()
    legal = rollouts.legal.cpu().numpy()
    starts = np.asarray(trie.leaf_start)[np.where(legal, leaves - trie.first_leaf, 0)]
    return np.where(legal, np.asarray(trie.leaf_items)[starts], -1).astype(np.int64)


def read_duration_labels(
    interactions: pl.DataFrame, timelines: Timelines, split: Split, config: SignalConfig, source: str
) -> list[np.ndarray]:
    """`label_interactions` of each user's training interactions, one array `[n]` a user; 0 where nothing is logged.

    Raises:
        ConfigError: a signal that the interactions do not have (those they have are named).
    """
    table = sort_by_user(interactions)

    def read(name: str) -> np.ndarray:
        column = f"{SIGNAL_PREFIX}{name}"
        if column not in table.columns:
            known = [c.removeprefix(SIGNAL_PREFIX) for c in table.columns if c.startswith(SIGNAL_PREFIX)]
            raise ConfigError(
                f"the reward duration_aware reads the signal {name!r}, which {source} does not log; it logs "
                f"{', '.join(known) or 'none'} (set signals.watch, signals.duration, signals.negative)."
            )
        return table[column].cast(pl.Float64).fill_null(np.nan).to_numpy()

    play, duration = read(config.watch), read(config.duration)
    disliked = np.zeros(len(play), bool) if config.negative is None else read(config.negative) > 0
    labels = []
    for user, items in enumerate(split.train):
        own = slice(timelines.offsets[user], timelines.offsets[user] + len(items))
        quantiles = play_time_quantiles(play[own], duration[own], base=config.base)
        labels.append(label_interactions(quantiles, disliked[own], config.threshold))
    return labels


@dataclass(frozen=True)
class ItemValues:
    """Makes the values that a reward reads.

    Attributes:
        names: what is read, out of `KNOWN_VALUES`.
        trie: of the items.
        prompts: what was asked.
        scorer: gives `p_score`; None where it is not read.
        labels: one array `[n]` a user of `read_duration_labels`; None where they are not read.
        train: the users' training items, as long as `labels`.
    """

    names: Sequence[str]
    trie: ItemTrie
    prompts: Prompts
    scorer: PScorer | None = None
    labels: Sequence[np.ndarray] | None = None
    train: Sequence[np.ndarray] = ()

    def add_to(
        self, inputs: RewardInputs, asked: Sequence[int], rollouts: Rollouts, codes: np.ndarray, domains: Sequence[str]
    ) -> RewardInputs:
        """The record with its values.

        Args:
            asked: numbers of the `G` prompts.
            codes: the catalog's codes, `[I, L]`.
            domains: domain of each item, as the format tells domains apart.
        """
        values = dict(inputs.values)
        if P_SCORE in self.names:
            assert self.scorer is not None, "the recipe loads the scorer where a reward reads it"
            histories = [self.prompts.histories[number] for number in asked]
            values[P_SCORE] = self.scorer.score(histories, rolled_out_items(self.trie, rollouts))
        if DURATION_AWARE in self.names:
            assert self.labels is not None, "the recipe reads the labels where a reward does"
            users = [int(self.prompts.users[number]) for number in asked]
            values[DURATION_AWARE] = look_up_logged(
                inputs,
                [codes[self.train[user]] for user in users],
                [[domains[item] for item in self.train[user].tolist()] for user in users],
                [self.labels[user] for user in users],
            )
        return replace(inputs, values=values)
