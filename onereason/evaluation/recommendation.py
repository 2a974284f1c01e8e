"""Steps two to four of recommendation evaluation: candidates -> ranked lists -> scores -> tables.

Everything here is a function of stored candidates, a dataset and a catalog. No model is needed.

Notation: `Q` queries, `N` traces a query, `K` beams (also the number of ranks), `L` levels, `k` cut-off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from onereason.decoding.merging import merge_candidates, race
from onereason.evaluation.baselines import Baselines
from onereason.evaluation.queries import Queries, history_stratum, popularity_stratum
from onereason.evaluation.scores.expansion import POLICIES, expand_sids
from onereason.evaluation.scores.metrics import (
    compute_hits,
    compute_metrics,
    compute_target_ranks,
    first_hit_rank,
    ndcg_at_k,
    paired_bootstrap,
    pass_at_k,
    position1_pass_at_k,
    recall_at_k,
    validity_at_k,
    weighted_recall_at_k,
)
from onereason.evaluation.scores.sid_metrics import (
    count_recommendations,
    coverage,
    first_code_entropy,
    gini,
    position_accuracy,
    prefix_recall_at_k,
)
from onereason.itemic.matching import first_code_diversity
from onereason.itemic.trie import ItemTrie
from onereason.itemic.vocabulary import ItemicVocabulary

BASELINES = ("popularity", "markov")
SEEN_BLOCK = 1024
"""Queries from whose lists seen items are taken at once."""
SYSTEM_OF_MODE = {"no_think": "model", "think": "think", "race": "race"}
"""Mode -> the name of its lists in tables."""


@dataclass(frozen=True)
class Candidates:
    """What the model answered in one mode, read from its codes.

    Attributes:
        sequences: int64 `[Q, K, L]`, code token ids of each query's sids, the best first; -1 where a list ends early.
        leaves: int64 `[Q, K]`, the trie's leaves; -1 where a list ends early, or its codes are no sid of the catalog.
    """

    sequences: np.ndarray
    leaves: np.ndarray


@dataclass(frozen=True)
class RankedLists:
    """One system's answers: item indices `[Q, K]`, and of a model its candidates."""

    items: np.ndarray
    candidates: Candidates | None = None


# -- extract ----------------------------------------------------------------------------------------------------------


def extract_candidates(
    table: pl.DataFrame, trie: ItemTrie, vocabulary: ItemicVocabulary, queries: Queries, num_beams: int, merge: str
) -> Candidates:
    """The stored candidates of one mode; several traces of a query are merged (`merge_candidates`)."""
    num_levels, rows = trie.num_levels, table.height
    sequences = np.full((rows, num_beams, num_levels), -1, np.int64)
    scores = np.full((rows, num_beams), -np.inf, np.float32)
    lengths = table["scores"].list.len().to_numpy().astype(np.int64)
    row = np.repeat(np.arange(rows), lengths)
    beam = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    scores[row, beam] = table["scores"].explode(empty_as_null=False).to_numpy()
    starts = np.array([vocabulary.level_start(level) for level in range(num_levels)])
    sequences[row, beam] = table["codes"].explode(empty_as_null=False).to_numpy().reshape(-1, num_levels) + starts
    roots = queries.domains[table["query"].to_numpy()]
    leaves = trie.walk(np.repeat(roots, num_beams), sequences.reshape(-1, num_levels)).reshape(rows, num_beams)
    num_traces = rows // len(queries)
    if num_traces > 1:
        shape = (len(queries), num_traces, num_beams)
        merged, _ = merge_candidates(leaves.reshape(shape), scores.reshape(shape), merge, num_beams)
        return _as_candidates(trie, merged)
    return Candidates(sequences, leaves)


def race_candidates(trie: ItemTrie, think: Candidates, no_think: Candidates, num_beams: int) -> Candidates:
    """Half of the ranks from thinking, then half from not thinking, filled up with the next ones of both (`race`)."""
    leaves, _ = race(think.leaves, no_think.leaves, num_beams - num_beams // 2, num_beams // 2, fill=True)
    return _as_candidates(trie, leaves)


def _as_candidates(trie: ItemTrie, leaves: np.ndarray) -> Candidates:
    paths = trie.paths(np.maximum(leaves, trie.first_leaf).ravel()).reshape(*leaves.shape, trie.num_levels)
    return Candidates(np.where(leaves[..., None] >= 0, paths, -1), leaves)


def rank_candidates(
    trie: ItemTrie, leaves: np.ndarray, k: int, policy: str, seed: int, seen: Sequence[np.ndarray] | None
) -> np.ndarray:
    """Sids `[Q, K]` -> item indices `[Q, k]` by a policy of `expand_sids`, without the items each query has seen."""
    if seen is None:
        return expand_sids(trie, leaves, k, policy, seed)
    # A sid that is permitted may bear seen items too; ranks they would take are looked up beyond `k`.
    return _without_seen(lambda rows, size: expand_sids(trie, leaves[rows], size, policy, seed), k, seen)


def drop_seen(ranked: np.ndarray, seen: Sequence[np.ndarray]) -> np.ndarray:
    """Ranked ids `[Q, R]` without the ids each query has seen; what is left moves up, -1 fills the end."""
    kept = np.where(compute_hits(ranked, seen)[0], -1, ranked)
    # A stable sort by "absent" moves the gaps behind the ids and keeps their order.
    return np.take_along_axis(kept, np.argsort(kept < 0, axis=1, kind="stable"), axis=1)


def rank_baselines(
    baselines: Baselines, queries: Queries, k: int, seen: Sequence[np.ndarray] | None
) -> dict[str, np.ndarray]:
    """Each baseline's item indices `[Q, k]`, without the items each query has seen."""
    last_items = queries.last_items

    def popular(rows: slice, size: int) -> np.ndarray:
        return baselines.rank_popular(queries.domains[rows], size)

    def markov(rows: slice, size: int) -> np.ndarray:
        return baselines.rank_markov(last_items[rows], queries.domains[rows], size)

    ranked = {"popularity": popular, "markov": markov}
    if seen is None:
        return {name: rank(slice(None), k) for name, rank in ranked.items()}
    return {name: _without_seen(rank, k, seen) for name, rank in ranked.items()}


def _without_seen(rank: Callable[[slice, int], np.ndarray], k: int, seen: Sequence[np.ndarray]) -> np.ndarray:
    """The first `k` of ranked lists without what each query has seen: `rank(rows, size)` gives longer ones.

    Blocks of queries bound what is held at once: the lists are longer by the longest history of a block.
    """
    parts = []
    for start in range(0, len(seen), SEEN_BLOCK):
        rows, block = slice(start, start + SEEN_BLOCK), seen[start : start + SEEN_BLOCK]
        parts.append(drop_seen(rank(rows, k + max(map(len, block))), block)[:, :k])
    return np.concatenate(parts)


# -- score and aggregate ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hits:
    """Where a system's lists hold the targets: hits bool `[Q, K]` and distinct targets int64 `[Q]`."""

    hits: np.ndarray
    num_targets: np.ndarray

    def metrics(self, cutoffs: Sequence[int], chosen: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """The means of `compute_metrics` over the chosen queries."""
        return compute_metrics(self.hits[chosen], self.num_targets[chosen], cutoffs)


def score(
    lists: Mapping[str, RankedLists],
    queries: Queries,
    trie: ItemTrie,
    baselines: Baselines,
    domains: Sequence[str],
    cutoffs: Sequence[int],
    seed: int,
    seen: Sequence[np.ndarray] | None = None,
    weights: Sequence[np.ndarray] | None = None,
) -> dict[str, Any]:
    """Lists of every system -> the tables of `results.json`.

    Returns a dictionary with
        metrics: system -> `item` (and, of a model, `sid`) -> metric -> value;
        difference: the model's recall at the largest cut-off minus the best baseline's, with a 95 % interval;
        comparisons: the same of thinking and race against not thinking, at recall and NDCG;
        recall_differences: of thinking and race minus not thinking, at recall of every cut-off;
        recall_differences_by_domain: domain -> the same over its queries; empty where all queries are of one domain;
        details: system -> what else there is to know (see `_details`);
        by_domain, by_history_length, by_popularity, by_crossing: group -> number of queries and item-level metrics of
            each system;
        curves: item-level recall of each system at k = 1 .. K;
        hit_ranks: how many queries have the first model's first hit at rank 1 .. K, and how many have none.
    """
    systems = list(lists)
    models = [name for name in systems if lists[name].candidates is not None]
    hits = {name: Hits(*compute_hits(found.items, queries.targets)) for name, found in lists.items()}
    num_ranks = lists[models[0]].items.shape[1]
    metrics: dict[str, dict[str, Any]] = {name: {"item": hits[name].metrics(cutoffs)} for name in systems}
    details = {}
    for name in systems:
        candidates = lists[name].candidates
        details[name] = _item_details(lists[name].items, queries, cutoffs, len(trie.item_leaf), weights)
        if candidates is not None:
            sid_targets = [trie.item_leaf[target] for target in queries.targets]
            metrics[name]["sid"] = Hits(*compute_hits(candidates.leaves, sid_targets)).metrics(cutoffs)
            details[name] |= _sid_details(candidates, queries, trie, cutoffs)
            details[name]["policies"] = {
                policy: Hits(
                    *compute_hits(
                        rank_candidates(trie, candidates.leaves, num_ranks, policy, seed, seen), queries.targets
                    )
                ).metrics(cutoffs)
                for policy in POLICIES
            }

    def table(chosen: np.ndarray) -> dict[str, Any]:
        return {"queries": int(chosen.sum())} | {name: hits[name].metrics(cutoffs, chosen) for name in systems}

    def differences(chosen: np.ndarray | slice = slice(None)) -> list[dict[str, Any]]:
        recalls = {
            (name, k): recall_at_k(hits[name].hits[chosen], hits[name].num_targets[chosen], k)
            for name in models
            for k in cutoffs
        }
        return [
            _difference(f"recall_at_{k}", name, models[0], recalls[name, k], recalls[models[0], k], seed)
            for name in models[1:]
            for k in cutoffs
        ]

    strata = _strata(queries, baselines, domains)
    ks, largest = list(range(1, num_ranks + 1)), max(cutoffs)
    first = hits[models[0]]
    ranks = first_hit_rank(first.hits)
    recall = {name: recall_at_k(h.hits, h.num_targets, largest) for name, h in hits.items()}
    best = max(BASELINES, key=lambda name: recall[name].mean())
    return {
        "systems": systems,
        "metrics": metrics,
        "difference": _difference(f"recall_at_{largest}", models[0], best, recall[models[0]], recall[best], seed),
        "comparisons": [
            _difference(metric, name, models[0], compute(hits[name]), compute(first), seed)
            for name in models[1:]
            for metric, compute in (
                (f"recall_at_{largest}", lambda h: recall_at_k(h.hits, h.num_targets, largest)),
                (f"ndcg_at_{largest}", lambda h: ndcg_at_k(h.hits, h.num_targets, largest)),
            )
        ],
        "recall_differences": differences(),
        "recall_differences_by_domain": {domain: differences(chosen) for domain, chosen in strata["by_domain"].items()},
        "details": details,
        **{name: {group: table(chosen) for group, chosen in groups.items()} for name, groups in strata.items()},
        "curves": {"k": ks}
        | {name: [float(recall_at_k(h.hits, h.num_targets, k).mean()) for k in ks] for name, h in hits.items()},
        "hit_ranks": {"k": ks, "queries": [int((ranks == k).sum()) for k in ks], "none": int((ranks == 0).sum())},
    }


def _strata(queries: Queries, baselines: Baselines, domains: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Stratum -> group -> bool `[Q]`; groups without a query are left out."""
    present = sorted(set(queries.domains.tolist()))
    strata = {"by_domain": {domains[d]: queries.domains == d for d in present} if len(present) > 1 else {}}
    first_popularity = baselines.popularity[[target[0] for target in queries.targets]]
    for name, (names, group) in (
        ("by_history_length", history_stratum(queries.history_lengths)),
        ("by_popularity", popularity_stratum(first_popularity)),
    ):
        strata[name] = {label: group == i for i, label in enumerate(names) if (group == i).any()}
    strata["by_crossing"] = {}
    if len(domains) > 1:
        met = np.array(
            [
                bool((baselines.item_domain[h] == d).any())
                for h, d in zip(queries.histories, queries.domains, strict=True)
            ]
        )
        only = np.array(
            [
                bool((baselines.item_domain[h] == d).all())
                for h, d in zip(queries.histories, queries.domains, strict=True)
            ]
        )
        groups = {"single domain": only & met, "several domains": met & ~only, "cross domain": ~met}
        strata["by_crossing"] = {name: chosen for name, chosen in groups.items() if chosen.any()}
    return strata


def _item_details(
    items: np.ndarray, queries: Queries, cutoffs: Sequence[int], num_items: int, weights: Sequence[np.ndarray] | None
) -> dict[str, Any]:
    """`pass_at_k`, `position1_pass_at_k`, `weighted_recall_at_k` where weights are given; coverage and Gini.

    A weighted recall is the mean over the queries whose targets have a weight, None where none has.
    """
    hits, _ = compute_hits(items, queries.targets)
    ranks = compute_target_ranks(items, queries.targets)
    counts = count_recommendations(items, num_items)
    found: dict[str, Any] = {}
    for k in cutoffs:
        found[f"pass_at_{k}"] = float(pass_at_k(hits, k).mean())
        found[f"position1_pass_at_{k}"] = float(position1_pass_at_k(ranks, k).mean())
        if weights is not None:
            weighted = np.array([w.sum() > 0 for w in weights])
            values = weighted_recall_at_k(ranks, weights, k)[weighted]
            found[f"weighted_recall_at_{k}"] = float(values.mean()) if len(values) else None
    ranks_filled = float((items >= 0).sum(1).mean())
    return found | {"mean_list_length": ranks_filled, "coverage": coverage(counts), "gini": gini(counts)}


def _sid_details(candidates: Candidates, queries: Queries, trie: ItemTrie, cutoffs: Sequence[int]) -> dict[str, Any]:
    """Validity, recall on the first code, accuracy by token position, diversity and entropy of the first code."""
    sequences = candidates.sequences
    legal, generated = candidates.leaves >= 0, (sequences[..., 0] >= 0).sum(1)
    target_codes = [trie.paths(trie.item_leaf[target]) for target in queries.targets]
    found: dict[str, Any] = {}
    for k in cutoffs:
        found[f"validity_at_{k}"] = float(validity_at_k(legal, k, generated).mean())
        found[f"first_code_recall_at_{k}"] = float(prefix_recall_at_k(sequences, target_codes, k, 1).mean())
    return found | {
        "position_accuracy": position_accuracy(sequences, target_codes).mean(0).tolist(),
        "first_code_diversity": float(first_code_diversity(sequences).mean()),
        "first_code_entropy": first_code_entropy(sequences),
    }


def _difference(
    metric: str, system: str, baseline: str, first: np.ndarray, second: np.ndarray, seed: int
) -> dict[str, Any]:
    difference, low, high = paired_bootstrap(first, second, seed)
    return {
        "metric": metric,
        "system": system,
        "baseline": baseline,
        "difference": difference,
        "low": low,
        "high": high,
    }
