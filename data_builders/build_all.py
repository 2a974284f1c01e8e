r"""Every corpus of a dataset in one command, with a table of what came out.

    python -m data_builders.build_all --data runs/world --catalog runs/catalog --out runs/corpora
    python -m data_builders.build_all ... --language zh --workers 4 --only perception,recommendation \
        recommendation.targets=8 perception.think_share=0.3

Each corpus is a folder under `--out`, built by the module of its name with its own defaults; NAME.ARGUMENT=VALUE
changes one. All command lines are checked before anything is built. Corpora that are finished are kept, so a command
that was interrupted goes on when it is given again; a folder whose corpora were built from other data or with other
settings is refused. The table stands in `SUMMARY.md`, its figures in `summary.json`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from data_builders.cards import ROWS_FILE, corpus_config, prompt_settings
from data_builders.common import (
    SPLIT_METHODS,
    add_engine_arguments,
    add_language_argument,
    add_theme_argument,
    check_engine_arguments,
)
from onereason.cognition.facts import load_item_facts
from onereason.config import check_seed
from onereason.data.schema import INTERACTIONS_FILE, ITEMS_FILE
from onereason.errors import ConfigError, OnereasonError, StorageError
from onereason.io import MANIFEST_NAME, hash_file, read_json, require_output_dir, write_json, write_text
from onereason.itemic.catalog import CATALOG_META, CATALOG_TABLE, Catalog

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
    "general": ("build_general", frozenset({ENGINE})),
}
"""Corpus -> the builder's module, and which of the shared arguments it takes; in the order of training."""

NEED_THEMES = frozenset({"derivation", "evolution", "rationale", "recommendation"})
"""Corpora about interests, which are made of the items' categories."""

SHARED = ("split_method", "validation_start", "test_start", "language", "theme_attribute")
"""Settings that all corpora of a folder have in common, beside data, catalog and seed."""
RESERVED = frozenset({*SHARED, "data", "catalog", "seed", "out", "overwrite"})
"""Arguments that are no single corpus's own."""
SUMMARY_FILE, TABLE_FILE = "summary.json", "SUMMARY.md"


@dataclass(frozen=True)
class Plan:
    """A corpus and how it is built.

    Attributes:
        name: of the corpus.
        builder: its module.
        line: the builder's command line.
        args: the same, parsed.
    """

    name: str
    builder: ModuleType
    line: Sequence[str]
    args: argparse.Namespace


def parse_overrides(texts: Sequence[str]) -> dict[str, list[str]]:
    """`["recommendation.targets=8"]` -> `{"recommendation": ["--targets=8"]}`."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        name, dot, argument = key.partition(".")
        if not (equals and dot and argument) or name not in CORPORA:
            raise ConfigError(f"{text!r}: write NAME.ARGUMENT=VALUE, NAME out of {', '.join(CORPORA)}.")
        if argument.replace("-", "_") in RESERVED:
            raise ConfigError(f"{text!r}: {argument} is the same for all corpora of a folder; leave it out.")
        found.setdefault(name, []).append(f"--{argument.replace('_', '-')}={value}")
    return found


def choose_corpora(only: str | None, has_general: bool) -> list[str]:
    """The corpora to build; `general` needs a source."""
    wanted = list(CORPORA) if only is None else [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in CORPORA]
    if unknown or not wanted:
        raise ConfigError(f"--only {only!r} must name corpora out of {', '.join(CORPORA)}.")
    if not has_general:
        if only is not None and "general" in wanted:
            raise ConfigError("corpus general needs a source: --general FILE or --synthetic N.")
        wanted = [name for name in wanted if name != "general"]
    return [name for name in CORPORA if name in wanted]


def drop_what_needs_themes(names: Sequence[str], args: argparse.Namespace) -> list[str]:
    """The corpora that items without categories allow; the others are named, or refused where --only asks for them."""
    blocked = [name for name in names if name in NEED_THEMES]
    if not blocked or any(load_item_facts(args.data, Catalog.load(args.catalog), args.theme_attribute).themes):
        return list(names)
    why = "no item has a category (--theme-attribute names the attribute that says what an item is about)"
    if args.only is not None:
        raise ConfigError(f"{', '.join(blocked)} cannot be built: {why}.")
    print(f"left out {', '.join(blocked)}: {why}", flush=True)
    return [name for name in names if name not in NEED_THEMES]


def arguments_of(name: str, args: argparse.Namespace, overrides: Mapping[str, Sequence[str]]) -> list[str]:
    """The command line of one builder."""
    takes = CORPORA[name][1]
    line = [f"--out={args.out / name}", f"--seed={args.seed}"]
    for kind, argument, value in (
        (DATA, "data", args.data),
        (CATALOG, "catalog", args.catalog),
        (SPLIT, "split-method", args.split_method),
        (SPLIT, "validation-start", args.validation_start),
        (SPLIT, "test-start", args.test_start),
        (WORDS, "language", args.language),
        (THEME, "theme-attribute", args.theme_attribute),
        (ENGINE, "workers", args.workers),
        (ENGINE, "engine", args.engine),
        (ENGINE, "shard-size", args.shard_size),
    ):
        if kind in takes and value is not None:
            line.append(f"--{argument}={value}")
    if name == "general":
        line.append(f"--synthetic={args.synthetic}" if args.general is None else f"--input={args.general}")
    return [*line, *overrides.get(name, ())]


def plan_corpus(name: str, args: argparse.Namespace, overrides: Mapping[str, Sequence[str]]) -> Plan:
    """Parses the command line of one builder and has its values checked; `ConfigError` for a mistake in it."""

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"corpus {name}: {message}; see `python -m data_builders.{CORPORA[name][0]} --help`.")

    builder = importlib.import_module(f"data_builders.{CORPORA[name][0]}")
    parser = builder.make_parser()
    parser.allow_abbrev = False
    parser.error = refuse
    line = arguments_of(name, args, overrides)
    parsed = parser.parse_args(line)
    try:
        check_engine_arguments(parsed)
        builder.check_arguments(parsed)
        if hasattr(parsed, "teacher"):
            from onereason.cognition.teachers.factory import teacher_from_arguments

            teacher_from_arguments(parsed)
    except OnereasonError as error:
        error.args = (f"corpus {name}: {error}",)
        raise
    return Plan(name, builder, line, parsed)


def current_settings(args: argparse.Namespace, names: Iterable[str], builder: ModuleType) -> dict[str, Any]:
    """What a corpus built now would record of these settings, and its seed."""
    found = corpus_config(args, [name for name in names if hasattr(args, name) and name != "language"])
    if "language" in names:
        found |= prompt_settings(args.language, builder.PROMPT_SETS)
    return json.loads(json.dumps(found | {"seed": args.seed}))


def check_finished(
    out: Path, plans: Mapping[str, Plan], args: argparse.Namespace, hash_of: Callable[[Path], str] = hash_file
) -> set[str]:
    """The corpora of a folder that are finished.

    Those that are asked for must be what would be built now; the others must have the shared settings and the data.

    Raises:
        ConfigError: a corpus was built from other data or with other settings.
        StorageError: something else stands in the place of a corpus.
    """
    finished = set()
    for name, (module, _) in CORPORA.items():
        path = out / name
        if not (path / MANIFEST_NAME).is_file():
            if name in plans:
                require_output_dir(path)
            continue
        manifest = read_json(path / MANIFEST_NAME, "manifest")
        if not isinstance(manifest, dict) or manifest.get("kind") != "corpus":
            raise StorageError(f"{path} is no corpus; choose another --out or move it away.")
        config = manifest["config"]
        if name in plans:
            asked, names = plans[name].args, set(config)
        else:
            asked, names = args, set(config) & set(SHARED)
        now = current_settings(asked, names, importlib.import_module(f"data_builders.{module}"))
        before = config | {"seed": manifest["seed"]}
        changed = [f"{key} {before.get(key)}, now {now[key]}" for key in sorted(now) if before.get(key) != now[key]]
        read = manifest["inputs"]
        own = getattr(asked, "input", None) or ()
        changed += [
            f"another {file.name}"
            for file in [*shared_files(args), *own]
            if (file.name in read or file in own) and read.get(file.name) != hash_of(file)
        ]
        if changed:
            raise ConfigError(
                f"{path} was built with other settings ({'; '.join(changed)}); choose another --out, or remove "
                f"{path} to build it again."
            )
        finished.add(name)
    return finished


def shared_files(args: argparse.Namespace) -> list[Path]:
    """Dataset and catalog."""
    paths = [args.data / name for name in (ITEMS_FILE, INTERACTIONS_FILE)]
    paths += [args.catalog / name for name in (CATALOG_TABLE, CATALOG_META)]
    return [path for path in paths if path.is_file()]


def summarise(out: Path, names: Iterable[str], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Counts of these corpora, from the manifests; `seconds` of those of which they are known."""
    rows = {}
    for name in (name for name in CORPORA if name in set(names)):
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
        took = row.get("seconds", "")
        lines.append(f"| {name} | {row['rows']:,} | {row['think']:,} | {row['megabytes']} | {took} | {rejected} |")
    return "\n".join(lines) + "\n"


def read_seconds(out: Path, names: Iterable[str]) -> dict[str, float]:
    """How long corpora took that are finished, where the summary knows it."""
    path = out / SUMMARY_FILE
    before = read_json(path, "summary") if path.is_file() else {}
    return {name: before[name]["seconds"] for name in names if "seconds" in before.get(name, {})}


def build(args: argparse.Namespace) -> int:
    """Builds what is not finished; returns the exit code of the builder that failed, or 0."""
    if args.general is not None and args.synthetic:
        raise ConfigError("give either --general FILE or --synthetic N.")
    check_seed(args.seed, "--seed")
    check_engine_arguments(args)
    overrides = parse_overrides(args.overrides)
    names = choose_corpora(args.only, args.general is not None or bool(args.synthetic))
    for name in overrides:
        if name not in names:
            raise ConfigError(f"{name}.{overrides[name][0].removeprefix('--')}: corpus {name} is not built here.")
    names = drop_what_needs_themes(names, args)
    plans = {name: plan_corpus(name, args, overrides) for name in names}
    finished = check_finished(args.out, plans, args, cache(hash_file))
    seconds = read_seconds(args.out, finished)
    for number, (name, plan) in enumerate(plans.items(), 1):
        if name in finished:
            print(f"[{number}/{len(plans)}] {name}: kept", flush=True)
            continue
        print(f"[{number}/{len(plans)}] {name}", flush=True)
        started = time.monotonic()
        code = plan.builder.main(plan.line)
        if code:
            return code
        seconds[name] = time.monotonic() - started
        finished.add(name)
        write_json(args.out / SUMMARY_FILE, summarise(args.out, finished, seconds))
    rows = summarise(args.out, finished, seconds)
    write_json(args.out / SUMMARY_FILE, rows)
    table = render_table(rows)
    write_text(args.out / TABLE_FILE, table)
    print(f"\n{table}")
    return 0


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
    add_language_argument(parser)
    add_theme_argument(parser)
    parser.add_argument(
        "--split-method", choices=SPLIT_METHODS, default="leave-one-out", help="what counts as training"
    )
    parser.add_argument("--validation-start", type=int, help="temporal split")
    parser.add_argument("--test-start", type=int, help="temporal split")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice")
    add_engine_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    try:
        return build(args)
    except OnereasonError as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; finished corpora stay, run the same command to go on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
