"""Step one of recommendation evaluation: every query's candidates, written to disk as they come.

Queries are cut into chunks; a chunk is one file, written whole. Whoever runs again after a kill generates the missing
chunks only, and several processes share the chunks, so the candidates are those of one process. What is stored are
codes, scores and traces: scoring them again needs a catalog and no model.

Notation: `Q` queries, `K` beams, `N` traces a query, `L` levels.
"""

from __future__ import annotations

import math
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from onereason.decoding.beam import BeamResult
from onereason.decoding.recommender import Recommender
from onereason.decoding.stems import check_prompt_lengths
from onereason.decoding.think import SamplingConfig
from onereason.errors import DataError, StorageError
from onereason.evaluation.indicators import compute_loglikelihoods
from onereason.evaluation.processes import Processes
from onereason.evaluation.queries import Queries
from onereason.io import atomic_file, read_json, write_json
from onereason.itemic.filters import build_filter

RUN_FILE = "run.json"
MAX_CHUNK, MIN_CHUNKS = 512, 16
"""Queries a file at most, and files a mode at least: what a killed run loses, and what a process takes at a time."""
SCHEMA: dict[str, Any] = {
    "query": pl.Int64,
    "trace": pl.Int64,
    "codes": pl.List(pl.Int32),
    "scores": pl.List(pl.Float32),
    "text": pl.String,
    "trace_tokens": pl.Int64,
    "closed": pl.Boolean,
    "prompt_tokens": pl.Int64,
    "seconds": pl.Float64,
    "loglikelihoods": pl.List(pl.Float64),
}
"""Columns of a chunk; one row a query, or a query and trace.

`codes` holds `K * L` codes, the best beam first; `text`, `trace_tokens` and `closed` tell of the trace (null, 0 and
true without thinking); `loglikelihoods` the first target's along the trace (see `onereason.evaluation.indicators`).
"""


@dataclass(frozen=True)
class GenerationConfig:
    """What decides over the candidates, and so must be equal where a run goes on."""

    num_beams: int = 20
    """Beams a query, or a trace."""
    num_traces: int = 1
    """Traces a query in mode `think`."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How traces are sampled."""
    restricted: bool = False
    """Scores are normalised over each level's codes instead of the vocabulary."""
    exclude_seen: bool = False
    """Items of the history are not searched."""
    indicators: bool = False
    """Also computes the likelihood of the first target along each trace."""
    seed: int = 0
    """Of the traces."""
    batch_size: int = 128
    """Prompts decoded at once."""


def open_store(folder: Path, fingerprint: Mapping[str, Any], overwrite: bool) -> None:
    """Makes the folder of the candidates, or goes on with one of an equal run.

    Raises:
        StorageError: it holds the candidates of another run, or files that are not candidates.
    """
    path = folder / RUN_FILE
    if folder.exists() and not path.is_file() and any(folder.iterdir()):
        raise StorageError(f"{folder} exists and holds no candidates; choose another --out or move it away.")
    if path.is_file():
        before = read_json(path, "record of an evaluation")
        different = sorted(k for k in {*before, *fingerprint} if before.get(k) != fingerprint.get(k))
        if not different:
            return
        if not overwrite:
            raise StorageError(
                f"{folder} holds the candidates of another run ({', '.join(different)} differ); choose another --out, "
                "or pass --overwrite to replace them."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, fingerprint)


def render_prompts(
    recommender: Recommender, queries: Queries, modes: Sequence[str], config: GenerationConfig
) -> dict[str, list[np.ndarray]]:
    """The prompts of every query in every mode.

    Raises:
        ConfigError: a prompt that leaves no room for trace and answer, or mode `think` where there is none.
        ModelError: the tokenizer has no think tokens.
    """
    domains = [recommender.trie.domains[domain] for domain in queries.domains.tolist()]
    found = {}
    for mode in modes:
        found[mode] = [
            np.asarray(recommender.render(history, domain, mode), np.int32)
            for history, domain in zip(queries.histories, domains, strict=True)
        ]
        longest = max(map(len, found[mode]))
        check_prompt_lengths(recommender.model, longest, _tokens_behind(recommender, mode, config))
    return found


def generate(
    recommender: Recommender,
    queries: Queries,
    prompts_of_mode: Mapping[str, list[np.ndarray]],
    config: GenerationConfig,
    folder: Path,
    processes: Processes,
) -> None:
    """Writes every chunk of every mode that is not there yet, this process's share of them."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console, quiet = Console(stderr=True), not sys.stderr.isatty() or not processes.is_main
    for mode, prompts in prompts_of_mode.items():
        lengths = np.array([len(prompt) for prompt in prompts])
        order = np.argsort(-lengths, kind="stable")  # of like lengths, so little is padding; the longest first
        mine = processes.share(list(_chunks(folder, mode, order)))
        missing = [(path, rows) for path, rows in mine if not path.is_file()]
        with Progress(*columns, TimeRemainingColumn(), console=console, disable=quiet, transient=True) as progress:
            bar = progress.add_task(mode, total=sum(len(rows) for _, rows in mine))
            progress.advance(bar, sum(len(rows) for path, rows in mine if path.is_file()))
            for path, rows in missing:
                parts = []
                for start in range(0, len(rows), config.batch_size):
                    batch = rows[start : start + config.batch_size]
                    decode = partial(_think if mode == "think" else _answer, recommender, queries, config)
                    parts.append(decode(batch, [prompts[row] for row in batch]))
                    progress.advance(bar, len(batch))
                with atomic_file(path) as temporary:
                    pl.concat(parts).write_parquet(temporary)


def load_candidates(folder: Path, mode: str, num_queries: int) -> pl.DataFrame:
    """All chunks of a mode, sorted by query and trace.

    Raises:
        DataError: chunks are missing, broken, or hold a query twice.
    """
    paths = sorted(folder.glob(f"{mode}-*.parquet"))
    if not paths:
        raise DataError(f"{folder} holds no candidates of mode {mode!r}; run the evaluation without --rescore first.")
    try:
        table = pl.concat([pl.read_parquet(path) for path in paths]).sort("query", "trace")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"the candidates in {folder} cannot be read: {error}; remove the broken file.") from error
    if dict(table.schema) != SCHEMA:
        raise DataError(f"the candidates in {folder} have other columns than this version writes; generate them again.")
    found = table.filter(pl.col("trace") == 0)["query"].to_numpy()
    if not np.array_equal(found, np.arange(num_queries)):
        raise DataError(
            f"{folder} holds candidates of {len(np.unique(found))} of {num_queries} queries in mode {mode!r}; "
            "run the evaluation again without --rescore: it generates what is missing."
        )
    return table


def peak_memory_mib(device: torch.device | str = "cpu") -> float:
    """The largest memory so far: the GPU's allocations where the model is on one, else the process's resident set."""
    if torch.device(device).type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _chunks(folder: Path, mode: str, order: np.ndarray) -> Iterator[tuple[Path, np.ndarray]]:
    size = min(MAX_CHUNK, math.ceil(len(order) / MIN_CHUNKS))  # of the number of queries alone: equal in every run
    for number, start in enumerate(range(0, len(order), size)):
        yield folder / f"{mode}-{number:05d}.parquet", order[start : start + size]


def _tokens_behind(recommender: Recommender, mode: str, config: GenerationConfig) -> int:
    behind = recommender.trie.num_levels
    if mode == "think":
        behind += config.sampling.max_new_tokens + len(recommender.think_ids.closing) + 1
    return behind


def _answer(
    recommender: Recommender, queries: Queries, config: GenerationConfig, rows: np.ndarray, prompts: list[np.ndarray]
) -> pl.DataFrame:
    """Candidates without thinking."""
    start = time.perf_counter()
    node_filter = _seen_filter(recommender, queries, config, rows)
    result = recommender.search(
        prompts, _domains(recommender, queries, rows), config.num_beams, node_filter, config.restricted
    )
    codes, scores = _codes(recommender, result)
    seconds = time.perf_counter() - start
    return pl.DataFrame(
        {
            "query": rows,
            "trace": np.zeros(len(rows), np.int64),
            "codes": codes,
            "scores": scores,
            "text": [None] * len(rows),
            "trace_tokens": np.zeros(len(rows), np.int64),
            "closed": np.ones(len(rows), bool),
            "prompt_tokens": [len(prompt) for prompt in prompts],
            "seconds": np.full(len(rows), seconds / len(rows)),
            "loglikelihoods": [None] * len(rows),
        },
        schema=SCHEMA,
    )


def _think(
    recommender: Recommender, queries: Queries, config: GenerationConfig, rows: np.ndarray, prompts: list[np.ndarray]
) -> pl.DataFrame:
    """Candidates behind sampled traces; a trace's seed is the run's, the query's number and the trace's number."""
    start = time.perf_counter()
    num = config.num_traces
    domains = _domains(recommender, queries, rows)
    seeds = [[[config.seed, int(row), trace] for trace in range(num)] for row in rows]
    node_filter = _seen_filter(recommender, queries, config, rows)
    traces, result = recommender.think(
        prompts, domains, seeds, config.num_beams, config.sampling, node_filter, config.restricted
    )
    codes, scores = _codes(recommender, result)
    seconds = time.perf_counter() - start
    token_ids = traces.lists()
    flat = [trace for of_query in token_ids for trace in of_query]
    loglikelihoods: Sequence[list[float] | None] = [None] * len(flat)
    if config.indicators:
        loglikelihoods = compute_loglikelihoods(
            recommender,
            [prompt for prompt in prompts for _ in range(num)],
            flat,
            [int(queries.targets[row][0]) for row in rows for _ in range(num)],
            [queries.histories[row] for row in rows for _ in range(num)],
            [domain for domain in domains for _ in range(num)],
        )
    return pl.DataFrame(
        {
            "query": np.repeat(rows, num),
            "trace": np.tile(np.arange(num), len(rows)),
            "codes": codes,
            "scores": scores,
            "text": recommender.prompt.tokenizer.batch_decode(flat),
            "trace_tokens": [len(trace) for trace in flat],
            "closed": traces.closed.flatten().cpu().numpy(),
            "prompt_tokens": np.repeat([len(prompt) for prompt in prompts], num),
            "seconds": np.full(len(flat), seconds / len(flat)),
            "loglikelihoods": loglikelihoods,
        },
        schema=SCHEMA,
    )


def _domains(recommender: Recommender, queries: Queries, rows: np.ndarray) -> list[str]:
    return [recommender.trie.domains[domain] for domain in queries.domains[rows].tolist()]


def _seen_filter(recommender: Recommender, queries: Queries, config: GenerationConfig, rows: np.ndarray) -> Any:
    if not config.exclude_seen:
        return None
    return build_filter(recommender.trie, deny=[queries.histories[row] for row in rows])


def _codes(recommender: Recommender, result: BeamResult) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The codes `[K * L]` and scores `[K]` of each row's beams; beams that do not exist are left out."""
    starts = np.array([recommender.vocabulary.level_start(level) for level in range(recommender.trie.num_levels)])
    codes = (result.sequences.cpu().numpy() - starts).astype(np.int32)
    scores, valid = result.scores.float().cpu().numpy(), result.valid.cpu().numpy()
    return (
        [row[keep].ravel() for row, keep in zip(codes, valid, strict=True)],
        [row[keep] for row, keep in zip(scores, valid, strict=True)],
    )
