r"""Every corpus of a dataset in one command, with a table of what came out.

    python -m data_builders.build_all --data runs/world --catalog runs/catalog --out runs/corpora
    python -m data_builders.build_all ... --language zh --workers 4 --only perception,recommendation \
        recommendation.targets=8 perception.think_share=0.3

Each corpus is a folder under `--out`, built by the module of its name with its own defaults; NAME.ARGUMENT=VALUE changes
one. Corpora that are finished are kept, so a command that was interrupted goes on when it is given again. The table
stands in `SUMMARY.md`, its figures in `summary.json`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_builders.cards import ROWS_FILE
from data_builders.common import add_engine_arguments, check_engine_arguments
from onereason.config import check_seed
from onereason.errors import ConfigError, OnereasonError
from onereason.io import MANIFEST_NAME, read_json, write_json, write_text

DATA, CATALOG, SPLIT, WORDS, THEME, ENGINE = "data", "catalog", "split", "language", "theme", "engine"

CORPORA: dict[str, tuple[str, frozenset[str]]] = {
    "persona": ("build_persona", frozenset({DATA, CATALOG, SPLIT, WORDS, ENGINE})),
    "sequential": ("build_sequential", frozenset({DATA, CATALOG, SPLIT, WORDS, ENGINE})),
    "caption": ("build_captions", frozenset({CATALOG, WORDS, ENGINE})),
    "pretraining": ("build_pretraining", frozenset({DATA, CATALOG, SPLIT, WORDS, THEME, ENGINE})),
    "perception": ("build_perception", frozenset({DATA, CATALOG, WORDS, THEME, ENGINE})),
    "derivation": ("build_derivation", frozenset({DATA, CATALOG, SPLIT, WORDS, THEME, ENGINE})),
    "evolution": ("build_evolution", frozenset({DATA, CATALOG, SPLIT, WORDS, THEME, ENGINE})),
    "rationale": ("build_rationales", frozenset({DATA, CATALOG, SPLIT, WORDS, THEME, ENGINE})),
    "recommendation": ("build_recommendation", frozenset({DATA, CATALOG, SPLIT, WORDS, THEME, ENGINE})),
    "instruction": ("build_instructions", frozenset({DATA, CATALOG, SPLIT, WORDS, THEME, ENGINE})),
    "general": ("build_general", frozenset()),
}
"""Corpus -> the builder's module, and which of the shared arguments it takes; in the order of training."""

SETTINGS_FILE, SUMMARY_FILE, TABLE_FILE = "settings.json", "summary.json", "SUMMARY.md"


def parse_overrides(texts: Sequence[str]) -> dict[str, list[str]]:
    """`["recommendation.targets=8"]` -> `{"recommendation": ["--targets", "8"]}`."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        name, dot, argument = key.partition(".")
        if not (equals and dot and argument) or name not in CORPORA:
            raise ConfigError(f"{text!r}: write NAME.ARGUMENT=VALUE, NAME out of {', '.join(CORPORA)}.")
        found.setdefault(name, []).extend([f"--{argument.replace('_', '-')}", value])
    return found


def choose_corpora(only: str | None, general: Path | None, synthetic: int) -> list[str]:
    """The corpora to build; `general` needs a source."""
    wanted = list(CORPORA) if only is None else [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in CORPORA]
    if unknown or not wanted:
        raise ConfigError(f"--only {only!r} must name corpora out of {', '.join(CORPORA)}.")
    if general is None and not synthetic:
        if only is not None and "general" in wanted:
            raise ConfigError("corpus general needs a source: --general FILE or --synthetic N.")
        wanted = [name for name in wanted if name != "general"]
    return [name for name in CORPORA if name in wanted]


def arguments_of(name: str, args: argparse.Namespace, overrides: Mapping[str, Sequence[str]]) -> list[str]:
    """The command line of one builder."""
    takes = CORPORA[name][1]
    line = ["--out", str(args.out / name), "--seed", str(args.seed)]
    for kind, argument, value in (
        (DATA, "--data", args.data),
        (CATALOG, "--catalog", args.catalog),
        (SPLIT, "--split-method", args.split_method),
        (SPLIT, "--validation-start", args.validation_start),
        (SPLIT, "--test-start", args.test_start),
        (WORDS, "--language", args.language),
        (THEME, "--theme-attribute", args.theme_attribute),
        (ENGINE, "--workers", args.workers),
        (ENGINE, "--engine", args.engine),
        (ENGINE, "--shard-size", args.shard_size),
    ):
        if kind in takes and value is not None:
            line += [argument, str(value)]
    if name == "general":
        line += ["--input", str(args.general)] if args.general else ["--synthetic", str(args.synthetic)]
    return [*line, *overrides.get(name, ())]


def claim_folder(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuses a folder that was begun with other settings: it would mix two builds in silence."""
    path = out / SETTINGS_FILE
    if path.is_file():
        before = read_json(path, "settings of the corpora")
        changed = sorted(k for k in {*before, *settings} if before.get(k) != settings.get(k))
        if changed:
            raise ConfigError(
                f"{out} was begun with other settings ({', '.join(changed)}); choose another --out or remove the folder."
            )
    else:
        write_json(path, dict(settings))


def summarise(out: Path, names: Sequence[str], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Counts of every corpus, from the manifests."""
    rows = {}
    for name in names:
        manifest = read_json(out / name / MANIFEST_NAME, "manifest")
        counts = manifest["counts"]
        rows[name] = {
            "rows": counts["rows"],
            "think": counts.get("mode_think", 0),
            "rejected": dict(manifest["rejected"]),
            "megabytes": round((out / name / ROWS_FILE).stat().st_size / 2**20, 1),
        } | ({"seconds": round(seconds[name], 1)} if name in seconds else {})
    return rows


def render_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| corpus | rows | think | MiB | seconds | rejected |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        rejected = ", ".join(f"{count:,} {reason}" for reason, count in row["rejected"].items()) or "none"
        took = row.get("seconds", "kept")
        lines.append(f"| {name} | {row['rows']:,} | {row['think']:,} | {row['megabytes']} | {took} | {rejected} |")
    return "\n".join(lines) + "\n"


def build(args: argparse.Namespace) -> None:
    overrides = parse_overrides(args.overrides)
    names = choose_corpora(args.only, args.general, args.synthetic)
    check_seed(args.seed, "--seed")
    check_engine_arguments(args)
    settings = {
        name: str(getattr(args, name))
        for name in (
            "data",
            "catalog",
            "split_method",
            "validation_start",
            "test_start",
            "language",
            "theme_attribute",
            "general",
            "synthetic",
            "seed",
        )
    }
    claim_folder(args.out, settings | {"overrides": sorted(args.overrides)})
    seconds: dict[str, float] = {}
    for number, name in enumerate(names, 1):
        if (args.out / name / MANIFEST_NAME).is_file():
            print(f"[{number}/{len(names)}] {name}: kept")
            continue
        print(f"[{number}/{len(names)}] {name}", flush=True)
        started = time.monotonic()
        builder = importlib.import_module(f"data_builders.{CORPORA[name][0]}")
        code = builder.main(arguments_of(name, args, overrides))
        if code:
            raise SystemExit(code)
        seconds[name] = time.monotonic() - started
    rows = summarise(args.out, names, seconds)
    write_json(args.out / SUMMARY_FILE, rows)
    table = render_table(rows)
    write_text(args.out / TABLE_FILE, table)
    print(f"\n{table}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="NAME.ARGUMENT=VALUE", help="an argument of one builder")
    parser.add_argument("--data", type=Path, required=True, help="dataset folder")
    parser.add_argument("--catalog", type=Path, required=True, help="catalog folder (or a model folder)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpora")
    parser.add_argument("--only", metavar="NAME,...", help=f"some of {', '.join(CORPORA)}")
    parser.add_argument("--general", type=Path, metavar="FILE", help="general language data (JSON lines)")
    parser.add_argument(
        "--synthetic", type=int, default=0, metavar="N", help="general language: N made exercises instead"
    )
    parser.add_argument("--language", default="en", help="en, zh, or a folder of prompt sets of your own")
    parser.add_argument(
        "--theme-attribute", metavar="NAME[:LEVEL]", help="item attribute that says what an item is about"
    )
    parser.add_argument("--split-method", default="leave-one-out", help="leave-one-out or temporal")
    parser.add_argument("--validation-start", type=int, help="temporal split")
    parser.add_argument("--test-start", type=int, help="temporal split")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice")
    add_engine_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    try:
        build(args)
    except OnereasonError as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
