"""Relational granularity: item -> explanation -> item -> ... (OneReason, Eq. 2).

One hop is an association, several are an interest flow. Associations come from three sources:

- `next`: what users took directly after an item (item-to-next-item collaborative filtering);
- `cross_domain`: what users took in another domain within a time window after it;
- `search`: what users took out of a search directly after it.

A pair is kept if enough users show it and one sentence can bridge the themes of its items: one theme, or themes that
occur together more often than by chance.

Notation: `M` pairs.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from data_builders.common import Row
from data_builders.engine import Reject
from data_builders.pretraining.material import Material, free_row, qa_row
from onereason.cognition.associations import (
    count_next,
    count_within_seconds,
    keep_at_least,
    share_a_bridge,
    to_pairs,
    top_partners,
)
from onereason.cognition.streams import Stream

TASK = "relational"
NEXT, CROSS_DOMAIN, SEARCH = "next", "cross_domain", "search"


@dataclass(frozen=True)
class RelationOptions:
    """What counts as an association."""

    min_support: int = 2
    """Users that must show a pair."""
    max_partners: int = 3
    """Pairs kept of one item and source, those of most users first."""
    window_seconds: int = 86_400
    """Between the two items of a cross-domain pair."""
    max_hops: int = 4
    """Of an interest flow."""


@dataclass(frozen=True)
class Pairs:
    """Associations: int64 `[M]` sources and targets, the relation of each, and the search between them, or ''."""

    sources: np.ndarray
    targets: np.ndarray
    relations: list[str]
    searches: list[str]

    def __len__(self) -> int:
        return len(self.relations)


def find_pairs(material: Material, options: RelationOptions) -> tuple[Pairs, dict[str, int]]:
    """The associations of all sources, and how many were left out, by reason."""
    size = len(material.patterns)
    left_out: dict[str, int] = {}
    parts: list[Pairs] = []
    found = count_next(material.items, material.offsets, size, once_per_user=True)
    parts.append(_select(material, found, NEXT, options, left_out))
    several = len(np.unique(material.domain_numbers)) > 1
    if material.timestamps is None or not several:
        left_out[f"{CROSS_DOMAIN}_without_{'dates' if several else 'domains'}"] = 1
    else:
        found = count_within_seconds(
            material.items,
            material.offsets,
            material.timestamps,
            options.window_seconds,
            size,
            different=material.domain_numbers[material.items],
            once_per_user=True,
        )
        parts.append(_select(material, found, CROSS_DOMAIN, options, left_out))
    if material.searches is None:
        left_out[f"{SEARCH}_not_logged"] = 1
    else:
        parts.append(_searches(material, options, left_out))
    pairs = Pairs(
        np.concatenate([part.sources for part in parts]),
        np.concatenate([part.targets for part in parts]),
        [relation for part in parts for relation in part.relations],
        [search for part in parts for search in part.searches],
    )
    return pairs, left_out


def _select(
    material: Material, counts: sp.csr_matrix, relation: str, options: RelationOptions, left_out: dict[str, int]
) -> Pairs:
    """The pairs of a source with enough users and a bridge, the best of each item."""
    supported = keep_at_least(counts, options.min_support)
    sources, targets, values = to_pairs(supported)
    bridged = share_a_bridge(sources, targets, material.theme_of, material.theme_lift, material.min_lift)
    kept = sp.csr_matrix((values[bridged], (sources[bridged], targets[bridged])), shape=counts.shape)
    partners, _ = top_partners(kept, options.max_partners)
    rows, places = np.nonzero(partners >= 0)
    left_out |= {
        f"{relation}_pair_of_too_few_users": counts.nnz - supported.nnz,
        f"{relation}_pair_without_bridge": int((~bridged).sum()),
        f"{relation}_pair_beyond_partners": kept.nnz - len(rows),
    }
    return Pairs(rows, partners[rows, places], [relation] * len(rows), [""] * len(rows))


def _searches(material: Material, options: RelationOptions, left_out: dict[str, int]) -> Pairs:
    """Pairs of an item and one taken out of a search directly after it, with what was typed the first time.

    What was typed is the bridge, so that themes need none and one user is enough.
    """
    assert material.searches is not None
    size = len(material.patterns)
    typed = np.flatnonzero(np.fromiter(map(bool, material.searches), bool, len(material.searches)))
    follows = typed[~np.isin(typed, material.offsets)]  # the first interaction of a user follows nothing
    sources, targets = material.items[follows - 1], material.items[follows]
    follows = follows[sources != targets]
    keys = material.items[follows - 1] * size + material.items[follows]
    pairs, first, support = np.unique(keys, return_index=True, return_counts=True)
    counts = sp.csr_matrix((support, (pairs // size, pairs % size)), shape=(size, size))
    partners, _ = top_partners(counts, options.max_partners)
    rows, places = np.nonzero(partners >= 0)
    found = partners[rows, places]
    left_out |= {
        f"{SEARCH}_after_nothing_or_itself": len(typed) - len(follows),
        f"{SEARCH}_pair_beyond_partners": len(pairs) - len(rows),
    }
    at = follows[first[np.searchsorted(pairs, rows * size + found)]].tolist()
    return Pairs(rows, found, [SEARCH] * len(rows), [material.searches[place] for place in at])


# -- the section ----------------------------------------------------------------------------------------------------


@dataclass
class RelationalSection:
    """First the pairs, then interest flows along the `next` pairs, one from each item that has two hops.

    Attributes:
        material: items and histories.
        options: what counts as an association.
        pairs: pair of each unit.
        following: item -> the items that follow it, most users first.
        starts: item each further unit starts from.
    """

    material: Material
    options: InitVar[RelationOptions]
    name: str = TASK
    pairs: Pairs = field(init=False)
    following: dict[int, list[int]] = field(init=False)
    starts: list[int] = field(init=False)
    max_hops: int = field(init=False)
    left_out: dict[str, int] = field(init=False)

    def __post_init__(self, options: RelationOptions) -> None:
        self.pairs, self.left_out = find_pairs(self.material, options)
        self.max_hops = options.max_hops
        self.following = {}
        for at, relation in enumerate(self.pairs.relations):
            if relation == NEXT:
                self.following.setdefault(int(self.pairs.sources[at]), []).append(int(self.pairs.targets[at]))
        self.starts = [item for item in self.following if len(self.flow(item, 2)) > 2]

    @property
    def num_units(self) -> int:
        return len(self.pairs) + len(self.starts)

    def flow(self, start: int, hops: int) -> list[int]:
        """Up to `hops` steps, each to the best partner whose pattern has not been met."""
        patterns = self.material.patterns
        found, met = [start], {patterns[start]}
        while len(found) <= hops:
            partners = self.following.get(found[-1], ())
            step = next((item for item in partners if patterns[item] not in met), None)
            if step is None:
                break
            found.append(step)
            met.add(patterns[step])
        return found

    def rows_of(self, unit: int, rows: list[Row], rejects: list[Reject]) -> None:
        if unit < len(self.pairs):
            rows += self.pair_rows(unit)
        else:
            rows += self.flow_rows(self.starts[unit - len(self.pairs)])

    def bridge(self, source: int, target: int, relation: str, search: str, stream: Stream) -> str:
        """The sentence from one item to the other, from what is known of both."""
        material = self.material
        theme, other = material.themes[source], material.themes[target]
        if relation == SEARCH:
            return material.wording("relational.bridge.search", stream).format(search=search)
        fields = {"source": theme, "target": other, "theme": theme}
        if relation == CROSS_DOMAIN:
            fields["source_nouns"] = material.nouns[material.domains[source]][1]
            fields["target_nouns"] = material.nouns[material.domains[target]][1]
            kind = "cross_same" if theme == other else "cross"
        elif theme != other:
            kind = "themes"
        else:
            traits = material.traits[source]
            shared = [name for name, value in material.traits[target].items() if traits.get(name) == value]
            kind = "same_theme"
            if shared:
                name, kind = stream.pick(shared), "same_theme_and_trait"
                fields |= {"name": material.trait_nouns[name], "value": traits[name]}
        return material.wording(f"relational.bridge.{kind}", stream).format(**fields)

    def pair_rows(self, pair: int) -> list[Row]:
        """An association, n = 1."""
        material = self.material
        source, target = int(self.pairs.sources[pair]), int(self.pairs.targets[pair])
        relation = self.pairs.relations[pair]
        stream = material.stream(300, pair)
        bridge = self.bridge(source, target, relation, self.pairs.searches[pair], stream)
        domain = material.domains[target]
        fields = {
            "source": material.patterns[source],
            "noun": material.nouns[material.domains[source]][0],
            "target_nouns": material.nouns[domain][1],
            "bridge": bridge,
            "target": material.patterns[target],
        }
        asked = "cross_question" if relation == CROSS_DOMAIN else "question"
        question, answer, free = (material.wording(f"relational.{part}", stream) for part in (asked, "answer", "free"))
        row_id = f"{TASK}:{relation}:{pair}:{material.item_ids[source]}:{material.item_ids[target]}"
        return [
            qa_row(row_id, TASK, [question.format(**fields), answer.format(**fields)]) | {"domain": domain},
            free_row(row_id, TASK, free.format(**fields)) | {"domain": domain},
        ]

    def flow_rows(self, start: int) -> list[Row]:
        """An interest flow, n > 1."""
        material = self.material
        stream = material.stream(301, start)
        items = self.flow(start, stream.between(2, self.max_hops))
        hop = material.text("relational.answer")
        lines = [
            hop.format(bridge=self.bridge(a, b, NEXT, "", stream), target=material.patterns[b])
            for a, b in pairwise(items)
        ]
        noun = material.nouns[material.domains[start]][0]
        question = material.wording("relational.flow.question", stream)
        fields = {"source": material.patterns[start], "noun": noun, "hops": len(lines)}
        row_id = f"{TASK}:flow:{material.item_ids[start]}"
        domain = {"domain": material.domains[items[-1]]}
        told = "\n".join(lines)
        free = material.wording("relational.flow.free", stream).format(**fields)
        return [
            qa_row(row_id, TASK, [question.format(**fields), told]) | domain,
            free_row(row_id, TASK, f"{free}\n{told}") | domain,
        ]
