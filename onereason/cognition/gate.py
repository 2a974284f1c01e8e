"""What a trace has to pass before it may teach: form, leakage, citations, and a judge.

The cheap checks come first, and the first problem decides. A judge behind a teacher is asked about whole shards at
once, and only about what has passed all else.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from onereason.cognition.checks.citations import CitationReader
from onereason.cognition.checks.leakage import LeakDetector
from onereason.cognition.checks.patterns import PatternReader
from onereason.cognition.checks.problem import Problem, excerpt
from onereason.cognition.checks.structure import (
    TraceForm,
    check_structure,
    check_tokens,
    count_words,
    list_candidates,
    split_stages,
)
from onereason.cognition.evidence import Evidence
from onereason.cognition.facts import ItemFacts
from onereason.cognition.judge.claims import FactTable
from onereason.cognition.judge.endpoint import FALLBACKS, TeacherJudge
from onereason.cognition.judge.safety import check_safety
from onereason.cognition.judge.traces import SCORES, Thresholds, TraceContext, TraceJudge, Verdict
from onereason.cognition.knowledge import Knowledge
from onereason.cognition.lexicon import LEXICON_LANGUAGES
from onereason.cognition.normalise import cjk_share, share_a_word
from onereason.cognition.teachers import Teacher
from onereason.cognition.trace import load_headings
from onereason.errors import ConfigError

JUDGES = ("rules", "teacher")
GATE_OPTIONS = ("max_trace_words", "max_candidates", "judge", "judge_fallback", "judge_thresholds")
"""Arguments that decide which rows pass, for a corpus's manifest."""


class TraceCase(NamedTuple):
    """A trace that wants to pass.

    Attributes:
        id: of its row.
        trace: the text.
        shown: item indices of the history that is shown, oldest first.
        target: item index of the answer.
        evidence: what a template trace was composed of; None where a model wrote it.
    """

    id: str
    trace: str
    shown: Sequence[int]
    target: int
    evidence: Evidence | None = None


@dataclass
class TraceGate:
    """Lets traces pass.

    Attributes:
        facts: the catalogue's items.
        names: of the interests.
        interest_of: interest of each item, negative where unknown; empty where it plays no part.
        language: of the traces.
        max_words: a trace may have; each Chinese character counts as one.
        max_candidates: interests a trace may list.
        thresholds: of the judge's scores.
        judge: a judge behind a teacher; None leaves it to the rules.
    """

    facts: ItemFacts
    names: Sequence[str]
    language: str = "en"
    max_words: int = 400
    max_candidates: int = 5
    thresholds: Thresholds = field(default_factory=Thresholds)
    judge: TeacherJudge | None = None
    interest_of: Sequence[int] = ()

    def __post_init__(self) -> None:
        self._headings = tuple(load_headings(self.language))
        # checks know two languages; wording of one's own is read as English
        self._lexicon = self.language if self.language in LEXICON_LANGUAGES else "en"
        self._reader = PatternReader(self.facts.format)
        self._citations = CitationReader(self._reader, self.facts.patterns)
        self._leaks = LeakDetector(self.facts, patterns=self._reader)
        self._form = TraceForm(
            self._headings, max_candidates=self.max_candidates, max_length=self.max_words, measure=count_words
        )
        self._places: dict[str, int] = {}
        self._rules = TraceJudge(self._reader, FactTable(self.facts))

    def read_catalog(self) -> None:
        """Reads the catalogue's texts now and not with the first trace."""
        self._leaks.read_catalog()

    def take_judged(self) -> dict[str, int]:
        """Whose verdicts decided since this was called last, `{"teacher": ..., "rules": ...}`; empty without a judge
        behind a teacher."""
        return {} if self.judge is None else dict(self.judge.take_judged())

    def find_leak(self, text: str, target: int, shown: Sequence[int] = ()) -> Problem | None:
        """`leak_KIND` where a text gives an item away (see `checks.leakage.KINDS`)."""
        found = self._leaks.find(text, target, shown)
        return Problem(f"leak_{found[0].kind}", found[0].excerpt) if found else None

    def check_traces(self, cases: Sequence[TraceCase]) -> list[Problem | None]:
        """What is wrong with three-stage traces; None for those that pass."""
        if self.judge is None:  # one trace after the other: each check asks for its words and patterns
            return [
                self._check(case) or self._weigh(self._rules.judge(case.trace, self._context(case))) for case in cases
            ]
        found = [self._check(case) for case in cases]
        waiting = [i for i, problem in enumerate(found) if problem is None]
        asked = [(cases[i].id, cases[i].trace, self._context(cases[i])) for i in waiting]
        for i, verdict in zip(waiting, self.judge.judge_all(asked), strict=True):
            found[i] = verdict if isinstance(verdict, Problem) else self._weigh(verdict)
        return found

    def check_rationale(self, text: str, pruned: Sequence[int], target: int) -> Problem | None:
        """What is wrong with a rationale, which may cite nothing but its pruned context; None where it passes."""
        if not text.strip():
            return Problem("trace_empty")
        # fewer letters than there may be words, with what lies between them, need no count
        if not (text.isascii() and len(text) < 2 * self.max_words):
            length = count_words(text)
            if length > self.max_words:
                return Problem("trace_long", f"{length} of at most {self.max_words} words")
        problems = check_tokens(text, self._reader)
        if problems:
            return problems[0]
        leak = self.find_leak(text, target, pruned)
        if leak is not None:
            return leak
        citations = self._citations.read(text, pruned)
        wrong = self.check_language(text)
        if wrong is not None:
            return wrong
        problems = citations.problems(at_least=1) or check_safety(self._reader.read(text)[1], self._lexicon)
        return problems[0] if problems else None

    def _check(self, case: TraceCase) -> Problem | None:
        problems = check_structure(case.trace, self._form, self._reader)
        if problems:
            return problems[0]
        leak = self.find_leak(case.trace, case.target, case.shown)
        if leak is not None:
            return leak
        problems = self._citations.read(case.trace, case.shown).problems()
        if problems or case.evidence is not None:
            return problems[0] if problems else None
        return self.check_language(case.trace) or self._check_grounding(case.trace)

    def check_language(self, text: str) -> Problem | None:
        """`wrong_language` of a model's text that is Chinese where English was asked for, or the other way round."""
        share = cjk_share(self._reader.read(text)[1])
        return Problem("wrong_language", f"{share:.0%} CJK") if (share > 0.3) != (self._lexicon == "zh") else None

    def _check_grounding(self, trace: str) -> Problem | None:
        """Does a model's trace speak of what it cites: each interest with citations shares a word with one of them?

        A template's trace is made of the very tables that this would look into.
        """
        stages = split_stages(trace, self._headings)
        cited = 0
        for candidate in list_candidates(stages[1] or ""):
            patterns, words = self._reader.read(candidate)
            if not patterns:
                continue
            cited += 1
            told = " ".join([self._about(pattern) for pattern in patterns])
            if not share_a_word(words, told):
                return Problem("interest_ungrounded", excerpt(candidate))
        return None if cited else Problem("interests_without_evidence")

    def _about(self, pattern: str) -> str:
        """What is known of the items under a pattern, in words."""
        if not self._places:
            for place, known in enumerate(self.facts.patterns):
                self._places.setdefault(known, place)
        index = self._places.get(pattern)
        if index is None:
            return ""
        facts = self.facts
        values = [value for of in facts.attributes[index].values() for value in of]
        interest = self.interest_of[index] if self.interest_of else -1
        named = [self.names[interest]] if interest >= 0 else []
        return " ".join([facts.titles[index], facts.captions[index], *values, *named])

    def _context(self, case: TraceCase) -> TraceContext:
        evidence = case.evidence
        return TraceContext(
            self._headings,  # type: ignore[arg-type]
            self._lexicon,
            interests=None if evidence is None else [self.names[c.interest] for c in evidence.candidates],
            chosen=None if evidence is None else self.names[evidence.candidates[evidence.chosen].interest],
        )

    def _weigh(self, verdict: Verdict) -> Problem | None:
        failed = verdict.failed(self.thresholds)
        if not failed:
            return None
        why = verdict.problems[0].reason if verdict.problems else f"{verdict.scores[failed[0]]:.2f}"
        return Problem(f"judge_{failed[0]}", why)


# -- the command line -----------------------------------------------------------------------------------------------


def add_gate_arguments(parser: argparse.ArgumentParser) -> None:
    """What traces have to pass."""
    group = parser.add_argument_group("checks")
    group.add_argument("--max-trace-words", type=int, default=400, help="longest trace (default: %(default)s)")
    group.add_argument("--max-candidates", type=int, default=5, help="interests of a trace at most (%(default)s)")
    group.add_argument(
        "--judge", choices=JUDGES, default="rules", help="who scores traces; teacher: the model that writes them"
    )
    group.add_argument(
        "--judge-fallback", choices=FALLBACKS, default="rules", help="who scores a trace whose verdict is unreadable"
    )
    group.add_argument(
        "--judge-thresholds", metavar="NAME=VALUE,...", help=f"lowest scores that pass, 0 to 1: {', '.join(SCORES)}"
    )


def gate_from_arguments(args: argparse.Namespace, knowledge: Knowledge, teacher: Teacher) -> TraceGate:
    """The gate that a parser with `add_gate_arguments` describes.

    Raises:
        ConfigError: a length or a threshold is out of range, or the template teacher is to judge.
    """
    for name in ("max_trace_words", "max_candidates"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}.")
    if getattr(args, "num_candidates", 1) > args.max_candidates:
        raise ConfigError(
            f"--num-candidates ({args.num_candidates}) is above --max-candidates ({args.max_candidates}): no trace "
            "would pass."
        )
    if args.judge == "teacher" and teacher.name == "template":
        raise ConfigError("--judge teacher needs a model; give --teacher endpoint or --teacher local:MODEL_DIR.")
    thresholds = parse_thresholds(args.judge_thresholds)
    names = knowledge.interests.names
    gate = TraceGate(knowledge.facts, names, args.language, args.max_trace_words, args.max_candidates, thresholds)
    gate.interest_of = knowledge.interest_of
    gate.read_catalog()
    if args.judge == "teacher":
        rules = TraceJudge(PatternReader(knowledge.facts.format), FactTable(knowledge.facts))
        gate.judge = TeacherJudge(teacher, rules, args.language, args.judge_fallback)
    return gate


def parse_thresholds(text: str | None) -> Thresholds:
    """`safety=1,logic=0.5` -> thresholds; the others keep their defaults."""
    values: dict[str, float] = {}
    for part in (text or "").split(",") if text else ():
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            values[name] = float(value)
        except ValueError:
            values[name] = -1.0
        if name not in SCORES or not 0 <= values[name] <= 1:
            raise ConfigError(f"--judge-thresholds {part!r}: write NAME=VALUE, NAME out of {', '.join(SCORES)}.")
    return Thresholds(**values)
