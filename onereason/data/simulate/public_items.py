"""Items of generated public tables: which exist, their ids and codes, and the shards of sids, captions and tags.

An item is a number `i` in its domain; its pid and codes follow from that number alone, so that shards of any size are
made apart. The first few numbers of every domain share their pids: a pid without its domain names no item.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from onereason.data.simulate.public_tables import PublicTables

CODES = 8192
LEVELS = 3
_ODD = 0x9E3779B97F4A7C15
_SHAPES = ("bright", "quiet", "slow", "handmade", "late-night", "budget", "classic", "city", "family", "weekend")
_THINGS = (
    "noodle",
    "running shoe",
    "guitar",
    "skin care",
    "fishing",
    "camera",
    "garden",
    "puzzle game",
    "tea",
    "dance",
)
_KINDS = ("tutorial", "review", "story", "set", "challenge", "guide", "compilation", "offer", "live talk", "diary")
_PHRASES = [f"a {a} {b} {c} for people who like {d}" for a in _SHAPES for b in _THINGS for c in _KINDS for d in _THINGS]
BROKEN = ([1.0, 2.0], [1.0, 2.0, float(CODES)], [1.0, 2.5, 3.0], None)
"""Semantic ids nobody can use, in turns."""
UNKNOWN_DOMAIN = "music"
BROKEN_REASONS = ("wrong_length", "out_of_range", "not_whole", "wrong_length")


@dataclass(frozen=True)
class Universe:
    """The items of a corpus: how many each domain has, in the order of `sizes`.

    `bits` is the size of a pid: 64 where they are hashes, fewer where tables keep them as floating-point numbers.
    """

    sizes: Mapping[str, int]
    bits: int = 64
    shared: int = 0

    @property
    def total(self) -> int:
        return sum(self.sizes.values())

    def pids(self, domain: str, i: np.ndarray) -> np.ndarray:
        """int64 `[N]`; numbers from the domain's size on are pids of no item."""
        start = 0
        for name, size in self.sizes.items():
            if name == domain:
                break
            start += size
        key = np.where(i < self.shared, i, np.where(i < self.sizes[domain], start + i, self.total + start + i))
        key = key.astype(np.uint64) + np.uint64(1)
        return (key * np.uint64(_ODD | 1) & np.uint64(2**self.bits - 1)).view(np.int64)

    def codes(self, domain: str, i: np.ndarray) -> np.ndarray:
        """Codes int64 `[N, L]`; about a third of the items share theirs with another."""
        cluster = _mix(i.astype(np.uint64) + np.uint64(list(self.sizes).index(domain) << 40)) % np.uint64(
            max(1, 2 * self.sizes[domain])
        )
        return np.stack([_mix(cluster * np.uint64(LEVELS) + np.uint64(n)) % np.uint64(CODES) for n in range(LEVELS)], 1)

    def locate(self, positions: np.ndarray, domains: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Domain numbers and item numbers of positions in a shuffled list of these domains' items."""
        total = sum(self.sizes[domain] for domain in domains)
        step = _coprime(total)
        k = (positions.astype(np.uint64) * np.uint64(step) + np.uint64(total // 3)) % np.uint64(total)
        ends = np.cumsum([self.sizes[domain] for domain in domains])
        number = np.searchsorted(ends, k, side="right")
        return number, (k - np.concatenate([[0], ends[:-1]]).astype(np.uint64)[number]).astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    """A well-mixed 64-bit hash (splitmix64)."""
    x = x + np.uint64(_ODD)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _coprime(n: int) -> int:
    step = max(1, int(n * 0.6180339887))
    while np.gcd(step, n) != 1:
        step += 1
    return step


def _ranges(rows: int, size: int) -> Iterator[tuple[int, int]]:
    yield from ((start, min(start + size, rows)) for start in range(0, max(rows, 1), size))


def sid_shards(
    config: PublicTables, universe: Universe, domains: tuple[str, ...], column: str, stream: int, truth: Counter[str]
) -> Iterator[pl.DataFrame]:
    """Shards of a table of semantic ids, with planted rows at the end of each; counts them in `truth`."""
    for start, stop in _ranges(sum(universe.sizes[d] for d in domains), config.rows_per_shard):
        rng = config.rng(stream, start)
        number, i = universe.locate(np.arange(start, stop), domains)
        pids, codes = np.empty(len(i), np.int64), np.empty((len(i), LEVELS), np.float64)
        for n, domain in enumerate(domains):
            of = number == n
            pids[of], codes[of] = universe.pids(domain, i[of]), universe.codes(domain, i[of])
        same = config.draw(rng, "duplicate_sids", len(i))
        other = config.draw(rng, "conflicting_sids", len(i))
        rows = np.concatenate([np.arange(len(i)), same, other])
        codes = np.concatenate([codes, codes[same], (codes[other] + 1) % CODES])
        names = [config.written_domains.get(domain, domain) for domain in domains]
        table = pl.DataFrame({"pid": pids[rows], "domain": pl.Series(names)[number[rows]], column: _lists(codes)})

        num_broken, num_strange = len(config.draw(rng, "broken_sids", len(i))), 0
        if config.written_domains:
            num_strange = len(config.draw(rng, "unknown_domains", len(i)))
        spare = universe.pids(domains[0], universe.total + start + np.arange(num_broken + num_strange))
        kinds = [n % len(BROKEN) for n in range(num_broken)]
        planted = pl.DataFrame(
            {
                "pid": spare,
                "domain": [names[0]] * num_broken + [UNKNOWN_DOMAIN] * num_strange,
                column: [BROKEN[n] for n in kinds] + [[1.0, 2.0, 3.0]] * num_strange,
            },
            schema=table.schema,
        )
        truth["rows"] += len(table) + len(planted)
        truth["usable"] += len(table)
        truth["duplicate"] += len(same)
        truth["conflicting"] += len(other)
        truth["unknown_domain"] += num_strange
        for n in kinds:
            truth[BROKEN_REASONS[n]] += 1
        table = pl.concat([table, planted])
        whole = config.schema == "recif" and not num_broken  # a list of integers cannot hold the broken ones
        kept = ["pid", *(["domain"] if config.written_domains else []), column]
        yield table.select(kept).cast({column: pl.List(pl.Int64 if whole else pl.Float32)})


def _lists(codes: np.ndarray) -> pl.Series:
    return pl.Series(codes.reshape(-1)).reshape((len(codes), LEVELS)).cast(pl.List(pl.Float64))


def text_shards(
    config: PublicTables,
    universe: Universe,
    domains: tuple[str, ...],
    rows: int,
    column: str,
    stream: int,
    truth: Counter[str],
) -> Iterator[pl.DataFrame]:
    """Shards of a table of captions (or tags) of `rows` different items, evenly spread over these domains' items."""
    total = sum(universe.sizes[d] for d in domains)
    phrases = pl.Series("phrases", _PHRASES)
    num_phrases = 1 if column.startswith("tag") else config.phrases
    for start, stop in _ranges(rows, config.rows_per_shard):
        rng = config.rng(stream, start)
        number, i = universe.locate(np.arange(start, stop) * total // rows, domains)
        pids = np.empty(len(i), np.int64)
        for n, domain in enumerate(domains):
            pids[number == n] = universe.pids(domain, i[number == n])
        again = config.draw(rng, "duplicate_texts", len(i))
        blank = config.draw(rng, "blank_texts", len(i))
        order = np.concatenate([np.arange(len(i)), again])
        parts = [phrases.gather(rng.integers(0, len(phrases), len(order))) for _ in range(num_phrases)]
        text = pl.select(pl.concat_str(parts, separator="; ").alias(column)).to_series()
        text = text.scatter(blank[::2], None).scatter(blank[1::2], " ")
        names = pl.Series([config.written_domains.get(domain, domain) for domain in domains])
        table = pl.DataFrame({"pid": pids[order], "domain": names[number[order]], column: text})
        if config.written_domains:
            strange = config.draw(rng, "unknown_domains", len(i))
            planted = {"pid": pids[strange], "domain": [UNKNOWN_DOMAIN] * len(strange), column: ["x"] * len(strange)}
            table = pl.concat([table, pl.DataFrame(planted, schema=table.schema)])
            truth["unknown_domain"] += len(strange)
        truth["rows"] += len(table)
        truth["duplicate"] += len(again)
        truth["blank"] += len(blank)
        yield table if config.written_domains else table.drop("domain")
