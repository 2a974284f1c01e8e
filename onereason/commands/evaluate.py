"""`onereason evaluate`: a model folder against a dataset, all users by default."""

from __future__ import annotations

import argparse
from pathlib import Path


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
    parser.add_argument("--num-beams", type=int, default=20, help="beams a user (default: %(default)s)")
    parser.add_argument("--k", type=parse_cutoffs, default=(5, 10), metavar="K,K", help="cut-offs (default: 5,10)")
    parser.add_argument("--batch-size", type=int, default=128, help="prompts at once (default: %(default)s)")
    parser.add_argument(
        "--exclude-seen", action="store_true", help="take items of the history out of every system's list"
    )
    parser.add_argument("--max-users", type=int, metavar="N", help="evaluate N users drawn with --seed (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    add_model_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What `evaluate` and `recommend` share: how prompts are written and where the model runs."""
    parser.add_argument(
        "--prompt", choices=("chat", "plain"), help="prompt style (default: the model folder's, or chat)"
    )
    parser.add_argument(
        "--max-history", type=int, metavar="N", help="newest items shown (default: the model folder's, or 50)"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N (default: %(default)s)")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="float32",
        help="auto: bfloat16 where the hardware has it",
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
    from onereason.data.schema import INTERACTIONS_FILE, ITEMS_FILE, load_dataset
    from onereason.data.timelines import build_timelines
    from onereason.decoding.recommender import load_recommender
    from onereason.evaluation.queries import choose_examples, make_split
    from onereason.evaluation.report import report_paths, require_free, write_report
    from onereason.evaluation.runner import EvaluationConfig, evaluate
    from onereason.io import build_manifest
    from onereason.itemic.catalog import CATALOG_TABLE, load_model_catalog
    from onereason.itemic.vocabulary import ITEMIC_FILE, ItemicVocabulary, require_same_format

    config = EvaluationConfig(
        args.split, args.num_beams, args.k, args.batch_size, args.max_users, args.seed, args.exclude_seen
    )
    paths = report_paths(args.out)
    require_free(paths, args.overwrite)
    check_model_arguments(args)

    # Everything that can be refused is, before the weights load.
    vocabulary = ItemicVocabulary.load(args.model)
    catalog = load_model_catalog(args.model)
    require_same_format(vocabulary.format, catalog.format, f"the catalog in {args.model}")
    timelines = build_timelines(load_dataset(args.data).interactions, catalog.index)
    split = make_split(timelines, args.split_method, args.validation_start, args.test_start)
    choose_examples(split, config.split, config.max_users, config.seed)

    recommender = load_recommender(
        args.model, style=args.prompt, max_history=args.max_history, device=args.device, dtype=args.dtype
    )
    results = evaluate(recommender, timelines, split, config)
    weights = sorted(p for p in args.model.iterdir() if p.suffix in (".safetensors", ".bin"))
    files = [*weights, args.model / ITEMIC_FILE, args.model / CATALOG_TABLE]
    results["manifest"] = build_manifest(
        "evaluation",
        inputs=[*files, args.data / ITEMS_FILE, args.data / INTERACTIONS_FILE],
        config={
            "split": config.split,
            "split_method": args.split_method,
            "validation_start": args.validation_start,
            "test_start": args.test_start,
            "num_beams": config.num_beams,
            "k": list(config.cutoffs),
            "batch_size": config.batch_size,
            "max_users": config.max_users,
            "exclude_seen": config.exclude_seen,
            "prompt": recommender.prompt.style,
            "max_history": recommender.max_history,
            "dtype": args.dtype,
        },
        seed=config.seed,
        counts=results["counts"],
    )
    write_report(results, paths)
    print_results(results, paths.report)
    return None


def print_results(results: dict, report: Path) -> None:
    """The main table, the comparison, and where the report stands, on standard output."""
    from rich.console import Console
    from rich.table import Table

    from onereason.evaluation.report import metric_names, metric_title, system_rows

    names = metric_names(results)
    counts, cost, difference = results["counts"], results["cost"], results["difference"]
    table = Table(title=f"{results['manifest']['config']['split']}: {counts['users_evaluated']:,} users")
    table.add_column("system")
    for name in names:
        table.add_column(metric_title(name), justify="right")
    for system, metrics in system_rows(results):
        table.add_row(system, *(f"{metrics[name]:.4f}" for name in names))
    for domain, group in results["by_domain"].items():
        table.add_section()
        for system in ("model", "popularity", "markov"):
            table.add_row(f"{domain}: {system}", *(f"{group[system][name]:.4f}" for name in names))
    console = Console()
    console.print(table)
    console.print(
        f"model minus {difference['baseline']}, {metric_title(difference['metric'])}: "
        f"{difference['difference']:+.4f} (95 % interval {difference['low']:+.4f} to {difference['high']:+.4f})",
        highlight=False,
    )
    console.print(
        f"{cost['seconds']:.1f} s, {cost['users_per_second']:.1f} users/s, {cost['peak_memory_mib']:,.0f} MiB peak; "
        f"report: {report}",
        highlight=False,
        soft_wrap=True,
    )
