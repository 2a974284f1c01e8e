"""What a P-Score learns from: logged interactions with what came before each, and items drawn beside them.

An interaction's history is read off the timelines by place, so nothing that comes later can enter it. Its candidates
are the item itself and `S` items of the same domain that are drawn at random; a drawn item is a negative of the
objectives that want such ones, where the interaction's own label is known.

Notation: `P` events (interactions in the order of timelines), `B` of them, `n` history items, `S` drawn items,
`O` objectives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from onereason.data.held_out import user_share
from onereason.data.timelines import Split, Timelines, build_timelines, split_leave_one_out
from onereason.errors import ConfigError, DataError
from onereason.itemic.catalog import Catalog
from onereason.rl.objectives import Labels, Objective, build_labels, read_signals


@dataclass(frozen=True)
class Batch:
    """Attributes:
    histories: int64 `[B, n]`, newest last, -1 where there is none.
    candidates: int64 `[B, 1 + S]`, the logged item first; -1 where a domain has no other item.
    labels: float32 `[B, 1 + S, O]`.
    known: bool `[B, 1 + S, O]`; True selects labels that teach.
    """

    histories: np.ndarray
    candidates: np.ndarray
    labels: np.ndarray
    known: np.ndarray


class NegativeSampler:
    """Items drawn from the domain of a logged item, never that item itself.

    Args:
        domains: domain of each item.
        counts: int64, training interactions of each item.
        exponent: an item's weight is `(count + 1) ** exponent`; 0 draws evenly, 1 by popularity.
    """

    def __init__(self, domains: Sequence[str], counts: np.ndarray, exponent: float):
        names, domain_of = np.unique(np.asarray(domains, dtype=str), return_inverse=True)
        weights = (counts + 1.0) ** exponent
        self._members = np.argsort(domain_of, kind="stable")
        self._place = np.argsort(self._members)
        self._weights = weights[self._members]
        self._reached = np.cumsum(self._weights)
        self._ends = np.cumsum(np.bincount(domain_of, minlength=len(names)))[domain_of]
        self._starts = self._ends - np.bincount(domain_of, minlength=len(names))[domain_of]

    def draw(self, items: np.ndarray, num_negatives: int, rng: np.random.Generator) -> np.ndarray:
        """int64 `[B, S]` beside items `[B]`; -1 where the domain has no other item."""
        place, start, end = self._place[items], self._starts[items], self._ends[items]
        own = self._weights[place]
        low = np.where(start > 0, self._reached[start - 1], 0.0)
        # A point of the domain's weight without the item's own stretch, which is stepped over.
        point = low[:, None] + rng.random((len(items), num_negatives)) * (self._reached[end - 1] - low - own)[:, None]
        before = (self._reached[place] - own)[:, None]
        point += np.where(point >= before, own[:, None], 0.0)
        drawn = np.searchsorted(self._reached, point, side="right").clip(start[:, None], (end - 1)[:, None])
        drawn += drawn == place[:, None]  # rounding at the edge of the stretch
        drawn = np.where(drawn >= end[:, None], start[:, None], drawn)
        return np.where((end - start > 1)[:, None], self._members[drawn], -1)


@dataclass(frozen=True)
class LoggedExamples:
    """All events of a log, with the parts they belong to.

    Attributes:
        items: int64 `[P]`, item indices.
        starts: int64 `[P]`, the first event of each event's user.
        train, validation, test: int64, the events of each part.
        labels: what the log says of each event.
        sampler: draws the items beside them; None where no objective wants any.
        counts: events by part, and those of other users.
    """

    items: np.ndarray
    starts: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    labels: Labels
    sampler: NegativeSampler | None
    counts: Mapping[str, int]

    def histories(self, events: np.ndarray, max_history: int) -> np.ndarray:
        """The newest items before each event, int64 `[B, n]`."""
        place = events[:, None] + np.arange(-max_history, 0)
        return np.where(place >= self.starts[events][:, None], self.items[np.maximum(place, 0)], -1)

    def batch(self, events: np.ndarray, max_history: int, num_negatives: int, rng: np.random.Generator) -> Batch:
        """Events `[B]` as the network sees them."""
        own = self.items[events]
        drawn = np.zeros((len(events), 0), dtype=np.int64)
        if self.sampler is not None:
            drawn = self.sampler.draw(own, num_negatives, rng)
        labels = np.zeros((len(events), 1 + drawn.shape[1], len(self.labels.names)), dtype=np.float32)
        labels[:, 0] = self.labels.values[events]
        known = np.empty(labels.shape, dtype=bool)
        known[:, 0] = self.labels.known[events]
        known[:, 1:] = self.labels.sampled[events][:, None] & (drawn >= 0)[..., None]
        return Batch(self.histories(events, max_history), np.concatenate([own[:, None], drawn], axis=1), labels, known)


def find_parts(timelines: Timelines, split: Split) -> np.ndarray:
    """int8 `[P]`: 0 where an event trains, 1 where it is a validation target, 2 where it is a test target."""
    lengths = np.diff(timelines.offsets)
    trained = np.array([len(t) for t in split.train], dtype=np.int64)
    place = np.arange(len(timelines.items)) - np.repeat(timelines.offsets[:-1], lengths)
    return np.clip(place - np.repeat(trained, lengths) + 1, 0, 2).astype(np.int8)


def build_examples(
    interactions: pl.DataFrame,
    catalog: Catalog,
    objectives: Mapping[str, Objective],
    users: tuple[float, float] = (0.0, 1.0),
    popularity_exponent: float = 0.0,
    source: str = "the dataset",
) -> LoggedExamples:
    """Examples of a log under leave-one-out: the last event of a user is test, the one before it validation.

    Args:
        users: which share of the users trains, by a hash of their name; validation and test take all.

    Raises:
        ConfigError, DataError: as `read_signals` and `build_labels`; no event trains, or no user can be validated on.
    """
    signals = read_signals(interactions, objectives, source)
    timelines = build_timelines(interactions, catalog.index)
    part = find_parts(timelines, split_leave_one_out(timelines))
    train = part == 0
    if users != (0.0, 1.0):
        chosen = np.array([users[0] <= user_share(name) < users[1] for name in timelines.user_ids], dtype=bool)
        train &= np.repeat(chosen, np.diff(timelines.offsets))
    counts = {"train": train.sum(), "validation": (part == 1).sum(), "test": (part == 2).sum()}
    counts["left_out_other_users"] = (part == 0).sum() - counts["train"]
    if not counts["train"]:
        raise DataError(f"no interaction of {source} trains: training.users {list(users)} takes none of its users.")
    if not counts["validation"]:
        raise DataError(f"{source} has no user with three interactions, so nothing can be validated or tested.")
    sampler = None
    if any(objective.negatives != "exposed" for objective in objectives.values()):
        popularity = np.bincount(timelines.items[train], minlength=len(catalog))
        sampler = NegativeSampler(catalog.domains, popularity, popularity_exponent)
    return LoggedExamples(
        timelines.items,
        np.repeat(timelines.offsets[:-1], np.diff(timelines.offsets)),
        np.flatnonzero(train),
        np.flatnonzero(part == 1),
        np.flatnonzero(part == 2),
        build_labels(objectives, signals, train),
        sampler,
        {name: int(count) for name, count in counts.items()},
    )


def check_users(users: tuple[float, float]) -> None:
    """`ConfigError` unless these are two rising shares."""
    if not 0 <= users[0] < users[1] <= 1:
        raise ConfigError(f"users must be two rising shares from 0 to 1, got {list(users)}.")
