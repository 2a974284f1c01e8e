"""`onereason evaluate-layers`: perception to recommendation, written freely, and general ability; in both modes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onereason.evaluation.layers.generation import Generation
    from onereason.evaluation.layers.judge import Grader
    from onereason.evaluation.layers.tasks.base import EvaluationRow
    from onereason.evaluation.processes import Processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="model folder; not needed with --rescore")
    parser.add_argument("--rows", type=Path, help="evaluation rows (.jsonl), as data_builders.build_layers makes them")
    parser.add_argument("--out", required=True, type=Path, help="run folder; a run that was cut off goes on in it")
    parser.add_argument("--rescore", action="store_true", help="score the saved answers again, without a model")
    parser.add_argument("--overwrite", action="store_true", help="drop the run that stands in --out and start over")
    asking = parser.add_argument_group("asking")
    asking.add_argument("--modes", type=parse_modes, metavar="MODE,MODE", help="think, no_think (default: the tasks')")
    asking.add_argument(
        "--max-rows", type=int, metavar="N", help="N rows of each task drawn with --seed (default: all)"
    )
    asking.add_argument("--batch-size", type=int, default=16, help="rows answered at once (default: %(default)s)")
    asking.add_argument("--max-new-tokens", type=int, metavar="N", help="tokens of an answer (default: the task's)")
    asking.add_argument("--think-budget", type=int, metavar="N", help="tokens of a trace (default: the task's)")
    asking.add_argument(
        "--temperature", type=float, metavar="T", help="of both modes; 0 is greedy (default: the task's)"
    )
    asking.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    asking.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    asking.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N (default: %(default)s)")
    asking.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="float32",
        help="auto: bfloat16 where the hardware has it",
    )
    serving = parser.add_argument_group("a server in place of the loaded model")
    serving.add_argument("--endpoint-url", metavar="URL", help="OpenAI-compatible, with /completions, up to /v1")
    serving.add_argument("--endpoint-model", metavar="NAME", help="the name the model of --model is served under")
    serving.add_argument("--endpoint-key-env", default="OPENAI_API_KEY", help="variable with the key (%(default)s)")
    judge = parser.add_argument_group("graders")
    judge.add_argument("--judge-url", metavar="URL", help="OpenAI-compatible chat endpoint, up to /v1")
    judge.add_argument("--judge-model", metavar="NAME", help="the name the judge is served under")
    judge.add_argument("--judge-key-env", default="OPENAI_API_KEY", help="variable with the key (%(default)s)")
    judge.add_argument("--judge-concurrency", type=int, default=8, help="questions at once (default: %(default)s)")
    judge.add_argument("--nli", type=Path, metavar="DIR", help="entailment classifier, in place of the judge for R2")
    judge.add_argument(
        "--timeout", type=float, default=120.0, help="seconds a try, both servers (default: %(default)s)"
    )
    judge.add_argument("--tries", type=int, default=3, help="tries a request, both servers (default: %(default)s)")
    harness = parser.add_argument_group("lm-evaluation-harness")
    harness.add_argument("--lm-eval", metavar="TASK,TASK", help="tasks of the harness, e.g. gsm8k,mmlu")
    harness.add_argument("--lm-eval-include", type=Path, metavar="DIR", help="folder with task files of your own")
    harness.add_argument("--lm-eval-limit", type=int, metavar="N", help="N documents of each task (default: all)")


def parse_modes(text: str) -> tuple[str, ...]:
    """`think,no_think` -> the modes, no-think first."""
    from onereason.data.prompts import MODES

    given = text.split(",")
    if not set(given) <= set(MODES):
        raise argparse.ArgumentTypeError(f"{text!r} should name {' or '.join(MODES)}, or both with a comma")
    return tuple(mode for mode in MODES if mode in given)


def run(args: argparse.Namespace) -> int | None:
    from onereason.evaluation.layers.rows import load_rows
    from onereason.evaluation.layers.run import check_run_folder
    from onereason.evaluation.processes import Processes, join_processes

    check_arguments(args)
    processes = Processes() if args.rescore else join_processes()
    graders = []
    if processes.is_main:
        check_run_folder(args.out)
        graders = build_graders(args)
    rows = load_rows(args.rows) if args.rows else []
    rows, generations = reload(args, rows) if args.rescore else answer(args, rows, processes)
    if processes.is_main:
        write_results(args, rows, generations, graders)
    return None


def check_arguments(args: argparse.Namespace) -> None:
    """`ConfigError` for arguments that are out of range or do not go together; sets the number of threads."""
    import os

    from onereason.config import check_seed
    from onereason.errors import ConfigError

    check_seed(args.seed)
    for name in ("max_rows", "batch_size", "max_new_tokens", "think_budget", "threads", "lm_eval_limit"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
    for name in ("endpoint", "judge"):
        if (getattr(args, f"{name}_url") is None) != (getattr(args, f"{name}_model") is None):
            raise ConfigError(f"--{name}-url and --{name}-model belong together; give both.")
    if args.rescore:
        if args.rows is None or args.overwrite or args.lm_eval:
            raise ConfigError("--rescore needs --rows, and goes without --overwrite and --lm-eval.")
        return
    if args.model is None:
        raise ConfigError("--model is missing; give the model folder (only --rescore goes without).")
    if args.rows is None and args.lm_eval is None:
        raise ConfigError("there is nothing to evaluate; give --rows FILE or --lm-eval TASKS.")
    if args.lm_eval and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--lm-eval runs in one process; launch it apart from the rows, without accelerate.")
    if args.lm_eval and args.endpoint_url:
        raise ConfigError("--lm-eval needs the loaded model; leave out --endpoint-url, or run it apart.")
    if args.threads is not None:
        import torch

        torch.set_num_threads(args.threads)


def build_graders(args: argparse.Namespace) -> list[Grader]:
    """The entailment model and the judge, those that are configured, in the order in which they are asked."""
    from onereason.endpoint import Endpoint
    from onereason.evaluation.layers.judge import EntailmentModel, Judge

    graders: list[Grader] = []
    if args.nli is not None:
        graders.append(EntailmentModel(args.nli))
    if args.judge_url is not None:
        endpoint = Endpoint(args.judge_url, args.judge_model, args.judge_key_env, args.timeout, args.tries)
        graders.append(Judge(endpoint, args.out, args.judge_concurrency))
    return graders


def reload(args: argparse.Namespace, rows: list[EvaluationRow]) -> tuple[list[EvaluationRow], list[Generation]]:
    """Rows and saved answers of the finished run in `--out`, as it was asked."""
    from onereason.errors import DataError
    from onereason.evaluation.layers.rows import bind_format, choose_rows
    from onereason.evaluation.layers.run import RUN_FILE, load_complete_generations, load_run
    from onereason.io import hash_file
    from onereason.itemic.format import ItemicFormat

    state = load_run(args.out)
    if hash_file(args.rows) != state["config"]["rows"]:
        raise DataError(f"{args.rows} is not the file that {args.out / RUN_FILE} was made with; give that one.")
    config = state["config"]
    rows = bind_format(rows, ItemicFormat.from_dict(state["format"]))
    rows = choose_rows(rows, config["max_rows"], config["seed"])
    return rows, load_complete_generations(args.out, rows, config["modes"])


def answer(
    args: argparse.Namespace, rows: list[EvaluationRow], processes: Processes
) -> tuple[list[EvaluationRow], list[Generation]]:
    """Everything that can be refused is; then the model answers what the run folder does not hold."""
    from dataclasses import replace
    from functools import cache

    from onereason.endpoint import Endpoint
    from onereason.evaluation.layers.generation import build_requests, check_room, generate
    from onereason.evaluation.layers.generators import EndpointGenerator, ModelGenerator
    from onereason.evaluation.layers.lm_eval import require_tasks, run_lm_eval_once
    from onereason.evaluation.layers.rows import bind_format, choose_rows
    from onereason.evaluation.layers.run import open_run
    from onereason.evaluation.processes import local_device
    from onereason.io import read_json
    from onereason.model.device import resolve_device
    from onereason.model.folder import CONFIG_FILE, check_weights, load_model_folder, load_tokenizer_folder
    from onereason.model.precision import has_fast_bfloat16

    folder = load_tokenizer_folder(args.model)
    model_config = read_json(folder.path / CONFIG_FILE, "model configuration")
    rows = choose_rows(bind_format(rows, folder.vocabulary.format), args.max_rows, args.seed)
    changes = {n: v for n in ("max_new_tokens", "think_budget", "temperature") if (v := getattr(args, n)) is not None}
    if "temperature" in changes:
        changes["think_temperature"] = changes["temperature"]
    requests = []
    if rows:
        requests = build_requests(rows, folder.tokenizer, args.modes, args.seed, lambda s: replace(s, **changes))
    check_room(requests, model_config.get("max_position_embeddings"))
    names = args.lm_eval.split(",") if args.lm_eval else []
    manager = require_tasks(names, args.lm_eval_include) if names else None
    endpoint, device, dtype = None, None, "server"
    if args.endpoint_url:
        endpoint = Endpoint(args.endpoint_url, args.endpoint_model, args.endpoint_key_env, args.timeout, args.tries)
    else:
        check_weights(folder.path)
        device = resolve_device(local_device(args.device))
        dtype = args.dtype
        if dtype == "auto":
            dtype = "bfloat16" if has_fast_bfloat16() else "float32"
    if processes.is_main:
        open_run(args.out, describe_run(args, folder, changes, dtype), args.overwrite)
    processes.wait()

    @cache
    def loaded() -> Any:
        return load_model_folder(args.model, dtype, device)

    def load_generator() -> Any:
        if endpoint is not None:
            return EndpointGenerator(endpoint, folder.tokenizer, model_config["vocab_size"])
        return ModelGenerator(loaded())

    generations = generate(requests, args.out, load_generator, args.batch_size, processes)
    if names:
        run_lm_eval_once(
            loaded, names, manager, args.out, batch_size=args.batch_size, limit=args.lm_eval_limit, seed=args.seed
        )
    return rows, generations


def describe_run(args: argparse.Namespace, folder: Any, changes: dict[str, Any], dtype: str) -> dict[str, Any]:
    """What a run is: another rows file, model or setting makes it another one, and its answers do not mix."""
    from onereason.io import hash_file
    from onereason.itemic.vocabulary import ITEMIC_FILE

    inputs = [folder.path / ITEMIC_FILE, folder.path / "tokenizer.json"]
    if not args.endpoint_url:
        inputs += sorted(path for path in folder.path.iterdir() if path.suffix == ".safetensors")
    return {
        "config": {
            "rows": hash_file(args.rows) if args.rows else None,
            "modes": list(args.modes) if args.modes else None,
            "max_rows": args.max_rows,
            "seed": args.seed,
            "changes": changes,
            "dtype": dtype,
            "endpoint_model": args.endpoint_model,
        },
        "inputs": {path.name: hash_file(path) for path in inputs},
        "format": folder.vocabulary.format.to_dict(),
    }


def write_results(
    args: argparse.Namespace, rows: list[EvaluationRow], generations: list[Generation], graders: list[Grader]
) -> None:
    """Extracts, scores, aggregates; writes results, report and scores into the run folder and prints the tables."""
    from dataclasses import asdict, replace

    from onereason.evaluation.layers.lm_eval import LM_EVAL_FILE
    from onereason.evaluation.layers.report import write_layer_report
    from onereason.evaluation.layers.run import load_run
    from onereason.evaluation.layers.scoring import aggregate, score_answers
    from onereason.evaluation.layers.tasks import load_task
    from onereason.io import build_manifest, read_json

    state = load_run(args.out)
    scored, reasons = score_answers(rows, generations, graders)
    changes = state["config"]["changes"]
    settings = {t: asdict(replace(load_task(t).generation, **changes)) for t in dict.fromkeys(row.task for row in rows)}
    harness = read_json(args.out / LM_EVAL_FILE)["results"] if (args.out / LM_EVAL_FILE).is_file() else {}
    results: dict[str, Any] = {
        "tasks": aggregate(scored, reasons, state["config"]["seed"]),
        "lm_eval": harness,
        "settings": settings,
        "graders": [grader.describe() for grader in graders],
    }
    manifest = build_manifest(
        "layered_evaluation",
        inputs=[args.rows] if args.rows else [],
        config=state["config"],
        seed=state["config"]["seed"],
        counts={"rows": len(rows), "answers": len(generations)},
    )
    results["manifest"] = manifest | {"inputs": manifest["inputs"] | state["inputs"]}
    write_layer_report(results, scored, args.out)
    print_results(results, args.out)


def print_results(results: dict[str, Any], folder: Path) -> None:
    """A table a layer, why values are missing, and where the report stands, on standard output."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from onereason.evaluation.layers import report as layer_report

    console = Console()
    tables = [
        (layer_report.LAYER_TITLES[layer], layer_report.TABLE_HEADER, rows)
        for layer, rows in layer_report.layer_tables(results, intervals=False)
    ]
    if results["lm_eval"]:
        tables.append(("lm-evaluation-harness", layer_report.HARNESS_HEADER, layer_report.harness_rows(results)))
    for title, header, rows in tables:
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for name in header:
            table.add_column(name, no_wrap=True)
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
    if results["tasks"]:
        console.print("* the 95 % interval leaves out 0; malformed answers: without / with thinking", highlight=False)
    for note in layer_report.notes(results):
        console.print(f"no value for {note}", highlight=False, soft_wrap=True, markup=False)
    report = folder / layer_report.REPORT_FILE
    console.print(f"report: {report}", highlight=False, soft_wrap=True, markup=False)
