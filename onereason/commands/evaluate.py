"""`onereason evaluate`: a model folder against a dataset, all users by default."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onereason.evaluation.runner import EvaluationConfig

HASH = "hash of "
"""Before the name of a file in the record of stored candidates."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, type=Path, help="model folder (weights, tokenizer, catalog)")
    parser.add_argument("--data", required=True, type=Path, help="dataset folder (items, interactions)")
    parser.add_argument(
        "--out", required=True, type=Path, help="results file (.json); report.md and plots go beside it"
    )
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="default: %(default)s")
    parser.add_argument(
        "--split-method", choices=("leave_one_out", "temporal"), default="leave_one_out", help="default: %(default)s"
    )
    parser.add_argument(
        "--validation-start", type=int, metavar="TIME", help="temporal split: first moment of validation"
    )
    parser.add_argument("--test-start", type=int, metavar="TIME", help="temporal split: first moment of the test part")
    parser.add_argument(
        "--modes",
        type=parse_names,
        default=("no_think",),
        metavar="MODE,MODE",
        help="of no_think, think, race, on the same inputs (default: no_think)",
    )
    parser.add_argument("--num-beams", type=int, default=20, help="beams a user, or a trace (default: %(default)s)")
    parser.add_argument("--k", type=parse_cutoffs, default=(5, 10), metavar="K,K", help="cut-offs (default: 5,10)")
    parser.add_argument("--batch-size", type=int, default=128, help="prompts at once (default: %(default)s)")
    parser.add_argument(
        "--exclude-seen", action="store_true", help="take items of the history out of every system's list"
    )
    parser.add_argument("--max-users", type=int, metavar="N", help="evaluate N users drawn with --seed (default: all)")
    parser.add_argument(
        "--domains",
        type=parse_names,
        default=(),
        metavar="NAME,NAME",
        help="of those users' queries, ask for items of these domains only (default: all)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--policy",
        choices=("all", "most_popular", "random", "split_by_rank"),
        default="all",
        help="how sids become items (default: %(default)s)",
    )
    parser.add_argument(
        "--weight-signal", metavar="NAME", help="weigh targets by this signal of the interactions, e.g. watch_seconds"
    )
    parser.add_argument(
        "--restricted", action="store_true", help="normalise scores over each level's codes, not the vocabulary"
    )
    add_model_arguments(parser)
    thinking = parser.add_argument_group("mode think")
    thinking.add_argument("--num-traces", type=int, default=1, metavar="N", help="traces a user (default: %(default)s)")
    thinking.add_argument(
        "--merge",
        choices=("sum", "max", "reciprocal_rank"),
        default="sum",
        help="how the candidates of several traces become one list (default: %(default)s)",
    )
    thinking.add_argument(
        "--think-budget", type=int, default=4096, metavar="TOKENS", help="a trace is cut there (default: %(default)s)"
    )
    thinking.add_argument("--temperature", type=float, default=0.6, help="0 is greedy (default: %(default)s)")
    thinking.add_argument("--top-k", type=int, default=50, help="0 for all tokens (default: %(default)s)")
    thinking.add_argument("--top-p", type=float, default=0.95, help="default: %(default)s")
    thinking.add_argument(
        "--indicators", action="store_true", help="measure what each trace does to the target's likelihood"
    )
    parser.add_argument(
        "--rescore", action="store_true", help="score the stored candidates again; the weights are not read"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results and candidates")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What `evaluate` and `recommend` share: how prompts are written and where the model runs."""
    parser.add_argument(
        "--prompt", choices=("chat", "plain"), help="prompt style (default: the model folder's, or chat)"
    )
    parser.add_argument(
        "--max-history", type=int, metavar="N", help="newest items shown (default: the model folder's, or 50)"
    )
    parser.add_argument(
        "--language",
        help="wording of the prompt: en, zh, or a folder of prompt sets (default: the model folder's, or en)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N (default: %(default)s)")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        help="auto: bfloat16 where the hardware has it (default: float32)",
    )


def parse_cutoffs(text: str) -> tuple[int, ...]:
    """`5,10` -> `(5, 10)`, ascending, without repeats."""
    try:
        values = sorted({int(part) for part in text.split(",")})
    except ValueError:
        values = []
    if not values or values[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers from 1, e.g. 5,10")
    return tuple(values)


def parse_names(text: str) -> tuple[str, ...]:
    """`a,b` -> `("a", "b")`."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def check_model_arguments(args: argparse.Namespace) -> None:
    """`ConfigError` for values out of range; sets the number of threads."""
    from onereason.errors import ConfigError

    for name in ("threads", "max_history"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
    if args.threads is not None:
        if args.threads > 1024:
            raise ConfigError(f"--threads must be at most 1024, got {args.threads}.")
        import torch

        torch.set_num_threads(args.threads)


def run(args: argparse.Namespace) -> int | None:
    from onereason.data.prompt_sets import own_prompt_files
    from onereason.data.prompts import RECOMMENDATION_SETS, describe_prompts
    from onereason.data.schema import INTERACTIONS_FILE, ITEMS_FILE, load_dataset
    from onereason.data.timelines import build_timelines
    from onereason.decoding.recommender import load_recommender
    from onereason.decoding.think import SamplingConfig
    from onereason.errors import ConfigError
    from onereason.evaluation.candidates import check_store, differing_keys, open_store, read_record
    from onereason.evaluation.processes import Processes, join_processes, local_device
    from onereason.evaluation.queries import choose_examples, make_split
    from onereason.evaluation.report import report_paths, require_free, write_report
    from onereason.evaluation.runner import EvaluationConfig, build_problem, evaluate, score_candidates
    from onereason.io import build_manifest
    from onereason.itemic.catalog import CATALOG_TABLE, load_model_catalog
    from onereason.itemic.vocabulary import ITEMIC_FILE, ItemicVocabulary, require_same_format

    config = EvaluationConfig(
        split=args.split,
        num_beams=args.num_beams,
        cutoffs=args.k,
        batch_size=args.batch_size,
        max_users=args.max_users,
        domains=args.domains,
        seed=args.seed,
        exclude_seen=args.exclude_seen,
        modes=args.modes,
        num_traces=args.num_traces,
        merge=args.merge,
        sampling=SamplingConfig(args.think_budget, args.temperature, args.top_k, args.top_p),
        restricted=args.restricted,
        indicators=args.indicators,
        policy=args.policy,
        weight_signal=args.weight_signal,
    )
    paths = report_paths(args.out)
    processes = Processes() if args.rescore else join_processes()
    if processes.is_main:
        require_free(paths, args.overwrite or args.rescore)
    check_model_arguments(args)

    # Everything that can be refused is, before the weights load.
    vocabulary = ItemicVocabulary.load(args.model)
    catalog = load_model_catalog(args.model)
    require_same_format(vocabulary.format, catalog.format, f"the catalog in {args.model}")
    interactions = load_dataset(args.data).interactions
    timelines = build_timelines(interactions, catalog.index)
    signal = _read_signal(interactions, args.weight_signal, args.data)
    split = make_split(timelines, args.split_method, args.validation_start, args.test_start)
    choose_examples(split, config.split, config.max_users, config.seed)
    how, language = _resolve_prompts(args, config)

    files = [args.model / name for name in (ITEMIC_FILE, CATALOG_TABLE)]
    files += [args.data / name for name in (ITEMS_FILE, INTERACTIONS_FILE)]
    asked = {key: getattr(args, key) for key in ("split_method", "validation_start", "test_start")}
    modes = config.generated_modes
    if args.rescore:
        stored = {mode: read_record(paths.candidates, mode) for mode in modes}
        for mode, record in stored.items():
            given = config.record(mode) | asked | _hashes(files)
            given |= {key: value for key, value in how.items() if getattr(args, key) is not None}
            different = differing_keys({key: record.get(key) for key in given}, given)
            if different:
                raise ConfigError(
                    f"the candidates in {paths.candidates} (mode {mode}) were generated with other "
                    f"{', '.join(different)}; rescore with the same arguments, or evaluate again."
                )
        first = stored[modes[0]]
        how = {key: first.get(key) for key in (*how, "prompt_version")}
        hashes = {key.removeprefix(HASH): value for key, value in first.items() if key.startswith(HASH)}
        problem = build_problem(catalog, timelines, split, config, how["max_history"], signal)
        results: dict | None = score_candidates(problem, catalog, vocabulary, config, paths.candidates)
    else:
        how["prompt_version"] = describe_prompts(RECOMMENDATION_SETS, language)
        weights = sorted(p for p in args.model.iterdir() if p.suffix in (".safetensors", ".bin"))
        prompt_files = [args.model / n for n in ("config.json", "tokenizer.json", "chat_template.jinja")]
        prompt_files += [path for path in own_prompt_files(language) if path.stem in RECOMMENDATION_SETS]
        hashed = _hashes([*weights, *files, *(path for path in prompt_files if path.is_file())])
        records = {mode: config.record(mode) | asked | how | hashed for mode in modes}
        hashes = {key.removeprefix(HASH): value for key, value in hashed.items()}
        if processes.is_main:
            check_store(paths.candidates, records, args.overwrite)

        def prepare() -> None:
            if args.overwrite:
                for path in paths.all:  # results never stand beside candidates they were not made from
                    path.unlink(missing_ok=True)
            open_store(paths.candidates, records, args.overwrite)

        recommender = load_recommender(
            args.model,
            style=how["prompt"],
            max_history=how["max_history"],
            language=language,
            device=local_device(args.device),
            dtype=how["dtype"],
        )
        results = evaluate(recommender, timelines, split, config, paths.candidates, processes, signal, prepare)
    if results is None:
        return None
    results["manifest"] = build_manifest(
        "evaluation",
        inputs=files,
        config=config.to_dict() | asked | how | {"candidates": paths.candidates.name},
        seed=config.seed,
        counts=results["counts"],
    )
    results["manifest"]["inputs"] = hashes | results["manifest"]["inputs"]
    write_report(results, paths)
    print_results(results, paths.report)
    return None


def _resolve_prompts(args: argparse.Namespace, config: EvaluationConfig) -> tuple[dict[str, Any], str]:
    """How prompts are written and numbers computed: style, history, language, type; and where the language's words are.

    Raises:
        ConfigError, ModelError: thinking where the prompts or the tokenizer have no think block.
    """
    from onereason.data.prompt_sets import language_name
    from onereason.decoding.recommender import (
        DEFAULT_LANGUAGE,
        DEFAULT_MAX_HISTORY,
        DEFAULT_STYLE,
        read_prompt_settings,
    )
    from onereason.decoding.think import load_think_ids
    from onereason.errors import ConfigError
    from onereason.io import read_json
    from onereason.model.folder import CONFIG_FILE, load_tokenizer_folder
    from onereason.model.precision import has_fast_bfloat16

    recorded = read_prompt_settings(args.model)
    style = args.prompt or recorded.get("style", DEFAULT_STYLE)
    max_history = args.max_history or recorded.get("max_history", DEFAULT_MAX_HISTORY)
    language = args.language or recorded.get("language", DEFAULT_LANGUAGE)
    dtype = args.dtype or "float32"
    if dtype == "auto":
        dtype = "bfloat16" if has_fast_bfloat16() else "float32"
    if "think" in config.modes:
        if style == "plain":
            raise ConfigError(
                f"{args.model} is asked in prompt style 'plain', which has no think block; pass --prompt chat, or "
                "--modes no_think."
            )
        tokenizer = load_tokenizer_folder(args.model).tokenizer
        model_config = read_json(args.model / CONFIG_FILE, "model configuration")
        load_think_ids(tokenizer, model_config.get("vocab_size", len(tokenizer)))
        limit = model_config.get("max_position_embeddings")
        if limit is not None and args.think_budget >= limit:
            raise ConfigError(
                f"--think-budget {args.think_budget} exceeds the model's max_position_embeddings ({limit}), prompt and "
                "answer not counted; lower it."
            )
    how = {"prompt": style, "max_history": max_history, "language": language_name(language), "dtype": dtype}
    return how, language


def _hashes(files: list[Path]) -> dict[str, str]:
    """`hash of NAME` -> SHA-256, of files of a model folder or dataset, as records hold them."""
    from onereason.io import hash_file

    return {f"{HASH}{path.name}": hash_file(path) for path in files}


def _read_signal(interactions: Any, name: str | None, source: Path) -> Any:
    """A signal of the interactions, aligned with the timelines; None where none is asked for."""
    from onereason.data.schema import SIGNAL_PREFIX
    from onereason.data.timelines import sort_by_user
    from onereason.errors import ConfigError

    if name is None:
        return None
    column = SIGNAL_PREFIX + name.removeprefix(SIGNAL_PREFIX)
    if column not in interactions.columns:
        known = [c.removeprefix(SIGNAL_PREFIX) for c in interactions.columns if c.startswith(SIGNAL_PREFIX)]
        raise ConfigError(
            f"the interactions of {source} have no signal {name!r}; they have {', '.join(known) or 'none'}."
        )
    return sort_by_user(interactions)[column].to_numpy().astype("float64")


def print_results(results: dict, report: Path) -> None:
    """The main table, the comparisons, and where the report stands, on standard output."""
    from rich.console import Console
    from rich.table import Table

    from onereason.evaluation.plots import metric_title
    from onereason.evaluation.report import NAMES, metric_names, shown_metrics, system_rows

    names = shown_metrics(metric_names(results))
    counts, cost = results["counts"], results["cost"]
    table = Table(title=f"{results['manifest']['config']['split']}: {counts['users_evaluated']:,} users")
    table.add_column("system")
    for name in names:
        table.add_column(metric_title(name), justify="right")
    for system, metrics in system_rows(results):
        table.add_row(system, *(f"{metrics[name]:.4f}" for name in names))
    for domain, group in results["by_domain"].items():
        table.add_section()
        for system in results["systems"]:
            table.add_row(f"{domain}: {NAMES[system]}", *(f"{group[system][name]:.4f}" for name in names))
    console = Console()
    console.print(table)
    for difference in (results["difference"], *results["comparisons"]):
        console.print(
            f"{NAMES[difference['system']]} minus {NAMES[difference['baseline']]}, "
            f"{metric_title(difference['metric'])}: {difference['difference']:+.4f} "
            f"(95 % interval {difference['low']:+.4f} to {difference['high']:+.4f})",
            highlight=False,
        )
    for system in (name for name in results["systems"] if name in cost):
        spent = cost[system]
        console.print(
            f"{NAMES[system]}: {spent['seconds']:.1f} s, {spent['seconds_per_user'] * 1000:.1f} ms and "
            f"{spent['tokens_per_user']:.0f} tokens a user",
            highlight=False,
        )
    traces = results["traces"]
    if traces is not None and traces["cut_at_the_budget"]:
        console.print(f"{traces['cut_at_the_budget']:,} of {traces['traces']:,} traces were cut at the budget")
    if results["machine"]:
        console.print(f"peak memory {results['machine']['peak_memory_mib']:,.0f} MiB", highlight=False)
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
