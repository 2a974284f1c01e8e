"""Recommendation evaluation of a model folder: generate, extract, score, aggregate.

Candidates are generated once and stored (`candidates`); everything after that is computed from what is stored
(`recommendation`). Baselines answer the same queries under the same rules.

Notation: `Q` queries, `K` beams (also the number of ranks), `N` items.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from onereason.config import check_seed
from onereason.data.prompts import MODES
from onereason.data.timelines import Split, Timelines
from onereason.decoding.merging import MERGES
from onereason.decoding.recommender import Recommender
from onereason.decoding.think import SamplingConfig
from onereason.errors import ConfigError
from onereason.evaluation.baselines import Baselines, fit_baselines
from onereason.evaluation.candidates import (
    MACHINE_FILE,
    GenerationConfig,
    generate,
    load_candidates,
    peak_memory_mib,
    render_prompts,
)
from onereason.evaluation.extract import extract_cited_items, history_validity, legality
from onereason.evaluation.indicators import NUM_SEGMENTS
from onereason.evaluation.processes import Processes
from onereason.evaluation.queries import Queries, build_queries, choose_examples, select_domains, target_signals
from onereason.evaluation.recommendation import (
    BASELINES,
    SYSTEM_OF_MODE,
    RankedLists,
    extract_candidates,
    race_candidates,
    rank_baselines,
    rank_candidates,
    score,
)
from onereason.evaluation.scores.expansion import POLICIES
from onereason.evaluation.scores.metrics import compute_hits
from onereason.io import read_json, write_json
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ANY_DOMAIN
from onereason.itemic.trie import build_catalog_trie, domain_positions
from onereason.itemic.vocabulary import ItemicVocabulary

TASK, TASK_VERSION = "recommendation", 2


@dataclass(frozen=True)
class EvaluationConfig:
    """How a model is evaluated."""

    split: str = "test"
    """`validation` or `test`."""
    num_beams: int = 20
    """Beams a query (or a trace); also how many ranks every list has."""
    cutoffs: tuple[int, ...] = (5, 10)
    """The `k` of recall and NDCG."""
    batch_size: int = 128
    """Prompts decoded at once."""
    max_users: int | None = None
    """Evaluate this many users, drawn with `seed`; all of them when None."""
    domains: tuple[str, ...] = ()
    """Of the users' queries, those for items of these domains are asked; all when empty."""
    seed: int = 0
    """Draws users, traces and bootstrap samples."""
    exclude_seen: bool = False
    """Items of the history stand in no system's list: full ranking over the items a user has not met."""
    modes: tuple[str, ...] = ("no_think",)
    """Of `no_think`, `think`, `race`; the race needs both others."""
    num_traces: int = 1
    """Traces a query in mode `think`."""
    merge: str = "sum"
    """How the candidates of several traces become one list (`onereason.decoding.merging.MERGES`)."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How traces are sampled."""
    restricted: bool = False
    """Scores are normalised over each level's codes instead of the vocabulary."""
    indicators: bool = False
    """Also measures what each trace does to the likelihood of the target (Eq. 22-23)."""
    policy: str = "all"
    """How sids become items (`onereason.evaluation.scores.expansion.POLICIES`)."""
    weight_signal: str | None = None
    """A signal of the interactions, by which targets are weighted in `weighted_recall_at_k`."""

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
        if self.num_traces < 1:
            raise ConfigError(f"num_traces must be at least 1, got {self.num_traces}.")
        unknown = [mode for mode in self.modes if mode not in SYSTEM_OF_MODE]
        if unknown or not self.modes or len(set(self.modes)) < len(self.modes):
            raise ConfigError(f"modes must be some of {', '.join(SYSTEM_OF_MODE)}, each once; got {list(self.modes)}.")
        if "race" in self.modes and not set(MODES) <= set(self.modes):
            raise ConfigError("mode race takes candidates of both others; pass --modes no_think,think,race.")
        if "race" in self.modes and self.num_beams < 2:
            raise ConfigError(f"mode race takes half of its ranks from each mode; num_beams is {self.num_beams}.")
        for name, value, known in (("merge", self.merge, MERGES), ("policy", self.policy, POLICIES)):
            if value not in known:
                raise ConfigError(f"{name} {value!r} is not known; use {', '.join(known)}.")
        if self.num_traces > 1 and self.sampling.temperature == 0:
            raise ConfigError(
                f"temperature 0 gives {self.num_traces} equal traces; leave --num-traces at 1 or raise --temperature."
            )
        if self.indicators and "think" not in self.modes:
            raise ConfigError("indicators are measured on traces; pass --modes think or no_think,think.")

    @property
    def generated_modes(self) -> list[str]:
        """The modes that need a model; the race is made of their candidates."""
        return [mode for mode in MODES if mode in self.modes]

    @property
    def generation(self) -> GenerationConfig:
        """What of it decides over the candidates."""
        return GenerationConfig(**{f.name: getattr(self, f.name) for f in fields(GenerationConfig)})

    def record(self, mode: str) -> dict[str, Any]:
        """What of it a mode's stored candidates depend on, as JSON."""
        found = {name: getattr(self, name) for name in ("split", "max_users")} | asdict(self.generation)
        found["domains"] = list(self.domains)
        del found["batch_size"]
        if mode == "no_think":
            del found["sampling"], found["num_traces"], found["indicators"]
            if self.max_users is None:
                del found["seed"]
        return found | {"task": TASK, "task_version": TASK_VERSION}

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with `cutoffs` under the name of its argument."""
        found = asdict(self)
        return found | {"k": list(found.pop("cutoffs")), "modes": list(self.modes), "domains": list(self.domains)}


@dataclass(frozen=True)
class Problem:
    """What is asked of every system; build it with `build_problem`."""

    queries: Queries
    baselines: Baselines
    domains: tuple[str, ...]
    counts: dict[str, int]
    weights: list[np.ndarray] | None
    user_names: list[str]


def build_problem(
    catalog: Catalog,
    timelines: Timelines,
    split: Split,
    config: EvaluationConfig,
    max_history: int,
    signal: np.ndarray | None = None,
) -> Problem:
    """Queries and baselines of one part of a split.

    Args:
        max_history: items that a prompt shows; histories stay whole, and those that are longer are counted.
        signal: aligned with `timelines.items`; weighs targets.
    """
    domains, item_domain = domain_positions(catalog)
    examples = choose_examples(split, config.split, config.max_users, config.seed)
    queries = build_queries(examples, item_domain)
    if config.domains:
        queries = select_domains(queries, config.domains, domains)
    baselines = fit_baselines(split.train, item_domain)
    with_example = len(split.examples(config.split))
    counts = {
        "users": len(timelines),
        "users_with_example": with_example,
        "users_without_example": len(timelines) - with_example,
        "users_evaluated": len(np.unique(queries.users)),
        "queries": len(queries),
        "queries_with_empty_history": int((queries.history_lengths == 0).sum()),
        "queries_with_truncated_history": int((queries.history_lengths > max_history).sum()),
        "targets_unseen_in_training": sum(int((baselines.popularity[t] == 0).sum()) for t in queries.targets),
        "items": len(catalog),
    }
    weights = None if signal is None else target_signals(queries, timelines, signal)
    if weights is not None:
        counts["queries_with_a_weight"] = sum(bool(w.sum() > 0) for w in weights)
        if not counts["queries_with_a_weight"]:
            raise ConfigError(
                f"no target of the {config.split} split has a {config.weight_signal!r} above 0; leave out "
                "--weight-signal or name another."
            )
    names = [timelines.user_ids[user] for user in queries.users.tolist()]
    return Problem(queries, baselines, domains, counts, weights, names)


def score_candidates(
    problem: Problem, catalog: Catalog, vocabulary: ItemicVocabulary, config: EvaluationConfig, folder: Path
) -> dict[str, Any]:
    """Stored candidates -> the tables of `results.json`; no model is needed.

    Items under one sid are ordered by their interactions in the training part of this split, so no later interaction
    leaks into the order.
    """
    queries = problem.queries
    trie = build_catalog_trie(catalog, vocabulary, problem.baselines.popularity)
    tables = {
        mode: load_candidates(folder, mode, len(queries), config.num_traces if mode == "think" else 1)
        for mode in config.generated_modes
    }
    candidates = {
        mode: extract_candidates(table, trie, vocabulary, queries, config.num_beams, config.merge)
        for mode, table in tables.items()
    }
    if "race" in config.modes:
        candidates["race"] = race_candidates(trie, candidates["think"], candidates["no_think"], config.num_beams)
    seen = queries.histories if config.exclude_seen else None
    lists = {
        SYSTEM_OF_MODE[mode]: RankedLists(
            rank_candidates(trie, found.leaves, config.num_beams, config.policy, config.seed, seen), found
        )
        for mode, found in candidates.items()
    }
    ranked = rank_baselines(problem.baselines, queries, config.num_beams, seen)
    lists |= {name: RankedLists(ranked[name]) for name in BASELINES}
    scores = score(
        lists,
        queries,
        trie,
        problem.baselines,
        problem.domains,
        config.cutoffs,
        config.seed,
        seen,
        problem.weights,
    )
    counts = problem.counts | {"sids": trie.num_leaves}
    if seen is not None:
        counts["targets_in_the_history"] = sum(
            int(np.isin(target, history).sum()) for target, history in zip(queries.targets, seen, strict=True)
        )
    cost = {SYSTEM_OF_MODE[mode]: _cost(table, counts["users_evaluated"]) for mode, table in tables.items()}
    if "race" in config.modes:
        cost["race"] = {key: cost["model"][key] + cost["think"][key] for key in cost["model"]}
    return {
        "task": TASK,
        "task_version": TASK_VERSION,
        "counts": counts,
        **scores,
        "traces": summarise_traces(tables["think"], queries, catalog) if "think" in tables else None,
        "traces_by_domain": {
            domain: summarise_traces(tables["think"].filter(pl.col("query").is_in(chosen)), queries, catalog)
            for domain, chosen in _queries_by_domain(queries, problem.domains).items()
            if "think" in tables
        },
        "cost": cost,
        "machine": read_json(folder / MACHINE_FILE) if (folder / MACHINE_FILE).is_file() else None,
        "domains_told_apart": ANY_DOMAIN not in problem.domains,
        "examples": choose_shown(lists, tables.get("think"), problem, catalog),
    }


def choose_shown(
    lists: Mapping[str, RankedLists], think: pl.DataFrame | None, problem: Problem, catalog: Catalog
) -> list[dict[str, Any]]:
    """A few queries for the report's reader: where thinking wins, where it loses, where it changes nothing."""
    models = [name for name in lists if name not in BASELINES]
    if think is None:
        return []
    queries = problem.queries
    found = {name: compute_hits(lists[name].items, queries.targets)[0].any(1) for name in models}
    wins = found["think"]
    other = found.get("model", np.zeros_like(wins))
    groups = {
        "only thinking finds it": wins & ~other,
        "only not thinking finds it": other & ~wins,
        "both find it": wins & other,
        "neither finds it": ~wins & ~other,
    }
    if "model" not in found:
        groups = {"thinking finds it": wins, "thinking does not find it": ~wins}
    shown = []
    for title, chosen in groups.items():
        for query in np.flatnonzero(chosen)[:1].tolist():
            trace = think.filter((pl.col("query") == query) & (pl.col("trace") == 0))["text"][0]
            shown.append(
                {
                    "user": problem.user_names[query],
                    "title": title,
                    "history": [_label(catalog, item) for item in queries.histories[query][-5:].tolist()],
                    "targets": [_label(catalog, item) for item in queries.targets[query].tolist()],
                    "trace": trace,
                    "lists": {
                        name: [_label(catalog, item) for item in lists[name].items[query, :5].tolist() if item >= 0]
                        for name in models
                    },
                }
            )
    return shown


def _label(catalog: Catalog, item: int) -> str:
    return f"{catalog.item_ids[item]}: {catalog.captions[item][:100]}".removesuffix(": ")


def summarise_traces(table: pl.DataFrame, queries: Queries, catalog: Catalog) -> dict[str, Any]:
    """Counts of traces, and the indicators of OneReason's Eq. 22-25 where they were measured.

    Legality and history validity are means over the traces that cite an item, and a legal one.
    """
    legal, valid, with_citation = [], [], 0
    for query, text in table.select("query", "text").iter_rows():
        cited = extract_cited_items(text, catalog.format)
        with_citation += bool(cited)
        share = legality(cited, catalog)
        legal += [] if share is None else [share]
        share = history_validity(cited, queries.histories[query].tolist(), catalog)
        valid += [] if share is None else [share]
    found: dict[str, Any] = {
        "traces": table.height,
        "cut_at_the_budget": int((~table["closed"]).sum()),
        "empty": int((table["trace_tokens"] == 0).sum()),
        "mean_tokens": float(table["trace_tokens"].mean() or 0),  # type: ignore[arg-type]
        "with_citation": with_citation,
        "legality": float(np.mean(legal)) if legal else None,
        "history_validity": float(np.mean(valid)) if valid else None,
    }
    measured = table["loglikelihoods"].drop_nulls()
    if len(measured):
        values = np.array(measured.to_list())  # [rows, 1 + cuts]
        found["delta_loglikelihood"] = float((values[:, -1] - values[:, 0]).mean())
        found["loglikelihood_without_trace"] = float(values[:, 0].mean())
        found["loglikelihood_path"] = values[:, 1:].mean(0).tolist()
        found["path_share"] = [part / NUM_SEGMENTS for part in range(NUM_SEGMENTS + 1)]
    return found


def _queries_by_domain(queries: Queries, domains: Sequence[str]) -> dict[str, list[int]]:
    """Domain -> the numbers of its queries; empty where all queries are of one domain."""
    present = np.unique(queries.domains).tolist()
    return {domains[d]: np.flatnonzero(queries.domains == d).tolist() for d in present} if len(present) > 1 else {}


def _cost(table: pl.DataFrame, users: int) -> dict[str, Any]:
    seconds = float(table["seconds"].sum())
    prompt_tokens, trace_tokens = int(table.unique("query")["prompt_tokens"].sum()), int(table["trace_tokens"].sum())
    return {
        "seconds": round(seconds, 3),
        "seconds_per_user": seconds / max(users, 1),
        "prompt_tokens": prompt_tokens,
        "trace_tokens": trace_tokens,
        "tokens_per_user": (prompt_tokens + trace_tokens) / max(users, 1),
    }


def describe_machine(recommender: Recommender, processes: Processes) -> dict[str, Any]:
    """Where and how the candidates were generated."""
    return {
        "peak_memory_mib": peak_memory_mib(recommender.model.device),
        "device": str(recommender.model.device),
        "dtype": str(recommender.model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "processes": processes.world,
    }


def evaluate(
    recommender: Recommender,
    timelines: Timelines,
    split: Split,
    config: EvaluationConfig,
    folder: Path | None = None,
    processes: Processes | None = None,
    signal: np.ndarray | None = None,
    prepare: Callable[[], None] | None = None,
) -> dict[str, Any] | None:
    """Generates what is missing in `folder` (one that is thrown away by default) and scores it.

    Args:
        signal: aligned with `timelines.items`; weighs targets.
        prepare: called in the main process when nothing is left to refuse, before the first candidate is written.

    Returns:
        the tables of `results.json` (see `recommendation.score`); None in a process that is not the main one.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return evaluate(recommender, timelines, split, config, Path(temporary), signal=signal)
    processes = processes or Processes()
    problem = build_problem(recommender.catalog, timelines, split, config, recommender.max_history, signal)
    prompts = render_prompts(recommender, problem.queries, config.generated_modes, config.generation)
    if processes.is_main and prepare is not None:
        prepare()
    processes.wait()
    written = generate(recommender, problem.queries, prompts, config.generation, folder, processes)
    if processes.is_main and (written or not (folder / MACHINE_FILE).is_file()):
        write_json(folder / MACHINE_FILE, describe_machine(recommender, processes))
    processes.wait()
    if not processes.is_main:
        return None
    return score_candidates(problem, recommender.catalog, recommender.vocabulary, config, folder)
