"""Traces judged by a language model behind a teacher; what rules know for certain still counts.

A verdict is read strictly. One that cannot be read is counted, and its trace falls back on the rules or is quarantined.
A judge none of whose first verdicts can be read is no judge, and ends the build.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from onereason.cognition.checks.problem import Problem
from onereason.cognition.judge.traces import SCORES, TraceContext, TraceJudge, Verdict
from onereason.cognition.teachers.base import Teacher
from onereason.data.json_answers import extract_json
from onereason.data.prompt_sets import PromptSet, load_prompt_set
from onereason.errors import ConfigError

MALFORMED = "judge_malformed"
"""A verdict without exactly five scores from 0 to 1."""

CERTAIN = ("safety", "factuality")
"""Scores of which the lower one of rules and model counts: what rules find there is so."""

_CERTAIN_REASONS = ("sensitive_", "personal_", "claim_")

FALLBACKS = ("rules", "quarantine")

FIRST_VERDICTS = 20
"""So many are asked for before any others; where no verdict of a process was readable by then, it stops."""


@dataclass(frozen=True)
class JudgeAssignment:
    """A verdict that a teacher is to give.

    Attributes:
        id: of the row.
        trace: what is judged.
        context: what it was written about.
        judge: the rules; the template teacher answers with their scores.
        prompts: the wording.
    """

    id: str
    trace: str
    context: TraceContext
    judge: TraceJudge
    prompts: PromptSet

    def compose(self) -> str:
        return json.dumps(dict(self.judge.judge(self.trace, self.context).scores))

    def messages(self) -> list[dict[str, str]]:
        system = self.prompts.text("system").format()
        user = self.prompts.text("user").format(prompt=self.context.prompt, trace=self.trace)
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def parse_scores(text: str) -> dict[str, float] | None:
    """The five scores of a verdict, None where it is anything but an object of exactly these, each from 0 to 1."""
    value = extract_json(text)
    if not isinstance(value, dict) or set(value) != set(SCORES):
        return None
    if any(isinstance(v, bool) or not isinstance(v, int | float) or not 0 <= v <= 1 for v in value.values()):
        return None
    return {name: float(value[name]) for name in SCORES}


@dataclass
class TeacherJudge:
    """Judges traces by asking a teacher.

    Attributes:
        teacher: who is asked.
        judge: the rules.
        language: of the wording.
        fallback: what becomes of a trace without a verdict: `rules` judge it, or `quarantine` gives no verdict.
        counts: `judged`, `judge_malformed`, and the teacher's own problems, by reason.
        judged_by: verdicts since `take_judged` was called last, by whose they are: `teacher`, `rules`.
    """

    teacher: Teacher
    judge: TraceJudge
    language: str = "en"
    fallback: Literal["rules", "quarantine"] = "rules"
    counts: Counter[str] = field(default_factory=Counter)
    judged_by: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.fallback not in FALLBACKS:
            raise ConfigError(f"fallback {self.fallback!r} is not known; use {' or '.join(FALLBACKS)}.")

    def judge_all(self, cases: Sequence[tuple[str, str, TraceContext]]) -> list[Verdict | Problem]:
        """A verdict for each `(id, trace, context)`, or why it is quarantined.

        Raises:
            ConfigError: the teacher's first verdicts are all unreadable.
        """
        prompts = load_prompt_set("judge", self.language)
        assignments = [JudgeAssignment(id, trace, context, self.judge, prompts) for id, trace, context in cases]
        # always in two steps, so that what a teacher is asked at once does not depend on what it said before
        first, rest = assignments[:FIRST_VERDICTS], assignments[FIRST_VERDICTS:]
        return self._judge_some(first) + (self._judge_some(rest) if rest else [])

    def take_judged(self) -> Counter[str]:
        """`judged_by`, which is counted anew from here on."""
        taken, self.judged_by = self.judged_by, Counter()
        return taken

    def _judge_some(self, assignments: Sequence[JudgeAssignment]) -> list[Verdict | Problem]:
        drafts = self.teacher.write(assignments)
        found: list[Verdict | Problem] = []
        for assignment, draft in zip(assignments, drafts, strict=True):
            rules = self.judge.judge(assignment.trace, assignment.context)
            scores = None if draft.text is None else parse_scores(draft.text)
            if scores is not None:
                self.counts["judged"] += 1
                self.judged_by["teacher"] += 1
                capped = {n: min(scores[n], rules.scores[n]) if n in CERTAIN else scores[n] for n in SCORES}
                kept = tuple(p for p in rules.problems if p.reason.startswith(_CERTAIN_REASONS))
                found.append(Verdict(capped, kept, self.teacher.name))
                continue
            reason = MALFORMED if draft.text is not None else draft.problem or MALFORMED
            self.counts[reason] += 1
            if not self.counts["judged"] and self.counts.total() >= FIRST_VERDICTS:
                self._give_up(draft.text)
            if self.fallback == "rules":
                self.judged_by["rules"] += 1
                found.append(rules)
            else:
                found.append(Problem(reason, (draft.text or "")[:80]))
        return found

    def _give_up(self, text: str | None) -> NoReturn:
        counted = ", ".join(f"{count} {reason}" for reason, count in self.counts.most_common())
        said = f", last: {' '.join(text.split())[:80]!r}" if text else ""
        raise ConfigError(
            f"none of the first {self.counts.total()} verdicts of the judge {self.teacher.name} can be read ({counted}"
            f"{said}). A verdict is a JSON object of the scores {', '.join(SCORES)}, each from 0 to 1; take a model "
            "that keeps to it, or --judge rules."
        )
