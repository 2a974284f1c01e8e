"""Rollouts of teachers, judged: which traces hit, which may teach, and how hard each prompt is.

A row is one prompt in one mode whose teacher found a verified hit:

| key | holds |
|---|---|
| `id`, `user`, `domain`, `mode`, `task`, `teacher` | as in a corpus; the id is user, place in the timeline, mode |
| `messages` | the question: system and user turn |
| `difficulty` | 0 to 1, see `measure_difficulty` |
| `rollouts` | the verified ones, hits first: `number`, `trace` (null without thinking), `answer`, `hit` |

Notation: `G` prompts, `N` traces a prompt, `K` items a trace, `L` levels.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_builders.cards import Row
from data_builders.rft_selection import find_repeated
from data_builders.rft_teachers import Teachers
from data_builders.shards import Reject, hash_id
from data_builders.think_rows import RecommendationRows
from onereason.cognition.checks.citations import CitationReader
from onereason.cognition.checks.leakage import LeakDetector
from onereason.cognition.checks.patterns import PatternReader
from onereason.cognition.checks.problem import Problem, excerpt
from onereason.cognition.checks.structure import check_tokens
from onereason.cognition.facts import ItemFacts
from onereason.decoding.recommender import Recommender
from onereason.decoding.stems import check_prompt_lengths
from onereason.rl.extract import build_reward_inputs
from onereason.rl.guards import hits
from onereason.rl.prompts import Prompts
from onereason.rl.records import RewardInputs
from onereason.rl.rollout import RolloutConfig, roll_out

CITATIONS = ("catalog", "history")
"""Where what a trace cites must stand."""


def measure_difficulty(mode: str, found: np.ndarray, legal: np.ndarray, logprobs: np.ndarray) -> float:
    """How hard a prompt with a hit is for its teacher, 0 (easy) to 1.

    With thinking, the share of traces without a hit. At once, the share of items that the teacher finds likelier than
    the likeliest hit.

    Args:
        found, legal: bool `[N, K]`, which items hit, and which are items.
        logprobs: `[N, K]`, of the items.
    """
    if mode == "think":
        return float(1 - found.any(1).mean())
    return float((logprobs[legal] > logprobs[found].max()).mean())


class TraceChecks:
    """What a sampled trace has to pass before it may teach."""

    def __init__(self, facts: ItemFacts, citations: str = "catalog"):
        """
        Args:
            facts: the catalog's items.
            citations: `catalog`: cited items exist; `history`: the prompt shows them.
        """
        reader = PatternReader(facts.format)
        self._reader, self._only_shown = reader, citations == "history"
        self._citations = CitationReader(reader, facts.patterns)
        self._leaks = LeakDetector(facts, patterns=reader)

    def find_problem(self, trace: str, closed: bool, shown: Sequence[int], target: int) -> Problem | None:
        """`trace_unclosed`, `trace_undecodable` (half a character), `trace_empty`, `control_tokens`, `stray_tokens`,
        `citation_illegal`, `citation_not_in_history` (where that is asked for) or `leak_KIND`; None where it passes.

        Args:
            trace: the text.
            closed: whether it ended by itself.
            shown: item indices that the prompt shows.
            target: item index of the answer.
        """
        if not closed:
            return Problem("trace_unclosed", excerpt(trace))
        if "\ufffd" in trace:
            return Problem("trace_undecodable", excerpt(trace))
        if not trace:
            return Problem("trace_empty")
        if problems := check_tokens(trace, self._reader):
            return problems[0]
        cited = self._citations.read(trace, shown)
        if problems := [p for p in cited.problems() if self._only_shown or p.reason != "citation_not_in_history"]:
            return problems[0]
        found = self._leaks.find(trace, target, shown)
        return Problem(f"leak_{found[0].kind}", found[0].excerpt) if found else None


class Batch(NamedTuple):
    """Rollouts of several prompts in one mode, as they are judged.

    Attributes:
        inputs: what was rolled out.
        found: bool `[G, N, K]`; True selects hits.
        tokens: token ids of every trace of every prompt.
        logprobs: float64 `[G, N, K]`, of the items.
    """

    inputs: RewardInputs
    found: np.ndarray
    tokens: list[list[list[int]]]
    logprobs: np.ndarray


@dataclass
class RolloutSource:
    """All judged prompts; a unit is one prompt in one mode, those of one teacher side by side.

    Attributes:
        prompts: what is asked.
        user_ids: names of the users.
        facts: the catalog's items in words.
        codes: int `[items, L]`, the catalog's.
        teachers: who answers.
        configs: mode -> how it is rolled out.
        checks: what traces have to pass.
        rows: makes the questions.
        max_similarity: traces of one prompt that are as similar are one.
        seed: of all rollouts.
    """

    prompts: Prompts
    user_ids: Sequence[str]
    facts: ItemFacts
    codes: np.ndarray
    teachers: Teachers
    configs: Mapping[str, RolloutConfig]
    checks: TraceChecks
    rows: RecommendationRows
    max_similarity: float
    seed: int
    parallel: bool = False
    """A model stays in its process."""
    seconds: float = 0.0
    """Of this process's rollouts; `num_asked` prompts and `num_tokens` generated in them."""
    num_asked: int = 0
    num_tokens: int = 0
    _counts: Counter[str] = field(default_factory=Counter, repr=False)
    _measured: set[Path] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        units = [(mode, number) for mode in self.configs for number in range(len(self.prompts))]
        order = {path: place for place, path in enumerate(self.teachers.paths.values())}
        self._units = sorted(units, key=lambda unit: order[self._path(unit)])  # stable

    @property
    def num_units(self) -> int:
        return len(self._units)

    def take_counts(self) -> dict[str, int]:
        """By mode and domain: prompts `asked` and `hit` (with a verified hit), `traces` rolled out; `generated_tokens`
        in all."""
        counts, self._counts = dict(self._counts), Counter()
        return counts

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        rows: list[Row] = []
        rejects: list[Reject] = []
        batches = groupby(self._units[start:stop], key=lambda unit: (self._path(unit), unit[0]))
        for (_, mode), units in batches:
            asked = [number for _, number in units]
            batch = self._roll_out(mode, asked)
            for place, number in enumerate(asked):
                row, rejected = self._judge(mode, number, place, batch)
                rows += [row] if row is not None else []
                rejects += rejected
        return rows, rejects

    def _path(self, unit: tuple[str, int]) -> Path:
        return self.teachers.paths[self.prompts.domains[unit[1]]]

    def _roll_out(self, mode: str, asked: Sequence[int]) -> Batch:
        prompts, config = self.prompts, self.configs[mode]
        recommender = self.teachers.recommender(prompts.domains[asked[0]])
        self._check_lengths(recommender, self._path((mode, asked[0])))
        histories, domains = [prompts.histories[q] for q in asked], [prompts.domains[q] for q in asked]
        begun = time.monotonic()
        rollouts = roll_out(recommender, histories, domains, [self._stream(mode, q) for q in asked], config)
        self.seconds += time.monotonic() - begun
        self.num_asked += len(asked)
        self.num_tokens += rollouts.num_generated_tokens
        self._counts["generated_tokens"] += rollouts.num_generated_tokens
        inputs = build_reward_inputs(recommender, prompts, asked, rollouts)
        logprobs = rollouts.logprobs.double().sum(-1).cpu().numpy()
        return Batch(inputs, hits(inputs), rollouts.traces.lists(), logprobs)

    def _check_lengths(self, recommender: Recommender, path: Path) -> None:
        """Refuses a teacher's longest prompt before its first rollout."""
        if path in self._measured:
            return
        prompts, shown = self.prompts, recommender.max_history
        for mode, config in self.configs.items():
            for domain in [d for d, of in self.teachers.paths.items() if of == path]:
                own = [h for h, d in zip(prompts.histories, prompts.domains, strict=True) if d == domain]
                longest = recommender.render(max(own, key=lambda history: min(len(history), shown)), domain, mode)
                think = mode == "think"
                room = config.sampling.max_new_tokens + len(recommender.between(domain)) if think else 0
                check_prompt_lengths(recommender.model, len(longest), room + recommender.trie.num_levels, think)
        self._measured.add(path)

    def _name(self, number: int) -> str:
        """User and place in the timeline: the same prompt has the same name whatever else is asked."""
        return f"{self.user_ids[self.prompts.users[number]]}:{len(self.prompts.histories[number])}"

    def _stream(self, mode: str, number: int) -> tuple[int, ...]:
        """The seed of a prompt's rollouts, which depends on the prompt alone."""
        return self.seed, int.from_bytes(hash_id(f"{self._name(number)}:{mode}"), "little")

    def _judge(self, mode: str, number: int, place: int, batch: Batch) -> tuple[Row | None, list[Reject]]:
        """A prompt's row, None without a verified hit, and what of its rollouts gives none.

        Args:
            number, place: of the prompt, among all and in the batch.
        """
        found = batch.found[place]  # [N, K]
        counted = f"{mode}_{self.prompts.domains[number]}"
        self._counts[f"asked_{counted}"] += 1
        if mode == "think":
            self._counts[f"traces_{counted}"] += found.shape[0]
        self._counts[f"hit_{counted}"] += 0
        name = f"{self._name(number)}:{mode}"
        if mode == "think":
            verified, rejects = self._judge_traces(number, place, batch)
        else:
            verified, rejects = self._judge_answers(number, place, batch)
        rejects = [Reject(f"{name}:{reject.id}", reject.reason, reject.detail) for reject in rejects]
        if not any(rollout["hit"] for rollout in verified):
            return None, rejects
        self._counts[f"hit_{counted}"] += 1
        positive = int(self.prompts.positives[number][0])
        difficulty = measure_difficulty(mode, found, batch.inputs.legal[place], batch.logprobs[place])
        asked = self.rows.row(
            name,
            self.user_ids[self.prompts.users[number]],
            "".join([self.facts.patterns[item] for item in self._shown(number)]),
            self.facts.domains[positive],
            "",
            "" if mode == "think" else None,
            "",
        )
        return {
            **asked,
            "messages": asked["messages"][:-1],
            "teacher": self.teachers.name(self.prompts.domains[number]),
            "difficulty": difficulty,
            "rollouts": verified,
        }, rejects

    def _judge_traces(self, number: int, place: int, batch: Batch) -> tuple[list[dict[str, Any]], list[Reject]]:
        """Verified traces of a prompt, hits before misses. A trace's answer is the first of its items that hits; of a
        miss, the first item."""
        positives, shown = self.prompts.positives[number], self._shown(number)
        inputs, found, tokens = batch.inputs, batch.found[place], batch.tokens[place]
        passed: list[tuple[int, str, str, bool]] = []
        reasons: dict[int, Problem] = {}
        for n in range(found.shape[0]):
            hit = bool(found[n].any())
            first = (found if hit else inputs.legal[place])[n].argmax()
            codes = inputs.candidates[place, n, first]
            target = self._positive(positives, codes) if hit else int(positives[0])
            trace = inputs.traces[place][n].strip()
            problem = self.checks.find_problem(trace, bool(inputs.closed[place, n]), shown, target)
            if problem is None and inputs.legal[place, n].any():
                answer = self.facts.format.render(codes.tolist(), self.facts.domains[positives[0]])
                passed.append((n, trace, answer, hit))
            if not hit:
                reasons[n] = Problem("miss", excerpt(trace))
            elif problem is not None:
                reasons[n] = problem
        passed.sort(key=lambda one: not one[3])  # stable: hits first
        again = find_repeated([tokens[n] for n, *_ in passed], self.max_similarity)
        verified = []
        for (n, trace, answer, hit), other in zip(passed, again, strict=True):
            if other is None:
                verified.append({"number": n, "trace": trace, "answer": answer, "hit": hit})
            elif hit:
                same = passed[other][1] == trace
                reasons[n] = Problem("trace_twice" if same else "trace_similar", f"as trace {passed[other][0]}")
        return verified, [Reject(str(n), problem.reason, problem.detail) for n, problem in sorted(reasons.items())]

    def _judge_answers(self, number: int, place: int, batch: Batch) -> tuple[list[dict[str, Any]], list[Reject]]:
        """The distinct hits of a prompt that was answered at once, in the order in which they were rolled out."""
        positives, inputs = self.prompts.positives[number], batch.inputs
        items = [self._positive(positives, codes) for codes in inputs.candidates[place][batch.found[place]]]
        if not items:
            return [], [Reject("0", "miss", f"none of {int(inputs.legal[place].sum())} items")]
        answers = list(dict.fromkeys(self.facts.patterns[item] for item in items))
        return [{"number": n, "trace": None, "answer": a, "hit": True} for n, a in enumerate(answers)], []

    def _shown(self, number: int) -> list[int]:
        return self.prompts.histories[number][-self.teachers.options["max_history"] :].tolist()

    def _positive(self, positives: np.ndarray, codes: np.ndarray) -> int:
        """The first of the positives that bears these codes."""
        own = self.codes[positives]
        return int(positives[(own == codes).all(-1).argmax()])
