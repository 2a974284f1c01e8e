"""`onereason pipeline`: the stages of a project, one after another; what is done is skipped."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onereason.pipeline.plan import Plan, Stage
    from onereason.pipeline.records import Status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="pipeline file, e.g. recipes/configs/pipeline/tiny.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="right behind the file: run=runs/other vars.users=500"
    )
    parser.add_argument("--dry-run", action="store_true", help="check the file, show where every stage stands, and end")
    parser.add_argument("--only", type=parse_names, metavar="STAGE,STAGE", help="run these stages only")
    parser.add_argument("--until", metavar="STAGE", help="run the stages up to this one")
    parser.add_argument(
        "--redo",
        type=parse_names,
        default=(),
        metavar="STAGE,STAGE",
        help="remove what these stages and those that depend on them wrote, and run them again",
    )


def parse_names(text: str) -> tuple[str, ...]:
    """`a,b` -> `("a", "b")`."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def run(args: argparse.Namespace) -> int | None:
    from onereason.errors import ConfigError
    from onereason.pipeline.plan import load_plan
    from onereason.pipeline.records import judge, locked, read_record, remove_stages

    if args.only and args.until:
        raise ConfigError("--only and --until exclude each other; give one.")
    plan = load_plan(args.file, args.overrides)
    chosen = choose_stages(plan, args.only, args.until)
    redone = plan.dependents([stage.name for stage in plan.select(args.redo, "--redo")])
    redone = [
        stage for stage in redone if read_record(plan, stage) is not None
    ]  # what it never wrote, it never removes
    if args.dry_run:
        print_states(plan, judge(plan), {stage.name for stage in redone})
        return None
    with locked(plan) as lock:
        for stage in redone:
            print(f"--redo removes {stage.out}", flush=True)
        remove_stages(plan, redone)
        refuse_stale(chosen, judge(plan))
        run_stages(plan, chosen, lock)
        finish(plan, args.file)
    return None


def choose_stages(plan: Plan, only: Sequence[str] | None, until: str | None) -> list[Stage]:
    """The stages that are to be run, in the plan's order."""
    if only:
        return plan.select(only, "--only")
    if until:
        last = plan.select([until], "--until")[-1]
        return list(plan.stages[: plan.stages.index(last) + 1])
    return list(plan.stages)


def refuse_stale(chosen: Sequence[Stage], statuses: Mapping[str, Status]) -> None:
    """`StorageError` where a stage was made from something else than what the file says now."""
    from onereason.errors import StorageError

    for stage in chosen:
        status = statuses[stage.name]
        if status.state != "stale":
            continue
        if status.record is None:
            raise StorageError(f"stage {stage.name}: {status.why}; move it away, or choose another run.")
        raise StorageError(
            f"stage {stage.name} is stale: {status.why}. `--redo {stage.name}` removes {stage.out} and what depends on "
            "it and runs them again; with another run=FOLDER nothing is removed."
        )


def run_stages(plan: Plan, chosen: Sequence[Stage], lock: int) -> None:
    """Runs what is not done.

    Raises:
        ConfigError: a stage needs one that is neither done nor chosen.
        StageError: a stage failed.
        KeyboardInterrupt, SystemExit: a signal ended a stage.
    """
    import signal
    import sys

    from onereason.errors import ConfigError, StageError
    from onereason.pipeline.execution import run_stage
    from onereason.pipeline.plan import LOGS
    from onereason.pipeline.records import begin, judge, write_record

    for number, stage in enumerate(chosen, 1):
        statuses = judge(plan)
        status, needs = statuses[stage.name], {name: statuses[name] for name in stage.needs}
        title = f"[{number}/{len(chosen)}] {stage.name}"
        if status.state == "done":
            assert status.record is not None
            if status.record.state != "done":  # it ended after its driver was killed
                write_record(plan, stage, replace(status.record, state="done"))
            print(f"{title}: done", flush=True)
            continue
        if missing := [name for name, need in needs.items() if need.state != "done"]:
            raise ConfigError(f"stage {stage.name} needs {', '.join(missing)}, which is not done; run it as well.")
        print(f"{title}{f' ({status.why})' if status.why else ''}", flush=True)
        record = begin(stage, status.record, needs)
        write_record(plan, stage, record)
        log = plan.run / LOGS / f"{stage.name}.log"
        ended = run_stage(stage, log, lock)
        succeeded = ended.code == 0 and stage.done.exists()
        seconds = record.seconds + ended.seconds
        write_record(plan, stage, replace(record, state="done" if succeeded else "failed", seconds=seconds))
        if ended.signal is not None:
            raise KeyboardInterrupt if ended.signal == signal.SIGINT else SystemExit(128 + ended.signal)
        if not succeeded:
            print("\n".join([f"--- the last lines of {log}:", *ended.last_lines, "---"]), file=sys.stderr, flush=True)
            how = f"ended with exit code {ended.code}" if ended.code else f"ended well and wrote no {stage.done}"
            raise StageError(
                f"stage {stage.name} {how} after {ended.seconds:.0f} s; its output is in {log}. Mend the cause and "
                f"give the same command again: it goes on with this stage (with `--redo {stage.name}`, from its start)."
            )


def finish(plan: Plan, file: Path) -> None:
    """Prints the table of all stages, and writes and prints the report of what is done of them."""
    from onereason.pipeline.records import judge

    statuses = judge(plan)
    print_states(plan, statuses, set())
    shown = [stage for stage in plan.stages if stage.report is not None and statuses[stage.name].state == "done"]
    if not shown:
        return
    from onereason.evaluation.project import EvaluatedStage, TrainedStage, load_evaluation, load_training
    from onereason.evaluation.project_report import print_project, write_project_report

    evaluated: list[EvaluatedStage] = []
    trained: list[TrainedStage] = []
    for stage in shown:
        name = str(stage.report)
        if stage.done.suffix == ".json":
            evaluated.append(load_evaluation(name, stage.done))
        else:
            trained.append(load_training(name if stage.domain is None else f"{name}, {stage.domain}", stage.out))
    seconds = {name: status.record.seconds for name, status in statuses.items() if status.record is not None}
    report = write_project_report(plan.run, file.stem, evaluated, trained, seconds)
    print_project(evaluated, report)


def print_states(plan: Plan, statuses: Mapping[str, Status], redone: set[str]) -> None:
    """A table of the stages: where each stands, and how long it took."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{plan.run}: {len(plan.stages)} stages", title_justify="left")
    for column in ("stage", "state", "time", "what"):
        table.add_column(column)
    for stage in plan.stages:
        status = statuses[stage.name]
        state, why = ("to run", "--redo removes it") if stage.name in redone else (status.state, status.why)
        seconds = status.record.seconds if status.record is not None else 0.0
        table.add_row(stage.name, state, str(timedelta(seconds=round(seconds))) if seconds else "", escape(why))
    Console().print(table)
