"""Step one of recommendation evaluation: every query's candidates, written to disk as they come.

Queries are cut into chunks; a chunk is one file, written whole. Whoever runs again after a kill generates the missing
chunks only, and several processes share the chunks, so the candidates are those of one process. What is stored are
codes, scores and traces: scoring them again needs a catalog and no model.

Notation: `Q` queries, `K` beams, `N` traces a query, `L` levels.
"""

from __future__ import annotations

import math
import re
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from onereason.data.prompts import MODES
from onereason.decoding.beam import BeamResult
from onereason.decoding.recommender import Recommender
from onereason.decoding.stems import check_prompt_lengths
from onereason.decoding.think import SamplingConfig
from onereason.errors import DataError, StorageError
from onereason.evaluation.indicators import compute_loglikelihoods
from onereason.evaluation.processes import Processes
from onereason.evaluation.queries import Queries
from onereason.io import atomic_file, read_json, require_file, write_json
from onereason.itemic.filters import NodeFilter, build_filter

MACHINE_FILE = "machine.json"
"""Where and how the stored candidates were generated."""
_OURS = re.compile(rf"\.?({'|'.join(MODES)})(-\d+\.parquet|\.json)(\..+)?|\.?{re.escape(MACHINE_FILE)}(\..+)?")
"""Names of the folder's files, and of the temporary ones a killed run leaves."""
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


def record_path(folder: Path, mode: str) -> Path:
    """The file that says what a mode's candidates depend on."""
    return folder / f"{mode}.json"


def check_store(folder: Path, records: Mapping[str, Mapping[str, Any]], overwrite: bool) -> None:
    """Whether candidates may be added to a folder: of an equal run, or `overwrite` drops what is there.

    Args:
        records: mode -> what its candidates depend on.

    Raises:
        StorageError: it holds the candidates of another run, or files that are not candidates.
    """
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} is no folder; choose another --out or move it away.")
    if not folder.exists():
        return
    foreign = sorted(path.name for path in folder.iterdir() if not _OURS.fullmatch(path.name))
    if foreign:
        raise StorageError(
            f"{folder} holds {foreign[0]!r}, which no evaluation wrote; choose another --out or move it away."
        )
    if overwrite:
        return
    for mode, record in records.items():
        path = record_path(folder, mode)
        if not path.is_file():
            if any(folder.glob(f"{mode}-*.parquet")):
                raise StorageError(f"{folder} holds candidates without {path.name}; pass --overwrite to replace them.")
            continue
        different = differing_keys(read_record(folder, mode), record)
        if different:
            raise StorageError(
                f"{folder} holds candidates of another run in mode {mode} ({', '.join(different)} differ); choose "
                "another --out, or pass --overwrite to replace them."
            )


def open_store(folder: Path, records: Mapping[str, Mapping[str, Any]], overwrite: bool) -> None:
    """Makes the folder of the candidates, or goes on with one of an equal run (see `check_store`)."""
    check_store(folder, records, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for path in folder.iterdir():  # all ours, as checked
            path.unlink()
    for mode, record in records.items():
        if not record_path(folder, mode).is_file():
            write_json(record_path(folder, mode), record)


def read_record(folder: Path, mode: str) -> dict[str, Any]:
    """What a mode's stored candidates depend on; `DataError` where there is no record, or a broken one."""
    record = read_json(
        require_file(record_path(folder, mode), "record of stored candidates", "evaluate without --rescore first"),
        "record of stored candidates",
    )
    if not isinstance(record, dict):
        raise DataError(f"{record_path(folder, mode)} is malformed: expected an object, got {type(record).__name__}.")
    return record


def differing_keys(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The keys in which two records differ."""
    return sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))


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
        check_prompt_lengths(recommender.model, longest, _tokens_behind(recommender, mode, config), mode == "think")
    return found


def generate(
    recommender: Recommender,
    queries: Queries,
    prompts_of_mode: Mapping[str, list[np.ndarray]],
    config: GenerationConfig,
    folder: Path,
    processes: Processes,
) -> int:
    """Writes every chunk of every mode that is not there yet (or cannot be read), this process's share of them.

    Returns:
        how many chunks were written.
    """
    written = 0
    for mode, prompts in prompts_of_mode.items():
        lengths = np.array([len(prompt) for prompt in prompts])
        order = np.argsort(-lengths, kind="stable")  # of like lengths, so little is padding; the longest first
        mine = processes.share(list(_chunks(folder, mode, order)))
        missing = [(path, rows) for path, rows in mine if _read_chunk(path) is None]
        with processes.progress() as progress:
            total = sum(len(rows) for _, rows in mine)
            bar = progress.add_task(mode, total=total, completed=total - sum(len(rows) for _, rows in missing))
            for path, rows in missing:
                parts = []
                for start in range(0, len(rows), config.batch_size):
                    batch = rows[start : start + config.batch_size]
                    parts.append(_decode(recommender, queries, config, mode, batch, [prompts[row] for row in batch]))
                    progress.advance(bar, len(batch))
                with atomic_file(path) as temporary:
                    pl.concat(parts).write_parquet(temporary)
                written += 1
    return written


def load_candidates(folder: Path, mode: str, num_queries: int, num_traces: int = 1) -> pl.DataFrame:
    """All chunks of a mode, sorted by query and trace.

    Raises:
        DataError: chunks are missing, broken, or hold a query twice.
    """
    paths = sorted(folder.glob(f"{mode}-*.parquet"))
    if not paths:
        raise DataError(f"{folder} holds no candidates of mode {mode!r}; run the evaluation without --rescore first.")
    chunks = {path.name: _read_chunk(path) for path in paths}
    broken = [name for name, chunk in chunks.items() if chunk is None]
    if broken:
        raise DataError(
            f"{folder / broken[0]} cannot be read as candidates ({len(broken)} broken file(s)); run the evaluation "
            "again without --rescore: it generates them anew."
        )
    table = pl.concat([chunk for chunk in chunks.values() if chunk is not None]).sort("query", "trace")
    expected = pl.DataFrame(
        {
            "query": np.repeat(np.arange(num_queries), num_traces),
            "trace": np.tile(np.arange(num_traces), num_queries),
        }
    )
    if not table.select("query", "trace").equals(expected):
        missing = expected.join(table, on=["query", "trace"], how="anti").height
        raise DataError(
            f"{folder} lacks {missing} of {expected.height} lists of candidates in mode {mode!r}, and holds "
            f"{table.height - expected.height + missing} too many; run the evaluation again without --rescore where "
            "some are missing, with --overwrite where there are too many."
        )
    return table


def _read_chunk(path: Path) -> pl.DataFrame | None:
    """A chunk; None where there is none with the columns and list lengths this version writes."""
    if not path.is_file():
        return None
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError):
        return None
    if dict(table.schema) != SCHEMA:
        return None
    codes, scores = table["codes"].list.len(), table["scores"].list.len()
    levels = int(codes.sum()) // max(int(scores.sum()), 1)
    return table if (codes == scores * levels).all() else None


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


def _decode(
    recommender: Recommender,
    queries: Queries,
    config: GenerationConfig,
    mode: str,
    rows: np.ndarray,
    prompts: list[np.ndarray],
) -> pl.DataFrame:
    """One batch's candidates; a query that has met every item of the domain asked for gets none."""
    num_traces = config.num_traces if mode == "think" else 1
    has_items = np.ones(len(rows), bool)
    node_filter = None
    if config.exclude_seen:
        seen = [queries.histories[row] for row in rows]
        roots = np.array([recommender.trie.root_of(domain) for domain in _domains(recommender, queries, rows)])
        has_items = build_filter(recommender.trie, deny=seen).count_allowed(roots) > 0
        if has_items.any():
            node_filter = build_filter(
                recommender.trie, deny=[s for s, has in zip(seen, has_items, strict=True) if has]
            )
    asked = rows[has_items]
    parts = [_table(rows[~has_items], num_traces)]
    if len(asked):
        write = _think if mode == "think" else _answer
        own = [prompt for prompt, has in zip(prompts, has_items, strict=True) if has]
        parts.append(write(recommender, queries, config, asked, own, node_filter))
    return pl.concat(parts)


def _table(rows: np.ndarray, num_traces: int, **columns: Any) -> pl.DataFrame:
    """Rows of a chunk; columns that are not given say that there are no candidates."""
    count = len(rows) * num_traces
    empty: dict[str, Any] = {
        "query": np.repeat(rows, num_traces),
        "trace": np.tile(np.arange(num_traces), len(rows)),
        "codes": [[]] * count,
        "scores": [[]] * count,
        "text": [None] * count,
        "trace_tokens": [0] * count,
        "closed": [True] * count,
        "prompt_tokens": [0] * count,
        "seconds": [0.0] * count,
        "loglikelihoods": [None] * count,
    }
    return pl.DataFrame(empty | columns, schema=SCHEMA)


def _answer(
    recommender: Recommender,
    queries: Queries,
    config: GenerationConfig,
    rows: np.ndarray,
    prompts: list[np.ndarray],
    node_filter: NodeFilter | None,
) -> pl.DataFrame:
    """Candidates without thinking."""
    start = time.perf_counter()
    domains = _domains(recommender, queries, rows)
    result = recommender.search(prompts, domains, config.num_beams, node_filter, config.restricted)
    codes, scores = _codes(recommender, result)
    seconds = time.perf_counter() - start
    return _table(
        rows,
        1,
        codes=codes,
        scores=scores,
        prompt_tokens=[len(prompt) for prompt in prompts],
        seconds=[seconds / len(rows)] * len(rows),
    )


def _think(
    recommender: Recommender,
    queries: Queries,
    config: GenerationConfig,
    rows: np.ndarray,
    prompts: list[np.ndarray],
    node_filter: NodeFilter | None,
) -> pl.DataFrame:
    """Candidates behind sampled traces; a trace's seed is the run's, the query's number and the trace's number."""
    start = time.perf_counter()
    num = config.num_traces
    domains = _domains(recommender, queries, rows)
    seeds = [[[config.seed, int(row), trace] for trace in range(num)] for row in rows]
    traces, result = recommender.think(
        prompts, domains, seeds, config.num_beams, config.sampling, node_filter, config.restricted
    )
    codes, scores = _codes(recommender, result)
    seconds = time.perf_counter() - start
    flat = [trace for of_query in traces.lists() for trace in of_query]
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
    return _table(
        rows,
        num,
        codes=codes,
        scores=scores,
        text=recommender.prompt.tokenizer.batch_decode(flat),
        trace_tokens=[len(trace) for trace in flat],
        closed=traces.closed.flatten().tolist(),
        prompt_tokens=np.repeat([len(prompt) for prompt in prompts], num),
        seconds=[seconds / len(flat)] * len(flat),
        loglikelihoods=loglikelihoods,
    )


def _domains(recommender: Recommender, queries: Queries, rows: np.ndarray) -> list[str]:
    return [recommender.trie.domains[domain] for domain in queries.domains[rows].tolist()]


def _codes(recommender: Recommender, result: BeamResult) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The codes `[K * L]` and scores `[K]` of each row's beams; beams that do not exist are left out."""
    starts = np.array([recommender.vocabulary.level_start(level) for level in range(recommender.trie.num_levels)])
    codes = (result.sequences.cpu().numpy() - starts).astype(np.int32)
    scores, valid = result.scores.float().cpu().numpy(), result.valid.cpu().numpy()
    return (
        [row[keep].ravel() for row, keep in zip(codes, valid, strict=True)],
        [row[keep] for row, keep in zip(scores, valid, strict=True)],
    )
