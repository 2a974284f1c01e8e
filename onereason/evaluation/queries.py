"""What is asked of a recommender: evaluation examples, one query a user and domain.

Where the format tells domains apart, the target's domain is given (the model's begin token is forced, the baselines
rank that domain only) and the history holds all domains interleaved. An example whose targets lie in several domains
(possible under a temporal split) becomes one query a domain.

Notation: `Q` queries, `N` items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onereason.data.timelines import Examples, Split, Timelines, split_leave_one_out, split_temporal
from onereason.errors import ConfigError, DataError

SPLIT_METHODS = ("leave_one_out", "temporal")
HISTORY_STRATA = ((0, 0), (1, 2), (3, 4), (5, 9), (10, 19), (20, 49), (50, None))
POPULARITY_STRATA = ((0, 0), (1, 4), (5, 9), (10, 19), (20, 49), (50, 199), (200, None))


@dataclass(frozen=True)
class Queries:
    """Queries in the order of their users.

    Attributes:
        users: int64 `[Q]`, index into the timelines' users.
        histories: `Q` int64 arrays of item indices, oldest first, whole.
        targets: `Q` int64 arrays of item indices, all of the query's domain.
        domains: int64 `[Q]`, position of the domain asked for in the trie's domains.
    """

    users: np.ndarray
    histories: list[np.ndarray]
    targets: list[np.ndarray]
    domains: np.ndarray

    def __len__(self) -> int:
        return len(self.histories)

    @property
    def history_lengths(self) -> np.ndarray:
        """int64 `[Q]`."""
        return np.array([len(h) for h in self.histories], dtype=np.int64)

    @property
    def last_items(self) -> np.ndarray:
        """int64 `[Q]`, the newest item of each history, -1 for an empty one."""
        return np.array([h[-1] if len(h) else -1 for h in self.histories], dtype=np.int64)


def build_queries(examples: Examples, item_domain: np.ndarray) -> Queries:
    """Examples -> queries, given each item's domain position `[N]`."""
    users, histories, targets, domains = [], [], [], []
    for user, history, target in zip(examples.users, examples.histories, examples.targets, strict=True):
        of_target = item_domain[target]
        for domain in dict.fromkeys(of_target.tolist()):
            users.append(user)
            histories.append(history)
            targets.append(target[of_target == domain])
            domains.append(domain)
    return Queries(np.asarray(users, np.int64), histories, targets, np.asarray(domains, np.int64))


def select_domains(queries: Queries, wanted: Sequence[str], domains: Sequence[str]) -> Queries:
    """The queries that ask for one of the `wanted` domains.

    Args:
        domains: names of the domains, as `queries.domains` numbers them.

    Raises:
        ConfigError: a domain that there is not.
        DataError: no query asks for one of them.
    """
    if unknown := sorted(set(wanted) - set(domains)):
        raise ConfigError(f"domains names {unknown[0]!r}; the format tells apart {', '.join(domains)}.")
    kept = [i for i, domain in enumerate(queries.domains.tolist()) if domains[domain] in wanted]
    if not kept:
        raise DataError(f"none of the {len(queries)} queries asks for {', '.join(wanted)}; evaluate more users.")
    return Queries(
        queries.users[kept],
        [queries.histories[i] for i in kept],
        [queries.targets[i] for i in kept],
        queries.domains[kept],
    )


def make_split(
    timelines: Timelines, method: str, validation_start: int | None = None, test_start: int | None = None
) -> Split:
    """The split named `method`; `ConfigError` where its moments are missing or superfluous."""
    if method not in SPLIT_METHODS:
        raise ConfigError(f"split method {method!r} is not known; use {' or '.join(SPLIT_METHODS)}.")
    if method == "leave_one_out":
        if validation_start is not None or test_start is not None:
            raise ConfigError("--validation-start and --test-start belong to --split-method temporal.")
        return split_leave_one_out(timelines)
    if validation_start is None or test_start is None:
        raise ConfigError(
            "--split-method temporal needs --validation-start and --test-start (timestamps of the interactions)."
        )
    return split_temporal(timelines, validation_start, test_start)


def choose_examples(split: Split, name: str, max_users: int | None = None, seed: int = 0) -> Examples:
    """The examples of a split part, all of them or `max_users` drawn with the seed.

    Raises:
        DataError: the part has no example.
        ConfigError: `max_users` below 1.
    """
    if max_users is not None and max_users < 1:
        raise ConfigError(f"max_users must be at least 1, got {max_users}; leave it out to evaluate all users.")
    examples = split.examples(name)
    if len(examples) == 0:
        raise DataError(
            f"the {name} split is empty: no user has a history and a target in it (leave-one-out needs users with at "
            "least 3 interactions; a temporal split needs moments inside the data)."
        )
    if max_users is None or max_users >= len(examples):
        return examples
    drawn = np.random.default_rng(seed).choice(len(examples), size=max_users, replace=False)
    return examples.select(np.sort(drawn))


def history_stratum(lengths: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of `HISTORY_STRATA` and each length's stratum (int64, same shape)."""
    return _stratum(HISTORY_STRATA, lengths)


def popularity_stratum(counts: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of `POPULARITY_STRATA` (`0` is unseen in training) and the stratum of each training count."""
    return _stratum(POPULARITY_STRATA, counts)


def target_signals(queries: Queries, timelines: Timelines, values: np.ndarray) -> list[np.ndarray]:
    """A logged number of each target's interaction: `Q` float64 arrays beside `queries.targets`.

    Args:
        values: aligned with `timelines.items`; nulls (NaN) become 0.

    Raises:
        DataError: targets that do not follow their histories in the timelines.
    """
    found = []
    for user, history, target in zip(queries.users.tolist(), queries.histories, queries.targets, strict=True):
        start = int(timelines.offsets[user]) + len(history)
        end = int(timelines.offsets[user + 1])
        events = start + np.flatnonzero(np.isin(timelines.items[start:end], target))[: len(target)]
        if not np.array_equal(np.sort(timelines.items[events]), np.sort(target)):
            raise DataError(f"the targets of user {timelines.user_ids[user]!r} do not follow the history given.")
        found.append(np.nan_to_num(values[events]).astype(np.float64))
    return found


def _stratum(strata: Sequence[tuple[int, int | None]], values: np.ndarray) -> tuple[list[str], np.ndarray]:
    names = [str(low) if high == low else f"{low}+" if high is None else f"{low}-{high}" for low, high in strata]
    return names, np.searchsorted([low for low, _ in strata], values, side="right") - 1
