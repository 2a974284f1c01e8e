r"""Pruned-context rationales: reason from a few relevant items, supervised on the whole raw history.

    python -m data_builders.build_rationales --data runs/world --catalog runs/catalog --out runs/corpora/rationales \
        --relevance prefix=1,co_occurrence=1,embedding=1

g(S, y): of a history S, the `--k` items most relevant to the target y by the levels of the ids' common prefix, by how
often the two stand near each other, by the cosine of the items' vectors (`onereason tokenize --save-vectors`), or a
mix. The teacher explains y from these; the student is asked with all of S and learns to find them. Rationales that give
the answer away or cite anything else are rejected.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_builders.cards import Row, prompt_settings
from data_builders.cognition import SPLIT_OPTIONS, CognitionInputs, add_cognition_arguments, load_cognition_inputs
from data_builders.common import add_engine_arguments, build_parser, run_builder
from data_builders.drafting import write_drafts
from data_builders.engine import build_corpus
from data_builders.shards import Reject
from data_builders.think_rows import RecommendationRows
from onereason.cognition.associations import flatten_histories
from onereason.cognition.gate import GATE_OPTIONS, TraceGate, add_gate_arguments, gate_from_arguments
from onereason.cognition.rationale import Rationale, RationaleAssignment, RationaleWriter, find_rationale
from onereason.cognition.relevance import VIEWS, Relevance, RelevanceWeights, build_relevance, relevant_items
from onereason.cognition.teachers import Teacher
from onereason.cognition.teachers.factory import TEACHER_OPTIONS, add_teacher_arguments, teacher_from_arguments
from onereason.errors import ConfigError
from onereason.itemic.embed import VECTORS_FILE, load_precomputed

PROMPT_SETS = ("domains", "recommendation", "rationale")

CARD = """
Which item comes next, asked with the whole history, answered after a short rationale. The rationale was written from
the few items of the history that are relevant to the answer, which a student has to find in the whole. The loss falls
on rationale and answer. Rationales that name the answer or cite anything else were rejected.

Only the training part of the split is read: no row is made of a validation or test event.
"""


@dataclass(frozen=True)
class Target:
    """An item that a rationale is to lead up to.

    Attributes:
        id: of its row, without the task.
        user_id: whose history it is.
        shown: the history that is shown, item indices, oldest first.
        pruned: those of them that are relevant to the target, oldest first.
        item: the target's item index.
        rationale: what is to be said.
    """

    id: str
    user_id: str
    shown: Sequence[int]
    pruned: Sequence[int]
    item: int
    rationale: Rationale


@dataclass
class RationaleSource:
    """All rows; a unit is a user.

    Attributes:
        inputs: dataset, facts and knowledge.
        relevance: scores items of a history against a target.
        writer, teacher, gate: who writes rationales, and what they have to pass.
        rows: makes the rows.
        k: items of a pruned context.
        targets: newest training items of each user that are led up to.
        min_history, max_history: items before a target; the newest are shown.
        seed: of the wordings.
    """

    inputs: CognitionInputs
    relevance: Relevance
    writer: RationaleWriter
    teacher: Teacher
    gate: TraceGate
    rows: RecommendationRows
    k: int
    targets: int
    min_history: int
    max_history: int
    seed: int

    @property
    def num_units(self) -> int:
        return len(self.inputs.part.histories)

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        part, facts = self.inputs.part, self.inputs.facts
        plan: list[Row | Reject | Target] = []
        examples: list[tuple[str, str, np.ndarray, int]] = []
        order: list[Reject | int] = []
        for user in range(start, stop):
            history, user_id = part.histories[user], part.user_ids[user]
            first = max(self.min_history, len(history) - self.targets)
            if first >= len(history):
                order.append(Reject(user_id, "history_too_short", f"{len(history)} items"))
            for place in range(first, len(history)):
                order.append(len(examples))
                shown = history[max(0, place - self.max_history) : place]
                examples.append((f"{user_id}:{place}", user_id, shown, int(history[place])))
        targets = np.array([item for _, _, _, item in examples], dtype=np.int64)
        found = relevant_items(self.relevance, [shown for _, _, shown, _ in examples], targets, self.k)
        for entry in order:
            if isinstance(entry, Reject):
                plan.append(entry)
                continue
            row_id, user_id, shown, item = examples[entry]
            items = shown.tolist()
            pruned = [items[place] for place in found[entry]]
            rationale = find_rationale(self.inputs.knowledge, pruned, item)
            if isinstance(rationale, str):
                plan.append(Reject(row_id, rationale, facts.captions[item]))
            else:
                plan.append(Target(row_id, user_id, items, pruned, item, rationale))
        return write_drafts(plan, self.teacher, self._assign, self._accept)

    def _assign(self, target: Target) -> RationaleAssignment:
        return RationaleAssignment(target.id, self.writer, target.rationale, target.pruned, target.item, self.seed)

    def _accept(self, written: Sequence[tuple[Target, str]]) -> list[Row | Reject]:
        return [self._finish(target, text) for target, text in written]

    def _finish(self, target: Target, text: str) -> Row | Reject:
        # the teacher saw the pruned context only, so nothing else of the history may be cited
        problem = self.gate.check_rationale(text, target.pruned, target.item)
        if problem is not None:
            return Reject(target.id, problem.reason, problem.detail)
        facts = self.inputs.facts
        return self.rows.row(
            f"{target.id}:rationale",
            target.user_id,
            "".join([facts.patterns[i] for i in target.shown]),
            facts.domains[target.item],
            facts.patterns[target.item],
            text,
            self.teacher.name,
        )


def parse_weights(text: str) -> RelevanceWeights:
    """`prefix=1,embedding=0.5` -> weights; views that are not named count nothing."""
    values = dict.fromkeys(VIEWS, 0.0)
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            number = float(value or 1)
        except ValueError:
            number = -1.0
        if name not in VIEWS or number < 0:
            raise ConfigError(f"--relevance {part!r}: write VIEW=WEIGHT with a view out of {', '.join(VIEWS)}.")
        values[name] = number
    return RelevanceWeights(**values)


def find_vectors(args: argparse.Namespace) -> Path:
    """The file of item vectors."""
    return args.vectors or args.catalog / VECTORS_FILE


def check_arguments(args: argparse.Namespace) -> None:
    """`ConfigError` for a value that makes no sense."""
    weights = parse_weights(args.relevance)
    for name in ("k", "window", "targets"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(args, name)}.")
    if not 1 <= args.min_history <= args.max_history:
        raise ConfigError(
            f"--min-history ({args.min_history}) must be at least 1 and at most --max-history ({args.max_history})."
        )
    if args.judge != "rules" or args.judge_thresholds:
        raise ConfigError(
            "--judge and --judge-thresholds score the three stages of a recommendation's trace, which a rationale does "
            "not have; leave them out."
        )
    vectors_path = find_vectors(args)
    if weights.embedding and not vectors_path.is_file():
        raise ConfigError(
            f"relevance by embedding reads {vectors_path}, which does not exist; make the catalog with `onereason "
            "tokenize --save-vectors`, name another file with --vectors, or leave embedding out of --relevance."
        )
    prompt_settings(args.language, PROMPT_SETS)


def build(args: argparse.Namespace) -> None:
    check_arguments(args)
    weights, vectors_path = parse_weights(args.relevance), find_vectors(args)
    teacher = teacher_from_arguments(args)
    inputs = load_cognition_inputs(args)
    vectors = load_precomputed(vectors_path, inputs.facts.item_ids) if weights.embedding else None
    writer = RationaleWriter(inputs.knowledge, args.language)
    source = RationaleSource(
        inputs,
        build_relevance(weights, inputs.codes, flatten_histories(inputs.part.histories), vectors, args.window),
        writer,
        teacher,
        gate_from_arguments(args, inputs.knowledge, teacher),
        RecommendationRows("rationale", inputs.facts.format, args.language),
        args.k,
        args.targets,
        args.min_history,
        args.max_history,
        args.seed,
    )
    build_corpus(
        args,
        source,
        title="Rationales from pruned contexts",
        description=CARD,
        inputs=[*inputs.inputs, *([vectors_path] if weights.embedding else [])],
        options=(
            "relevance",
            "k",
            "window",
            "targets",
            "min_history",
            "max_history",
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
    parser.add_argument(
        "--relevance", default="prefix=1,co_occurrence=1", metavar="VIEW=WEIGHT,...", help=f"views: {', '.join(VIEWS)}"
    )
    parser.add_argument(
        "--vectors", type=Path, metavar="FILE", help=f"item vectors (default: {VECTORS_FILE} of the catalog)"
    )
    parser.add_argument("--k", type=int, default=5, help="items of a pruned context")
    parser.add_argument("--window", type=int, default=4, help="steps up to which items stand near each other")
    parser.add_argument("--targets", type=int, default=1, help="newest training items of each user that are led up to")
    parser.add_argument("--min-history", type=int, default=3, help="items that must stand before a target")
    parser.add_argument("--max-history", type=int, default=50, help="newest items that are shown")
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_builder(make_parser(), build, argv)


if __name__ == "__main__":
    sys.exit(main())
