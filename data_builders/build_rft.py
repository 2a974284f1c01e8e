r"""Rejection sampling: rows that specialists have proved right, to unify them in one model (OneReason, Eq. 15-16).

    python -m data_builders.build_rft --data runs/world --out runs/corpora/rft \
        --teacher video=runs/rl_video/model --teacher ad=runs/rl_ad/model --max-prompts 20000
    python -m data_builders.build_rft ... --pairs runs/pairs     # hit against miss, for TRL's DPOTrainer
    accelerate launch -m recipes.sft --config recipes/configs/sft/mixture.yaml model=runs/rl/model out=runs/rft \
        data.corpora.mixture=runs/corpora/rft selection.data=runs/world

Each prompt is a moment of a training timeline, as reinforcement asks it. Its domain's teacher writes N traces, K items
behind each. A trace with a right answer among its items is a hit; one that closes, cites items of the catalog and gives
nothing away is verified, and with the item it becomes a row. The same prompts are asked without thinking, so that the
unified model keeps both modes. Traces that say the same as another one of their prompt are left out, and limits keep
easy prompts from crowding out hard ones.

Rollouts are kept beside the corpus (`--rollouts`): another choice of rows (`--max-bin-share` and the like, with
`--overwrite`) needs no new ones. A prompt's rollouts depend on the seed and the prompt, so that a killed build, begun
again, ends in the same bytes. With several GPUs, give each a share of the users (`--users 0 0.5`, `--users 0.5 1`) and
mix the corpora.
"""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_builders.cards import corpus_config, prompt_settings
from data_builders.cognition import SPLIT_OPTIONS
from data_builders.common import (
    TrainingPart,
    add_engine_arguments,
    add_split_arguments,
    build_parser,
    load_training_part,
    run_builder,
)
from data_builders.engine import build_corpus
from data_builders.rft_outputs import (
    PAIRS_KIND,
    describe_difference,
    is_made_of,
    make_manifest,
    write_corpus,
    write_pairs,
)
from data_builders.rft_rollouts import CITATIONS, RolloutSource, TraceChecks
from data_builders.rft_selection import SELECTION_OPTIONS, Limits, add_selection_arguments, limits_from_arguments
from data_builders.rft_teachers import Teachers, assign_teachers, choose_asking, open_teachers, parse_teachers
from data_builders.think_rows import RecommendationRows
from data_builders.working_folder import remove_published_shards
from onereason.cognition.facts import load_item_facts
from onereason.data.prompt_sets import own_prompt_files
from onereason.data.prompts import RECOMMENDATION_SETS
from onereason.data.schema import ITEMS_FILE
from onereason.decoding.recommender import DTYPES
from onereason.errors import ConfigError, DataError, StorageError
from onereason.io import MANIFEST_NAME, build_manifest, require_output_dir
from onereason.itemic.catalog import Catalog
from onereason.itemic.trie import domain_positions
from onereason.model.folder import require_catalog, weight_files
from onereason.rl.prompts import PromptConfig, Prompts, build_prompts
from onereason.rl.rollout import RolloutConfig, RolloutSampling

ROLLOUTS_CARD = """
What specialists answered to prompts of reinforcement, judged. A row is a prompt in one mode with at least one verified
hit; its `rollouts` are the verified ones, hits first. It is no row to train on: `build_rft` makes corpora and pairs of
it.
"""

ROLLOUT_OPTIONS = (
    "targets",
    "horizon",
    "min_history",
    "max_prompts",
    "users",
    "num_traces",
    "num_items",
    "items",
    "think_budget",
    "temperature",
    "top_k",
    "top_p",
    "batch_size",
    "dtype",
    "citations",
    "max_similarity",
    *SPLIT_OPTIONS,
)
"""Arguments that rollouts and their verdicts depend on."""


# -- prompts and rollouts -------------------------------------------------------------------------------------------


def load_prompts(args: Namespace, catalog: Catalog, teachers: Mapping[str, Path]) -> tuple[Prompts, TrainingPart]:
    """The prompts, and the training part they are of.

    Raises:
        DataError: no prompt is left, of all or of one domain.
    """
    part = load_training_part(args)
    config = PromptConfig(
        args.targets, args.horizon, args.min_history, list(teachers), tuple(args.users), args.max_prompts
    )
    prompts = build_prompts(part.histories, part.user_ids, domain_names(catalog), config, args.seed)
    if missing := sorted(set(teachers) - set(prompts.domains)):
        raise DataError(
            f"no prompt asks for domain {missing[0]!r} ({len(prompts)} prompts ask for "
            f"{', '.join(sorted(set(prompts.domains)))}); leave it out of --domains and --teacher, or widen --targets, "
            "--users or --max-prompts."
        )
    return prompts, part


def rollout_configs(args: Namespace, limits: Limits) -> dict[str, RolloutConfig]:
    """Mode -> how prompts are rolled out in it."""
    share = limits.no_think_share
    modes = [args.mode] if args.mode == "no_think" else ["think", *(["no_think"] if share else [])]
    sampling = RolloutSampling(args.think_budget, args.temperature, args.top_k, args.top_p)
    return {
        mode: RolloutConfig(
            mode=mode,  # type: ignore[arg-type]
            num_traces=args.num_traces,
            num_items=args.num_items,
            items=args.items,
            sampling=sampling,
            batch_size=args.batch_size,
        )
        for mode in modes
    }


def check_arguments(args: Namespace) -> Limits:
    """`ConfigError` for a value that makes no sense; fills `--no-think-share` and `--rollouts`."""
    if args.mode == "no_think" and args.no_think_share is not None:
        raise ConfigError("--no-think-share shares out rows of both modes; leave it out with --mode no_think.")
    if args.mode == "think" and args.no_think_share is None:
        args.no_think_share = 0.5
    if args.temperature != 1 and args.items == "beam":
        raise ConfigError(
            f"--temperature must be 1 where items are beams, got {args.temperature}; use --items sample, or 1."
        )
    if not 0 < args.max_similarity <= 1:
        raise ConfigError(f"--max-similarity must lie above 0 and at most at 1, got {args.max_similarity}.")
    if args.pairs is not None and args.mode != "think":
        raise ConfigError("--pairs needs --mode think: both sides of a pair hold a trace.")
    if args.pairs_per_prompt < 1:
        raise ConfigError(f"--pairs-per-prompt must be at least 1, got {args.pairs_per_prompt}.")
    args.rollouts = args.rollouts or args.out.with_name(f"{args.out.name}_rollouts")
    places = [path.resolve() for path in (args.out, args.rollouts, args.pairs) if path is not None]
    if any(a != b and a.is_relative_to(b) for a in places for b in places) or len(set(places)) < len(places):
        raise ConfigError("--out, --rollouts and --pairs must be different folders, none inside another.")
    return limits_from_arguments(args)


def keep_rollouts(args: Namespace, source: RolloutSource, inputs: Sequence[Path], extra: Mapping[str, Any]) -> None:
    """Rolls out, unless the folder of rollouts holds these already."""
    place = Namespace(**vars(args) | {"out": args.rollouts})
    expected = build_manifest(
        "rollouts", inputs=inputs, config=corpus_config(args, ROLLOUT_OPTIONS, extra), seed=args.seed
    )
    if is_made_of(args.rollouts, expected):
        remove_published_shards(args.rollouts)
        print(f"{args.rollouts} holds these rollouts already.")
        return
    if (args.rollouts / MANIFEST_NAME).is_file() and not args.overwrite:
        raise StorageError(
            f"{args.rollouts} holds rollouts of another build (different: "
            f"{describe_difference(args.rollouts, expected)}); choose another --rollouts, or pass --overwrite."
        )
    build_corpus(
        place,
        source,
        title="Judged rollouts",
        description=ROLLOUTS_CARD,
        inputs=inputs,
        options=ROLLOUT_OPTIONS,
        extra=extra,
        kind="rollouts",
    )
    if source.seconds:
        print(
            f"rolled out {source.num_asked} prompts in {source.seconds:.1f} s: "
            f"{source.num_asked / source.seconds:.2f} prompts/s, {source.num_tokens / source.seconds:.0f} tokens/s"
        )


def load_source(args: Namespace, limits: Limits) -> tuple[RolloutSource, list[Path], dict[str, Any]]:
    """The rollouts that the command asks for, the files they depend on, and settings beside the arguments.

    Whatever can be refused is refused here; no weights are read.
    """
    given = parse_teachers(args.teacher)
    configs = rollout_configs(args, limits)
    first = open_teachers(given)
    catalog = require_catalog(first)
    wanted = [name.strip() for name in (args.domains or "").split(",") if name.strip()]
    paths = assign_teachers(given, wanted, sorted(set(domain_names(catalog))))
    max_history, language = choose_asking(args, paths)
    settings = prompt_settings(language, RECOMMENDATION_SETS)
    args.catalog = first.path
    prompts, part = load_prompts(args, catalog, paths)
    facts = load_item_facts(args.data, catalog)
    asking = {"style": "chat", "max_history": max_history, "language": language}
    teachers = Teachers(paths, {**asking, "device": args.device, "dtype": args.dtype})
    source = RolloutSource(
        prompts,
        part.user_ids,
        facts,
        catalog.codes,
        teachers,
        configs,
        TraceChecks(facts, args.citations),
        RecommendationRows("rft", facts.format, language),
        args.max_similarity,
        args.seed,
    )
    models = list(dict.fromkeys(paths.values()))
    inputs = [*part.inputs, args.data / ITEMS_FILE, *own_prompt_files(language)]
    inputs += [file for model in models for file in weight_files(model)]
    for folder in (args.rollouts, args.pairs):
        if folder is not None and not (folder / MANIFEST_NAME).is_file():
            require_output_dir(folder, args.overwrite, [args.data, *models])
    extra = {
        "teachers": {domain: teachers.name(domain) for domain in paths},
        "modes": list(configs),
        "max_history": max_history,
        "prompts": {"asked": len(prompts), **prompts.counts},
        **settings,
    }
    return source, inputs, extra


def build(args: Namespace) -> None:
    limits = check_arguments(args)
    source, inputs, extra = load_source(args, limits)
    keep_rollouts(args, source, inputs, extra)
    lack: DataError | None = None
    if args.pairs is not None:
        manifest = make_manifest(PAIRS_KIND, args.rollouts, {"pairs_per_prompt": args.pairs_per_prompt})
        if not is_made_of(args.pairs, manifest):
            try:
                done = write_pairs(args.rollouts, args.pairs, args.overwrite, manifest, args.pairs_per_prompt)
                print(f"wrote {args.pairs}: {done['counts']['pairs']} pairs")
            except DataError as error:  # said once the corpus is written
                lack = error
    manifest = make_manifest("corpus", args.rollouts, {name: getattr(args, name) for name in SELECTION_OPTIONS})
    done = write_corpus(args.rollouts, args.out, args.overwrite, manifest, limits)
    print(f"wrote {args.out}: {done['counts']['rows']} rows, rejected {done['rejected']}")
    for warning in describe_lacks(done["counts"], limits):
        print(f"warning: {args.out}: {warning}", file=sys.stderr)
    if lack is not None:
        raise lack


def domain_names(catalog: Catalog) -> list[str]:
    """Domain of each item, as the format's tokens tell domains apart."""
    names, position = domain_positions(catalog)
    return np.array(names, dtype=object)[position].tolist()


def describe_lacks(counts: Mapping[str, int], limits: Limits) -> list[str]:
    """What a finished corpus lacks: domains that no rollout hit, and rows that answer at once."""
    lacks = []
    for name, asked in counts.items():
        group, _, of = name.partition("_")
        if group == "asked" and not counts.get(f"hit_{of}"):
            mode, domain = ("think", of[6:]) if of.startswith("think_") else ("no_think", of[9:])
            lacks.append(
                f"domain {domain}: none of {asked} prompts has a verified hit in mode {mode}; ask more prompts, raise "
                "--num-traces or --num-items, or look at the rejected ones."
            )
    share = counts.get("mode_no_think", 0) / counts["rows"]
    if limits.no_think_share and share < limits.no_think_share - 0.01:
        lacks.append(
            f"{share:.0%} of the rows answer at once, --no-think-share is {limits.no_think_share:.0%}: too few prompts "
            "were hit without thinking."
        )
    return lacks


# -- the command line -----------------------------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    parser = build_parser(__doc__, timelines=False)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="dataset folder")
    add_split_arguments(parser)
    add_engine_arguments(parser)
    parser.set_defaults(shard_size=256)
    add(
        "--teacher",
        action="append",
        required=True,
        metavar="[DOMAIN=]FOLDER",
        help="model folder that answers a domain's prompts; without a domain, those of all that have none; repeat",
    )
    add("--rollouts", type=Path, help="where rollouts are kept (default: OUT_rollouts)")
    add("--pairs", type=Path, metavar="OUT", help="folder of preference pairs to write as well")
    add("--pairs-per-prompt", type=int, default=1, help="pairs of one prompt at most (default: %(default)s)")
    add("--mode", choices=("think", "no_think"), default="think", help="no_think: rows that answer at once alone")
    prompts = parser.add_argument_group("prompts").add_argument
    prompts("--domains", metavar="NAME,...", help="domains asked for (default: those that teachers name, or all)")
    prompts("--targets", type=int, default=8, help="newest training items of each user asked for (%(default)s)")
    prompts("--horizon", type=int, default=1, help="interactions among which items are right answers (%(default)s)")
    prompts("--min-history", type=int, default=3, help="items that must stand before a target (%(default)s)")
    prompts("--users", type=float, nargs=2, default=(0.0, 1.0), metavar=("LOW", "HIGH"), help="share of users, by hash")
    prompts("--max-prompts", type=int, help="prompts drawn by seed (default: all)")
    prompts("--max-history", type=int, help="newest items in a prompt (default: as the teachers record it)")
    prompts("--language", help="wording: en, zh, or a folder of prompt sets (default: as the teachers record it)")
    rollouts = parser.add_argument_group("rollouts").add_argument
    rollouts("--num-traces", type=int, default=8, help="traces a prompt (%(default)s)")
    rollouts("--num-items", type=int, default=32, help="items behind each trace (%(default)s)")
    rollouts("--items", choices=("beam", "sample"), default="beam", help="the best items, or drawn ones (%(default)s)")
    rollouts("--think-budget", type=int, default=512, help="tokens a trace may have (%(default)s)")
    rollouts("--temperature", type=float, default=1.0, help="of traces and drawn items (%(default)s)")
    rollouts("--top-k", type=int, default=0, help="0 draws from all tokens (%(default)s)")
    rollouts("--top-p", type=float, default=1.0, help="1 draws from all tokens (%(default)s)")
    rollouts("--batch-size", type=int, default=32, help="prompts rolled out at once (%(default)s)")
    rollouts("--device", default="auto", help="cpu, cuda, ... (default: the GPU where there is one)")
    rollouts("--dtype", choices=DTYPES, default="auto", help="of the teachers' weights (%(default)s)")
    rollouts("--citations", choices=CITATIONS, default="catalog", help="where cited items must stand (%(default)s)")
    rollouts(
        "--max-similarity",
        type=float,
        default=0.8,
        metavar="SHARE",
        help="traces of a prompt that share this much of their token trigrams count as one (%(default)s)",
    )
    add_selection_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_builder(make_parser(), build, argv)


if __name__ == "__main__":
    sys.exit(main())
