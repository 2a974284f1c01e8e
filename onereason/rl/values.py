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
from onereason.decoding.recommender import Recommender
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
"""What a run of reinforcement can say of an item: rollouts make the first, `ItemValues` the others."""


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
    list would hold: the one that the trie gives the highest priority.
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
    """Makes the values that rewards read; nothing of it needs the model.

    Attributes:
        scorer: gives `p_score`; None where no reward reads it.
        labels: one array `[n]` a user of `read_duration_labels`; None where no reward reads them.
        train: the users' training items, as long as `labels`.
    """

    scorer: PScorer | None = None
    labels: Sequence[np.ndarray] | None = None
    train: Sequence[np.ndarray] = ()

    def order_items(self, recommender: Recommender) -> Recommender:
        """The same with items under one sid ordered by training interactions, as evaluation orders them, where an item
        has to stand for its sid.
        """
        if self.scorer is None:
            return recommender
        trained = np.concatenate([*self.train, np.empty(0, np.int64)])
        return recommender.with_priority(np.bincount(trained, minlength=len(recommender.catalog)))

    def add_to(
        self,
        inputs: RewardInputs,
        recommender: Recommender,
        prompts: Prompts,
        asked: Sequence[int],
        rollouts: Rollouts,
        domains: Sequence[str],
    ) -> RewardInputs:
        """The record with its values.

        A scorer sees what stood before the moment that is asked about, also what a prompt is too short to show.

        Args:
            recommender: of `order_items`.
            asked: numbers of the `G` prompts.
            domains: domain of each item, as the format tells domains apart.
        """
        values, codes = dict(inputs.values), recommender.catalog.codes
        if self.scorer is not None:
            histories = [prompts.histories[number] for number in asked]
            values[P_SCORE] = self.scorer.score(histories, rolled_out_items(recommender.trie, rollouts))
        if self.labels is not None:
            users = [int(prompts.users[number]) for number in asked]
            values[DURATION_AWARE] = look_up_logged(
                inputs,
                [codes[self.train[user]] for user in users],
                [[domains[item] for item in self.train[user].tolist()] for user in users],
                [self.labels[user] for user in users],
            )
        return replace(inputs, values=values)
