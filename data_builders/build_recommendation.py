r"""R3, recommendation with a three-stage trace: persona abstraction, interest expansion, transition inference.

    python -m data_builders.build_recommendation --data runs/world --catalog runs/catalog \
        --out runs/corpora/recommendation
    python -m data_builders.build_recommendation ... --teacher endpoint --teacher-url http://localhost:8000/v1 \
        --teacher-model Qwen3-32B

Each user's newest training items are targets, as many as `--targets` says. A target gives a row without thinking, and
one whose trace leads from the history to it, where the history speaks for it and the trace passes the checks: it must
not give the answer away, cites only what stands in the shown history, has its three stages, and is good enough for the
judge. What is left out stands in `rejected.jsonl` with the reason.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from data_builders.cards import Row, prompt_settings
from data_builders.cognition import SPLIT_OPTIONS, CognitionInputs, add_cognition_arguments, load_cognition_inputs
from data_builders.common import add_engine_arguments, build_parser, run_builder
from data_builders.drafting import write_drafts
from data_builders.engine import build_corpus
from data_builders.shards import Reject
from data_builders.think_rows import RecommendationRows
from onereason.cognition.checks.prefix import check_evidence
from onereason.cognition.evidence import CONCLUSIONS, Evidence, gather_evidence
from onereason.cognition.gate import GATE_OPTIONS, TraceCase, TraceGate, add_gate_arguments, gate_from_arguments
from onereason.cognition.teachers import Teacher
from onereason.cognition.teachers.factory import TEACHER_OPTIONS, add_teacher_arguments, teacher_from_arguments
from onereason.cognition.trace import DETAILS, TraceAssignment, TraceWriter
from onereason.cognition.walk import Walk
from onereason.errors import ConfigError

PROMPT_SETS = ("domains", "recommendation", "trace")

CARD = """
Which item comes next, asked with the history in time order; answered at once, or after a trace in a think block. The
trace has three stages: what the user is like, which interests may come next with the items that show them, and which
of them fits now and how the user gets there. The loss falls on the trace and the answer.

The target was known to the teacher, and chose among the interests that the history brings up itself. Traces that name
it, its title or anything only it has were rejected, as were those that cite items outside the shown history, or that
rest on anything at or behind the target (`evidence_after_target`).

Only the training part of the split is read. Validation and test items appear in no row, and the persona of a row is
made of the items before its target.
"""


@dataclass(frozen=True)
class Target:
    """One item that a trace is to lead up to.

    Attributes:
        id: of its rows, without the mode.
        user_id: whose history it is.
        shown: the history that is shown, item indices, oldest first.
        item: the target's item index.
        evidence: for the trace.
    """

    id: str
    user_id: str
    shown: Sequence[int]
    item: int
    evidence: Evidence


@dataclass
class RecommendationSource:
    """All rows; a unit is a user.

    Attributes:
        inputs: dataset, facts and knowledge.
        writer: of the template's traces.
        teacher: who writes the traces.
        gate: what they have to pass.
        rows: makes the rows.
        modes: `think`, `no_think`.
        targets: newest training items of each user that are led up to.
        min_history, max_history: items before a target; the newest are shown.
        num_candidates: interests a trace weighs.
        max_cited: items cited for an interest, at most.
        num_readings: newest items a trace reads one by one.
        conclusion: `hindsight` or `belief` (`gather_evidence`).
        seed: of the wordings.
    """

    inputs: CognitionInputs
    writer: TraceWriter
    teacher: Teacher
    gate: TraceGate
    rows: RecommendationRows
    modes: Sequence[str]
    targets: int
    min_history: int
    max_history: int
    num_candidates: int
    max_cited: int
    num_readings: int
    conclusion: str
    seed: int

    @property
    def num_units(self) -> int:
        return len(self.inputs.part.histories)

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        plan: list[Row | Reject | Target] = []
        for user in range(start, stop):
            self._plan_user(user, self.inputs.part.histories[user].tolist(), plan)
        return write_drafts(plan, self.teacher, self._assign, self._accept)

    def take_counts(self) -> dict[str, int]:
        """Verdicts, where a teacher judges: `judged_by_teacher`, `judged_by_rules`."""
        return {f"judged_by_{who}": number for who, number in self.gate.take_judged().items()}

    def _plan_user(self, user: int, history: list[int], plan: list[Row | Reject | Target]) -> None:
        """A user's rows. A trace may speak of what is shown only, so its walk reads nothing else."""
        first = max(self.min_history, len(history) - self.targets)
        user_id = self.inputs.part.user_ids[user]
        if first >= len(history):
            plan.append(Reject(user_id, "history_too_short", f"{len(history)} items"))
            return
        walk = self._read(history[max(0, first - self.max_history) : first])
        for place in range(first, len(history)):
            item = history[place]
            row_id = f"{user_id}:{place}"
            if "think" in self.modes:
                evidence = gather_evidence(
                    self.inputs.knowledge,
                    walk,
                    item,
                    self.num_candidates,
                    self.max_cited,
                    self.conclusion,
                    self.num_readings,
                )
                if isinstance(evidence, str):
                    plan.append(Reject(row_id, evidence, self.inputs.facts.captions[item]))
                elif late := check_evidence(evidence, max(0, place - self.max_history), place):
                    plan.append(Reject(row_id, late.reason, late.detail))
                else:
                    plan.append(Target(row_id, user_id, walk.items[:], item, evidence))
            if "no_think" in self.modes:
                plan.append(self._row(row_id, user_id, walk.items, item, None))
            if place >= self.max_history:  # the oldest item leaves what is shown
                walk = self._read(history[place + 1 - self.max_history : place + 1])
            else:
                walk.read(item)

    def _read(self, items: Sequence[int]) -> Walk:
        walk = self.inputs.knowledge.walk()
        walk.read_all(items)
        return walk

    def _assign(self, target: Target) -> TraceAssignment:
        return TraceAssignment(
            target.id, self.writer, target.evidence, target.shown, target.item, self.rows.language, self.seed
        )

    def _accept(self, written: Sequence[tuple[Target, str]]) -> list[Row | Reject]:
        own = self.teacher.name == "template"
        cases = [TraceCase(t.id, trace, t.shown, t.item, t.evidence if own else None) for t, trace in written]
        problems = self.gate.check_traces(cases)
        return [
            Reject(t.id, problem.reason, problem.detail)
            if problem is not None
            else self._row(t.id, t.user_id, t.shown, t.item, trace)
            for (t, trace), problem in zip(written, problems, strict=True)
        ]

    def _row(self, row_id: str, user_id: str, shown: Sequence[int], item: int, trace: str | None) -> Row:
        facts = self.inputs.facts
        patterns = facts.patterns
        return self.rows.row(
            f"{row_id}:{'no_think' if trace is None else 'think'}",
            user_id,
            "".join([patterns[i] for i in shown]),
            facts.domains[item],
            patterns[item],
            trace,
            self.teacher.name,
        )


def parse_modes(text: str) -> list[str]:
    """`think,no_think` -> `["think", "no_think"]`."""
    modes = [mode.strip() for mode in text.split(",") if mode.strip()]
    if not modes or len(set(modes)) < len(modes) or not set(modes) <= {"think", "no_think"}:
        raise ConfigError(f"--modes {text!r} must name think, no_think or both, each once.")
    return modes


def check_arguments(args: argparse.Namespace) -> None:
    """`ConfigError` for a value that makes no sense."""
    parse_modes(args.modes)
    if not 1 <= args.min_history <= args.max_history:
        raise ConfigError(
            f"--min-history ({args.min_history}) must be at least 1 and at most --max-history ({args.max_history})."
        )
    for name, least in (("targets", 1), ("num_candidates", 1), ("max_cited", 1), ("num_readings", 0)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(args, name)}.")
    prompt_settings(args.language, PROMPT_SETS)


def make_source(args: argparse.Namespace) -> RecommendationSource:
    """The rows' source that arguments of `make_parser` describe."""
    check_arguments(args)
    teacher = teacher_from_arguments(args)
    inputs = load_cognition_inputs(args)
    writer = TraceWriter(inputs.knowledge, args.language, args.detail)
    return RecommendationSource(
        inputs,
        writer,
        teacher,
        gate_from_arguments(args, inputs.knowledge, teacher),
        RecommendationRows("recommendation", inputs.facts.format, args.language),
        parse_modes(args.modes),
        args.targets,
        args.min_history,
        args.max_history,
        args.num_candidates,
        args.max_cited,
        args.num_readings,
        args.conclusion,
        args.seed,
    )


def build(args: argparse.Namespace) -> None:
    source = make_source(args)
    build_corpus(
        args,
        source,
        title="Recommendation with three-stage traces",
        description=CARD,
        inputs=source.inputs.inputs,
        options=(
            "modes",
            "targets",
            "min_history",
            "max_history",
            "num_candidates",
            "max_cited",
            "num_readings",
            "conclusion",
            "detail",
            "theme_attribute",
            *SPLIT_OPTIONS,
            *TEACHER_OPTIONS,
            *GATE_OPTIONS,
        ),
        extra=prompt_settings(args.language, PROMPT_SETS),
    )


def make_parser() -> argparse.ArgumentParser:
    parser = build_parser(__doc__, timelines=True)
    add_engine_arguments(parser)
    add_cognition_arguments(parser)
    add_teacher_arguments(parser)
    add_gate_arguments(parser)
    parser.add_argument("--modes", default="think,no_think", help="rows with a trace, without, or both")
    parser.add_argument("--targets", type=int, default=1, help="newest training items of each user that are led up to")
    parser.add_argument("--min-history", type=int, default=3, help="items that must stand before a target")
    parser.add_argument("--max-history", type=int, default=50, help="newest items that are shown")
    parser.add_argument("--num-candidates", type=int, default=3, help="interests that a trace weighs")
    parser.add_argument("--max-cited", type=int, default=3, help="newest items that are cited for an interest")
    parser.add_argument(
        "--num-readings",
        type=int,
        default=0,
        help="newest items that a trace reads one by one before it sums them up; helps small models (%(default)s)",
    )
    parser.add_argument(
        "--conclusion",
        choices=CONCLUSIONS,
        default="hindsight",
        help="what the template teacher concludes: the interest of the target, or the most likely one, right or wrong",
    )
    parser.add_argument("--detail", choices=DETAILS, default="full", help="wording of the template teacher")
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_builder(make_parser(), build, argv)


if __name__ == "__main__":
    sys.exit(main())
