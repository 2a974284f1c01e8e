"""Interests: which themes of different domains serve one interest, found from what stands together in timelines.

A theme is a word of one domain: people who love camping may watch camping videos and buy cookware. Themes of different
domains that keep standing side by side in training timelines are gathered into one interest, at most one theme a
domain. With a single domain every theme is an interest of its own.

Notation: `N` items, `M` nodes (a theme in a domain), `I` interests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onereason.cognition.associations import count_window, symmetrize
from onereason.cognition.facts import ItemFacts

UNKNOWN = -1
"""Interest of an item without a theme."""


@dataclass(frozen=True)
class InterestMap:
    """The interests of a catalog.

    Attributes:
        names: `I` names, each the word most of its themes bear.
        of_item: int32 `[N]`, the interest of each item, `UNKNOWN` without a theme.
        themes: `(interest, domain)` -> the theme it shows as there.
    """

    names: Sequence[str]
    of_item: np.ndarray
    themes: Mapping[tuple[int, str], str]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Linking:
    """When two themes of different domains count as one interest."""

    window: int = 3
    """Events that stand at most so far apart are side by side."""
    min_count: int = 5
    """Times they must stand side by side."""
    min_lift: float = 2.0
    """Times more often than by chance."""


def build_interests(
    facts: ItemFacts, items: np.ndarray, offsets: np.ndarray, linking: Linking | None = None
) -> InterestMap:
    """The interests of a catalog, from the training part of its timelines.

    Args:
        facts: the items.
        items: int64, item indices of all users, oldest first.
        offsets: int64 `[U + 1]`, user `u` owns `items[offsets[u]:offsets[u + 1]]`.
        linking: the thresholds.
    """
    nodes: dict[tuple[str, str], int] = {}
    node_of_item = np.array(
        [
            nodes.setdefault((domain, theme), len(nodes)) if theme else UNKNOWN
            for domain, theme in zip(facts.domains, facts.themes, strict=True)
        ],
        dtype=np.int64,
    )
    names = list(nodes)
    events = node_of_item[items]
    frequency = np.bincount(events[events >= 0], minlength=len(names))
    groups = link_themes([domain for domain, _ in names], events, offsets, linking or Linking())
    of_node = np.full(len(names) + 1, UNKNOWN, dtype=np.int32)  # the last entry serves items without a node
    words, themes = [], {}
    for interest, members in enumerate(groups):
        of_node[members] = interest
        votes: Counter[str] = Counter()
        events_of: Counter[str] = Counter()
        for node in members:
            domain, theme = names[node]
            themes[interest, domain] = theme
            votes[theme] += 1
            events_of[theme] += int(frequency[node])
        words.append(max(sorted(votes), key=lambda w: (votes[w], events_of[w])))
    return InterestMap(_tell_apart(words, groups, names), of_node[node_of_item], themes)


def link_themes(domains: Sequence[str], events: np.ndarray, offsets: np.ndarray, linking: Linking) -> list[list[int]]:
    """Groups of nodes, at most one a domain, most strongly tied pairs first.

    The tie of two nodes is how far their count side by side exceeds what chance gives, in standard deviations of a
    Poisson count.

    Args:
        domains: domain of each node.
        events: int64, node of each event, negative where it has none.
        offsets: int64 `[U + 1]`.
    """
    members = {node: [node] for node in range(len(domains))}
    if len(set(domains)) > 1:
        counts = symmetrize(count_window(events, offsets, linking.window, len(domains))).tocoo()
        total = counts.data.sum()
        share = np.bincount(counts.row, counts.data, minlength=len(domains))
        expected = share[counts.row] * share[counts.col] / max(total, 1)
        strength = (counts.data - expected) / np.sqrt(expected + 1)
        kind = np.unique(np.array(domains), return_inverse=True)[1]
        kept = (
            (counts.row < counts.col)
            & (kind[counts.row] != kind[counts.col])
            & (counts.data >= linking.min_count)
            & (counts.data >= linking.min_lift * expected)
        )
        row, col, strength = counts.row[kept], counts.col[kept], strength[kept]
        home = list(range(len(domains)))
        for pair in np.lexsort((col, row, -strength)).tolist():
            first, second = home[row[pair]], home[col[pair]]
            if first == second or {domains[n] for n in members[first]} & {domains[n] for n in members[second]}:
                continue
            for node in members[second]:
                home[node] = first
            members[first] += members.pop(second)
    return [sorted(group) for group in members.values()]


def _tell_apart(words: Sequence[str], groups: Sequence[Sequence[int]], names: Sequence[tuple[str, str]]) -> list[str]:
    """Interests that would share a name say which themes they hold as well; what is alike even then is numbered."""
    twice = {word for word, count in Counter(words).items() if count > 1}
    named = [
        word if word not in twice else f"{word} ({', '.join(f'{names[n][0]}: {names[n][1]}' for n in group)})"
        for word, group in zip(words, groups, strict=True)
    ]
    taken: set[str] = set()
    for i, word in enumerate(named):
        number = 2
        while named[i] in taken:
            named[i], number = f"{word} {number}", number + 1
        taken.add(named[i])
    return named


def live_interest(window: Sequence[int]) -> tuple[int, int]:
    """The interest seen most often in a window of recent events (oldest first), and how often; ties go to the newest.

    `UNKNOWN` and 0 where the window knows none.
    """
    counts: dict[int, int] = {}
    best, most = UNKNOWN, 0
    for interest in window:
        if interest >= 0:
            count = counts.get(interest, 0) + 1
            counts[interest] = count
            if count >= most:
                best, most = interest, count
    return best, most
