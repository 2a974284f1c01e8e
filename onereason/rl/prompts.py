"""What reinforcement asks: moments of users' training timelines, and the items that are right answers at each.

A prompt shows what came before a moment and asks for the domain of the item that came next. Right answers (the user's
positive set) are the items of that domain among what came next, up to a horizon: intent is never observed, so several
items may be valid.

Notation: `Q` prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onereason.data.held_out import user_share
from onereason.errors import ConfigError, DataError


@dataclass(frozen=True)
class PromptConfig:
    """Which moments are asked about."""

    targets: int = 8
    """Newest training items of each user that are asked for."""
    horizon: int = 1
    """Interactions, from the target on, among which items of its domain are right answers; 1 takes the target alone."""
    min_history: int = 3
    """Items that must stand before a target."""
    domains: Sequence[str] = ()
    """Domains that are asked for; empty takes all. One domain makes a specialist."""
    users: tuple[float, float] = (0.0, 1.0)
    """Which share of the users, by a hash of their name (`onereason.data.held_out`): (0, .5) and (.5, 1) share none,
    and (0, .3) are those that `data_builders.build_mixture --held-out 0.3` keeps from training."""
    max_prompts: int | None = None
    """Prompts drawn by seed; None takes all."""

    def __post_init__(self) -> None:
        for name in ("targets", "horizon", "min_history"):
            if getattr(self, name) < 1:
                raise ConfigError(f"prompts.{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.users[0] < self.users[1] <= 1:
            raise ConfigError(f"prompts.users must be two rising shares from 0 to 1, got {list(self.users)}.")
        if self.max_prompts is not None and self.max_prompts < 1:
            raise ConfigError(f"prompts.max_prompts must be at least 1, got {self.max_prompts}.")


@dataclass(frozen=True)
class Prompts:
    """Attributes:
    users: int64 `[Q]`, index into the timelines' users.
    histories: `Q` int64 arrays of item indices, oldest first, whole.
    positives: `Q` int64 arrays of item indices, right answers, each once, in the order in which they came.
    domains: `Q` domain names, of the answers.
    counts: what was left out, by reason.
    """

    users: np.ndarray
    histories: list[np.ndarray]
    positives: list[np.ndarray]
    domains: list[str]
    counts: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.histories)


def build_prompts(
    train: Sequence[np.ndarray],
    user_ids: Sequence[str],
    item_domains: Sequence[str],
    config: PromptConfig,
    seed: int = 0,
) -> Prompts:
    """Prompts out of the training part of a split.

    Args:
        train: item indices of each user, oldest first.
        user_ids: their names.
        item_domains: domain of each item, as the format tells domains apart.

    Raises:
        ConfigError: a domain that no item has (those there are are named).
        DataError: no prompt is left (what was left out is counted).
    """
    known = sorted(set(item_domains))
    if unknown := sorted(set(config.domains) - set(known)):
        raise ConfigError(f"prompts.domains names {unknown[0]!r}; the catalog's domains are {', '.join(known)}.")
    wanted = set(config.domains) or set(known)
    counts: Counter[str] = Counter()
    found: list[tuple[int, int]] = []
    for user, items in enumerate(train):
        if not config.users[0] <= user_share(user_ids[user]) < config.users[1]:
            counts["other_users"] += 1
            continue
        first = max(config.min_history, len(items) - config.targets)
        if first >= len(items):
            counts["history_too_short"] += 1
        for place in range(first, len(items)):
            if item_domains[items[place]] in wanted:
                found.append((user, place))
            else:
                counts["other_domains"] += 1
    if not found:
        left_out = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "there are no users"
        raise DataError(
            f"no prompt is left for reinforcement ({left_out}); prompts.domains is {list(config.domains) or known}, "
            f"prompts.users {list(config.users)}, prompts.min_history {config.min_history}: widen one of them."
        )
    if config.max_prompts is not None and config.max_prompts < len(found):
        drawn = np.random.default_rng(seed).choice(len(found), config.max_prompts, replace=False)
        found = [found[i] for i in np.sort(drawn)]
    positives, domains = [], []
    for user, place in found:
        domain = item_domains[train[user][place]]
        ahead = train[user][place : place + config.horizon].tolist()
        positives.append(np.array(list(dict.fromkeys(i for i in ahead if item_domains[i] == domain)), np.int64))
        domains.append(domain)
    return Prompts(
        np.array([user for user, _ in found], np.int64),
        [np.asarray(train[user][:place], np.int64) for user, place in found],
        positives,
        domains,
        dict(counts),
    )
