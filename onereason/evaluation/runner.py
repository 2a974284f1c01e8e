"""Next-item evaluation of a model folder: generate, score, aggregate.

Generation gives every query a ranked list of items and of sids; scoring turns lists into hits; aggregation turns hits
into the result's tables. Baselines answer the same queries under the same rules.

Notation: `Q` queries, `K` beams (also the number of ranks), `N` items.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from onereason.config import check_seed
from onereason.data.timelines import Split, Timelines
from onereason.decoding.beam import check_prompt_lengths
from onereason.decoding.ranking import rank_items
from onereason.decoding.recommender import Recommender
from onereason.errors import ConfigError
from onereason.evaluation.baselines import fit_baselines
from onereason.evaluation.metrics import compute_hits, compute_metrics, first_hit_rank, paired_bootstrap, recall_at_k
from onereason.evaluation.queries import Queries, build_queries, choose_examples, history_stratum
from onereason.itemic.format import ANY_DOMAIN
from onereason.itemic.trie import ItemTrie, domain_positions

TASK, TASK_VERSION = "next_item", 1
SYSTEMS = ("model", "popularity", "markov")


@dataclass(frozen=True)
class EvaluationConfig:
    """How a model is evaluated."""

    split: str = "test"
    """`validation` or `test`."""
    num_beams: int = 20
    """Beams a query; also how many ranks every list has."""
    cutoffs: tuple[int, ...] = (5, 10)
    """The `k` of recall and NDCG."""
    batch_size: int = 128
    """Prompts decoded at once."""
    max_users: int | None = None
    """Evaluate this many users, drawn with `seed`; all of them when None."""
    seed: int = 0
    """Draws users and bootstrap samples."""
    exclude_seen: bool = False
    """Take items of the history out of every system's list: full ranking over the items a user has not met."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not self.cutoffs or min(self.cutoffs) < 1:
            raise ConfigError(f"k must be at least 1, got {list(self.cutoffs)}.")
        if max(self.cutoffs) > self.num_beams:
            raise ConfigError(
                f"k ({max(self.cutoffs)}) exceeds num_beams ({self.num_beams}), so ranks would be missing; "
                f"pass --num-beams {max(self.cutoffs)} or more, or a lower --k."
            )
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size}.")


@dataclass(frozen=True)
class RankedLists:
    """What the model answered, in the order of the queries.

    Attributes:
        items: item indices int64 `[Q, K]`, -1 where a domain has fewer items.
        leaves: trie leaves (sids) int64 `[Q, K]`, -1 where a domain has fewer sids.
        scores: log-probabilities of the sids float32 `[Q, K]`.
        seconds: wall time of rendering prompts and decoding.
        num_prompt_tokens: tokens of all prompts.
    """

    items: np.ndarray
    leaves: np.ndarray
    scores: np.ndarray
    seconds: float
    num_prompt_tokens: int


def generate(recommender: Recommender, queries: Queries, num_beams: int, batch_size: int) -> RankedLists:
    """Every query's beams, long prompts first so that a batch wastes little padding and memory peaks early."""
    start = time.perf_counter()
    domains = recommender.trie.domains
    prompts = [
        np.asarray(recommender.render(history, domains[domain]), np.int32)
        for history, domain in zip(queries.histories, queries.domains.tolist(), strict=True)
    ]
    lengths = np.array([len(p) for p in prompts])
    check_prompt_lengths(recommender.model, int(lengths.max()), recommender.trie.num_levels)
    order = np.argsort(-lengths, kind="stable")
    items = np.full((len(queries), num_beams), -1, np.int64)
    leaves, scores = items.copy(), np.full(items.shape, -np.inf, np.float32)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), disable=not sys.stderr.isatty(), transient=True) as progress:
        bar = progress.add_task("decoding", total=len(queries))
        for begin in range(0, len(queries), batch_size):
            rows = order[begin : begin + batch_size]
            result = recommender.search(
                [prompts[row] for row in rows], [domains[d] for d in queries.domains[rows].tolist()], num_beams
            )
            items[rows], scores[rows] = rank_items(recommender.trie, result, num_beams)
            leaves[rows] = result.leaves.cpu().numpy()
            progress.advance(bar, len(rows))
    return RankedLists(items, leaves, scores, time.perf_counter() - start, int(lengths.sum()))


def evaluate(recommender: Recommender, timelines: Timelines, split: Split, config: EvaluationConfig) -> dict[str, Any]:
    """Model and baselines on one part of a split -> the tables of `results.json` (see `aggregate`).

    Items under one sid are ordered by their interactions in the training part of this split, so no later interaction
    leaks into the order.
    """
    domains, item_domain = domain_positions(recommender.catalog)
    examples = choose_examples(split, config.split, config.max_users, config.seed)
    queries = build_queries(examples, item_domain)
    baselines = fit_baselines(split.train, item_domain)
    recommender = recommender.with_priority(baselines.popularity)
    answers = generate(recommender, queries, config.num_beams, config.batch_size)

    start = time.perf_counter()
    ranked = {
        "model": answers.items,
        "popularity": baselines.rank_popular(queries.domains, config.num_beams),
        "markov": baselines.rank_markov(queries.last_items, queries.domains, config.num_beams),
    }
    baseline_seconds = time.perf_counter() - start
    leaves = answers.leaves
    if config.exclude_seen:
        ranked = {name: drop_seen(lists, queries.histories) for name, lists in ranked.items()}
        leaves = drop_seen(leaves, [fully_seen_leaves(recommender.trie, history) for history in queries.histories])
    hits = {}
    for name in SYSTEMS:
        hits[name], num_targets = compute_hits(ranked[name], queries.targets)
    sid_targets = [recommender.trie.item_leaf[target] for target in queries.targets]
    sid_hits, num_sid_targets = compute_hits(leaves, sid_targets)

    tables = aggregate(queries, domains, hits, num_targets, sid_hits, num_sid_targets, config)
    lengths = queries.history_lengths
    evaluated = len(np.unique(queries.users))
    return {
        "task": TASK,
        "task_version": TASK_VERSION,
        "counts": {
            "users": len(timelines),
            "users_with_example": len(split.examples(config.split)),
            "users_without_example": len(timelines) - len(split.examples(config.split)),
            "users_evaluated": evaluated,
            "queries": len(queries),
            "queries_with_empty_history": int((lengths == 0).sum()),
            "queries_with_truncated_history": int((lengths > recommender.max_history).sum()),
            "queries_with_fewer_ranks_than_the_largest_k": int((ranked["model"][:, max(config.cutoffs) - 1] < 0).sum()),
            "targets_unseen_in_training": sum(int((baselines.popularity[t] == 0).sum()) for t in queries.targets),
            "items": len(recommender.catalog),
            "sids": recommender.trie.num_leaves,
        },
        **tables,
        "cost": {
            "seconds": round(answers.seconds, 3),
            "users_per_second": round(evaluated / max(answers.seconds, 1e-9), 2),
            "prompt_tokens": answers.num_prompt_tokens,
            "baseline_seconds": round(baseline_seconds, 3),
            "peak_memory_mib": peak_memory_mib(recommender.model.device),
            "device": str(recommender.model.device),
            "dtype": str(recommender.model.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        },
    }


def drop_seen(ranked: np.ndarray, seen: Sequence[np.ndarray]) -> np.ndarray:
    """Ranked ids `[Q, K]` without the ids each query has seen; what is left moves up, -1 fills the end."""
    kept = np.where(compute_hits(ranked, seen)[0], -1, ranked)
    # A stable sort by "absent" moves the gaps behind the ids and keeps their order.
    return np.take_along_axis(kept, np.argsort(kept < 0, axis=1, kind="stable"), axis=1)


def fully_seen_leaves(trie: ItemTrie, history: np.ndarray) -> np.ndarray:
    """The leaves (sids) of which every item stands in the history."""
    leaves, counts = np.unique(trie.item_leaf[np.unique(history)], return_counts=True)
    position = leaves - trie.first_leaf
    return leaves[counts == trie.leaf_start[position + 1] - trie.leaf_start[position]]


def aggregate(
    queries: Queries,
    domains: Sequence[str],
    hits: dict[str, np.ndarray],
    num_targets: np.ndarray,
    sid_hits: np.ndarray,
    num_sid_targets: np.ndarray,
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Hits `[Q, K]` of each system -> means over all queries, by domain and by history length, and curves over k.

    Returns a dictionary with
        metrics: system -> `item` (and, for the model, `sid`) -> metric -> value;
        difference: the model's recall at the largest cut-off minus the best baseline's, with a 95 % interval;
        by_domain, by_history_length: group -> number of queries and item-level metrics of each system;
        curves: item-level recall of each system at k = 1 .. K;
        hit_ranks: how many queries have their first hit at rank 1 .. K, and how many have none.
    """
    cutoffs = config.cutoffs

    def tables(chosen: np.ndarray) -> dict[str, Any]:
        row: dict[str, Any] = {"queries": int(chosen.sum())}
        return row | {s: compute_metrics(hits[s][chosen], num_targets[chosen], cutoffs) for s in SYSTEMS}

    everyone = np.ones(len(queries), bool)
    metrics: dict[str, dict[str, Any]] = {s: {"item": tables(everyone)[s]} for s in SYSTEMS}
    metrics["model"]["sid"] = compute_metrics(sid_hits, num_sid_targets, cutoffs)
    present = sorted(set(queries.domains.tolist()))
    by_domain = {domains[d]: tables(queries.domains == d) for d in present if len(present) > 1}
    names, stratum = history_stratum(queries.history_lengths)
    ks = list(range(1, config.num_beams + 1))
    ranks = first_hit_rank(hits["model"])
    return {
        "metrics": metrics,
        "difference": _difference(hits, num_targets, max(cutoffs), config.seed),
        "by_domain": by_domain,
        "by_history_length": {n: tables(stratum == i) for i, n in enumerate(names) if (stratum == i).any()},
        "curves": {"k": ks, **{s: [float(recall_at_k(hits[s], num_targets, k).mean()) for k in ks] for s in SYSTEMS}},
        "hit_ranks": {"k": ks, "queries": [int((ranks == k).sum()) for k in ks], "none": int((ranks == 0).sum())},
        "domains_told_apart": ANY_DOMAIN not in domains,
    }


def _difference(hits: dict[str, np.ndarray], num_targets: np.ndarray, k: int, seed: int) -> dict[str, Any]:
    """The model against the better baseline, at recall at `k`."""
    recall = {s: recall_at_k(hits[s], num_targets, k) for s in SYSTEMS}
    best = max(SYSTEMS[1:], key=lambda s: recall[s].mean())
    difference, low, high = paired_bootstrap(recall["model"], recall[best], seed)
    return {"metric": f"recall_at_{k}", "baseline": best, "difference": difference, "low": low, "high": high}


def peak_memory_mib(device: torch.device) -> float:
    """The largest memory so far: the GPU's allocations where the model is on one, else the process's resident set."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
