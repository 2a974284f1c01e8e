r"""R1, derivation: where one item leads to, told from that item alone.

    python -m data_builders.build_derivation --data runs/world --catalog runs/catalog --out runs/corpora/derivation

Pairs come from training timelines: the very next item, an item near it, and a search after a play where the logs have
searches (`--search-actions`). A judge sorts them into explicitly related, uncertain and unrelated; only the first
teach. A pair gives the six fields of its hop as JSON, with or without a trace, or a choice among items of which one
goes with the source. Pairs that say the same of one source (same kind of hop, same category and domain) give one row.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import orjson

from data_builders.cards import Row, prompt_settings
from data_builders.cognition import SPLIT_OPTIONS, CognitionInputs, add_cognition_arguments, load_cognition_inputs
from data_builders.common import add_engine_arguments, build_parser, run_builder
from data_builders.drafting import write_drafts
from data_builders.engine import build_corpus
from data_builders.shards import Reject
from data_builders.think_rows import think_answer
from data_builders.training_log import load_training_log
from onereason.cognition.associations import flatten_histories
from onereason.cognition.bridges import (
    ORIGINS,
    PairRules,
    Pairs,
    find_pairs,
    find_related_interests,
    find_searches,
    judge_pairs,
)
from onereason.cognition.gate import TraceGate, add_gate_arguments, gate_from_arguments
from onereason.cognition.hops import TEXT_FIELDS, HopAssignment, HopWriter, parse_fields
from onereason.cognition.judge.relations import RELATIONS
from onereason.cognition.streams import Stream
from onereason.cognition.teachers import Teacher
from onereason.cognition.teachers.factory import TEACHER_OPTIONS, add_teacher_arguments, teacher_from_arguments
from onereason.data.prompts import add_switch
from onereason.errors import ConfigError

PROMPT_SETS = ("domains", "derivation", "trace")

CARD = """
What an item leads to in one hop. `bridge` rows answer with six fields: the need behind the source, the type of the
hop, the hop in the abstract, the direction it continues in, the reason out of the logs, and how sure it is. `item2item`
rows choose the item that goes with the source among others whose category has nothing to do with it, nor has that of
any item under the same sid. The source is all that is shown; the target decided about the answer and is named in none.

Pairs were seen in the training part of the split. Uncertain and unrelated ones were rejected.
"""

LETTERS = "ABCDEFGHIJ"


class Hop(NamedTuple):
    """A pair that waits for its fields."""

    id: str
    place: int
    thinks: bool
    turn: int


@dataclass
class DerivationSource:
    """All rows; a unit is a pair.

    Attributes:
        inputs: dataset, facts and knowledge.
        pairs: candidates, none that says the same as another.
        relations: class of each pair, index into `RELATIONS`.
        writer, teacher, gate: who describes hops, and what the descriptions have to pass.
        related: boolean, whether two interests have to do with each other (`find_related_interests`).
        mates: of each item, the interests of all items under its pattern.
        by_domain: items of each domain.
        choice_share, think_share: rows that ask for a choice; bridge rows with a trace.
        num_choices: of a choice.
        seed: of the random choices.
    """

    inputs: CognitionInputs
    pairs: Pairs
    relations: np.ndarray
    writer: HopWriter
    teacher: Teacher
    gate: TraceGate
    related: np.ndarray
    mates: Sequence[tuple[int, ...]]
    by_domain: dict[str, list[int]]
    choice_share: float
    think_share: float
    num_choices: int
    seed: int
    _rows: dict[tuple[int, ...], bytes] = field(default_factory=dict, init=False, repr=False)

    @property
    def num_units(self) -> int:
        return len(self.pairs)

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        facts = self.inputs.facts
        plan: list[Row | Reject | Hop] = []
        sources = self.pairs.sources[start:stop].tolist()
        targets = self.pairs.targets[start:stop].tolist()
        origins = self.pairs.origins[start:stop].tolist()
        classes = self.relations[start:stop].tolist()
        for place, (source, target, origin, relation) in enumerate(
            zip(sources, targets, origins, classes, strict=True), start
        ):
            row_id = f"{facts.item_ids[source]}:{ORIGINS[origin]}:{facts.item_ids[target]}"
            if relation:
                plan.append(Reject(row_id, RELATIONS[relation], f"lift {self.pairs.lifts[place]:.2f}"))
                continue
            stream = Stream(self.seed, place)
            if stream.chance(self.choice_share):
                plan.append(self._choice(row_id, source, target, stream))
            else:
                plan.append(Hop(row_id, place, stream.chance(self.think_share), stream.below(64)))
        return write_drafts(plan, self.teacher, self._assign, self._accept)

    def _assign(self, hop: Hop) -> HopAssignment:
        return HopAssignment(hop.id, self.writer, self.pairs, hop.place)

    def _accept(self, written: Sequence[tuple[Hop, str]]) -> list[Row | Reject]:
        return [self._finish(hop, text) for hop, text in written]

    def _finish(self, hop: Hop, text: str) -> Row | Reject:
        fields = parse_fields(text)
        if isinstance(fields, str):
            return Reject(hop.id, fields, text[:200])
        source, target = int(self.pairs.sources[hop.place]), int(self.pairs.targets[hop.place])
        try:
            answer = orjson.dumps(fields).decode()
        except orjson.JSONEncodeError:  # half a surrogate pair, which no UTF-8 file holds
            return Reject(hop.id, "teacher_broken_json")
        if self.teacher.name != "template":
            wrong = self.gate.check_language("\n".join([fields[name] for name in TEXT_FIELDS]))
            if wrong is not None:
                return Reject(hop.id, wrong.reason, wrong.detail)
        trace = self.writer.trace(self.pairs, hop.place, hop.turn) if hop.thinks else None
        # read as text: in JSON, an escape such as \n would stand between the words of a name
        said = "\n".join([trace or "", *map(str, fields.values())])
        problem = self.gate.find_leak(said, target)
        if problem is not None:
            return Reject(hop.id, problem.reason, problem.detail)
        system, user = self.writer.messages(source, target, hop.turn)
        return self._row(f"{hop.id}:bridge", "bridge", target, [system, user], answer, trace, self.teacher.name)

    def _choice(self, row_id: str, source: int, target: int, stream: Stream) -> Row | Reject:
        """The target among patterns none of whose items has to do with an item under the source's pattern.

        Of an item whose interest is unknown, nobody knows.
        """
        facts = self.inputs.facts
        patterns, domain = facts.patterns, facts.domains[target]
        shown = {patterns[source], patterns[target]}
        if len(shown) < 2:
            return Reject(row_id, "target_under_the_source_s_sid")
        near = self._near(self.mates[source])
        pool = self.by_domain[domain]
        wrong: list[str] = []
        for _ in range(20 * self.num_choices):
            item = pool[stream.below(len(pool))]
            if patterns[item] not in shown and not any(z < 0 or near[z] for z in self.mates[item]):
                shown.add(patterns[item])
                wrong.append(patterns[item])
                if len(wrong) == self.num_choices - 1:
                    break
        if not wrong:
            return Reject(row_id, "no_unrelated_item")
        choices = [patterns[target], *wrong]
        stream.shuffle(choices)
        prompts, turn = self.writer.prompts, stream.below(64)
        user = prompts.text("item2item.user", turn).format(
            noun=self.writer.nouns(source)[0],
            pattern=patterns[source],
            choices="\n".join([f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]),
        )
        messages = [
            {"role": "system", "content": prompts.text("item2item.system", turn).format()},
            {"role": "user", "content": user},
        ]
        answer = LETTERS[choices.index(patterns[target])]
        return self._row(f"{row_id}:item2item", "item2item", target, messages, answer, None, "template")

    def _near(self, interests: tuple[int, ...]) -> bytes:
        """For each interest, whether it has to do with one of these: a look-up in bytes is quicker than in an array."""
        row = self._rows.get(interests)
        if row is None:
            known = [z for z in interests if z >= 0]
            row = self._rows[interests] = self.related[known].any(axis=0).tobytes()
        return row

    def _row(
        self,
        row_id: str,
        task: str,
        target: int,
        messages: list[dict[str, str]],
        answer: str,
        trace: str | None,
        teacher: str,
    ) -> Row:
        mode = "no_think" if trace is None else "think"
        *before, last = messages
        last = {"role": "user", "content": add_switch(last["content"], mode)}
        said = {"role": "assistant", "content": answer if trace is None else think_answer(trace, answer)}
        return {
            "id": row_id,
            "task": task,
            "loss": "assistant",
            "mode": mode,
            "domain": self.inputs.facts.domains[target],
            "teacher": teacher,
            "messages": [*before, last, said],
        }


def interests_under_patterns(patterns: Sequence[str], interest_of: Sequence[int]) -> list[tuple[int, ...]]:
    """Of each item, the interests of all items under its pattern, itself among them; negative where unknown."""
    under: dict[str, tuple[int, ...]] = {}
    for pattern, interest in zip(patterns, interest_of, strict=True):
        found = under.get(pattern, ())
        if interest not in found:
            under[pattern] = (*found, interest)
    return [under[pattern] for pattern in patterns]


def drop_repeats(pairs: Pairs, relations: np.ndarray, interests: np.ndarray, domains: Sequence[str]) -> np.ndarray:
    """Positions of pairs, one of those that say the same of a source: kind of hop, interest and domain it leads to.

    It is one of the surest class (`RELATIONS`), so that no uncertain pair takes the place of a related one. There,
    searches come first: each is a next step too, which says less. Else the first counts.
    """
    kind = np.unique(np.array(domains), return_inverse=True)[1]
    order = np.lexsort((pairs.origins != ORIGINS.index("search"), relations))
    keys = np.stack([pairs.sources, pairs.types, interests[pairs.targets], kind[pairs.targets]])[:, order]
    first = np.unique(keys, axis=1, return_index=True)[1]
    return np.sort(order[first])


def known_actions(text: str, actions: Set[str]) -> list[str]:
    """The names of `--search-actions` that the training part's events have; those that none has are told on stderr.

    Raises:
        ConfigError: no event has any of them.
    """
    named = [name for part in text.split(",") if (name := part.strip())]
    missing = [name for name in named if name not in actions]
    has = f"events of the training part have {', '.join(sorted(actions))}"
    if len(missing) == len(named):
        raise ConfigError(
            f"--search-actions {text!r}: no event has such an action; {has}. Name one of them, or leave it out."
        )
    if missing:
        print(f"--search-actions: no event has the action {', '.join(missing)}; {has}", file=sys.stderr)
    return named


def check_arguments(args: argparse.Namespace) -> None:
    """`ConfigError` for a value that makes no sense."""
    for name in ("think_share", "choice_share"):
        if not 0 <= getattr(args, name) <= 1:
            raise ConfigError(f"--{name.replace('_', '-')} must lie between 0 and 1, got {getattr(args, name)}.")
    if not 2 <= args.num_choices <= len(LETTERS):
        raise ConfigError(f"--num-choices must lie between 2 and {len(LETTERS)}, got {args.num_choices}.")
    if args.judge != "rules" or args.judge_thresholds:
        raise ConfigError(
            "--judge and --judge-thresholds score the three stages of a recommendation's trace, which a bridge does "
            "not have; leave them out."
        )
    if args.window < 1 or args.partners < 1:
        raise ConfigError(f"--window ({args.window}) and --partners ({args.partners}) must be at least 1.")
    prompt_settings(args.language, PROMPT_SETS)


def build(args: argparse.Namespace) -> None:
    check_arguments(args)
    teacher = teacher_from_arguments(args)
    inputs = load_cognition_inputs(args)
    items, offsets = flatten_histories(inputs.part.histories)
    searches = None
    if args.search_actions:
        log = load_training_log(args, inputs.part)
        actions = log.actions.to_list()
        named = known_actions(args.search_actions, set(actions))
        searches = find_searches(items, offsets, log.timestamps, actions, named, args.search_seconds)
        if not len(searches[0]):
            print(f"no {' or '.join(named)} follows another event within {args.search_seconds} s", file=sys.stderr)
    rules = PairRules(window=args.window, partners=args.partners)
    found = find_pairs(inputs.knowledge, items, offsets, searches, rules)
    interests = inputs.knowledge.interests.of_item
    relations = judge_pairs(inputs.knowledge, found)
    kept = drop_repeats(found, relations, interests, inputs.facts.domains)
    pairs = found.select(kept)
    writer = HopWriter(inputs.knowledge, args.language)
    by_domain: dict[str, list[int]] = {}
    for item, domain in enumerate(inputs.facts.domains):
        by_domain.setdefault(domain, []).append(item)
    source = DerivationSource(
        inputs,
        pairs,
        relations[kept],
        writer,
        teacher,
        gate_from_arguments(args, inputs.knowledge, teacher),
        find_related_interests(inputs.knowledge, items, offsets, searches, rules),
        interests_under_patterns(inputs.facts.patterns, inputs.knowledge.interest_of),
        by_domain,
        args.choice_share,
        args.think_share,
        args.num_choices,
        args.seed,
    )
    build_corpus(
        args,
        source,
        title="One-hop bridges",
        description=CARD,
        inputs=inputs.inputs,
        options=(
            "window",
            "partners",
            "search_actions",
            "search_seconds",
            "choice_share",
            "think_share",
            "num_choices",
            "theme_attribute",
            *SPLIT_OPTIONS,
            *TEACHER_OPTIONS,
        ),
        extra={
            **prompt_settings(args.language, PROMPT_SETS),
            "pairs_found": len(found),
            "pairs_that_say_the_same": len(found) - len(pairs),
            "searches": 0 if searches is None else len(searches[0]),
        },
    )


def make_parser() -> argparse.ArgumentParser:
    parser = build_parser(__doc__, timelines=True)
    add_engine_arguments(parser)
    add_cognition_arguments(parser)
    add_teacher_arguments(parser)
    add_gate_arguments(parser)
    parser.add_argument("--window", type=int, default=4, help="items that stand at most so far apart are near")
    parser.add_argument("--partners", type=int, default=8, help="items kept for each source and origin")
    parser.add_argument("--search-actions", metavar="NAME,...", help="actions that are searches, e.g. search")
    parser.add_argument("--search-seconds", type=int, default=1800, help="from a play to a search that comes of it")
    parser.add_argument("--choice-share", type=float, default=0.5, help="rows that ask for a choice among items")
    parser.add_argument("--think-share", type=float, default=0.5, help="bridge rows with a trace")
    parser.add_argument("--num-choices", type=int, default=4, help="choices of a question, where there are so many")
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_builder(make_parser(), build, argv)


if __name__ == "__main__":
    sys.exit(main())
