"""What a task of the layered evaluation is: the rows it takes, how text becomes an answer, how an answer is scored.

Generate, extract, score and aggregate are four steps. A task fixes the settings of the first and the rules of the
others; its `version` goes up with every change that can change a score, and stands beside each result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onereason.errors import ConfigError
from onereason.evaluation.scores.metrics import paired_bootstrap
from onereason.itemic.format import ItemicFormat

LAYERS = ("R0", "R1", "R2", "R3", "general")
"""Perception, derivation, evolution, recommendation (OneReason's diagnostic layers), language ability. Of R3, only what
a model writes freely is measured here; rankings of a catalog's items are `onereason evaluate`."""

Message = dict[str, str]


@dataclass(frozen=True)
class EvaluationRow:
    """One question with its reference.

    Attributes:
        id: unique in its file.
        task: name of its task.
        messages: the conversation up to the user turn that is to be answered, without a thinking switch.
        reference: what the answer is scored against.
        mode: `think` or `no_think` where the row is asked in one mode only.
        format: how items are spelled; None where that is unknown.
    """

    id: str
    task: str
    messages: Sequence[Message]
    reference: Mapping[str, Any]
    mode: str | None = None
    format: ItemicFormat | None = None


@dataclass(frozen=True)
class Extraction:
    """What was read from an answer; `malformed` where nothing could be, which is counted apart and scores 0."""

    value: Any = None
    malformed: bool = False


MALFORMED = Extraction(malformed=True)


@dataclass(frozen=True)
class Kind:
    """What a key of a reference must hold: the rule in words, and as a test."""

    rule: str
    holds: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


TEXT = Kind("a non-empty string", _is_text)
TEXTS = Kind("a list of non-empty strings", lambda v: isinstance(v, list) and all(map(_is_text, v)))


@dataclass(frozen=True)
class GenerationSettings:
    """How a task's answers are generated."""

    max_new_tokens: int = 256
    """Tokens of an answer, behind the think block; longer ones are cut off."""
    think_budget: int = 1024
    """Tokens of a trace; a think block that is open by then is closed, and the answer follows."""
    temperature: float = 0.0
    """Of answers without thinking; 0 takes the most likely token every time."""
    think_temperature: float = 0.6
    """Of answers with thinking. Greedy traces of Qwen3 repeat themselves without end."""
    top_k: int = 20
    """Where the temperature is above 0: only so many most likely tokens are drawn; 0 for all."""
    top_p: float = 0.95
    """Where the temperature is above 0: only the most likely tokens that together reach this probability."""
    modes: tuple[str, ...] = ("no_think", "think")
    """The modes a row is asked in, unless the row or the command names them."""

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "think_budget"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("temperature", "think_temperature"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be a number from 0, got {getattr(self, name)}.")


@dataclass(frozen=True)
class Question:
    """Something a grader (a judge, or an entailment model) gives a score from 0 to 1.

    Attributes:
        kind: `caption` (does the second text describe what the first does) or `entailment` (does the second text
            follow from the first).
        first, second: the texts.
    """

    kind: str
    first: str
    second: str


@dataclass(frozen=True)
class Grading:
    """A metric that needs a grader: the mean over a row's questions.

    Attributes:
        metric: its name.
        kind: of all its questions.
        questions: what is asked about an answer, or the score itself where nothing needs asking.
    """

    metric: str
    kind: str
    questions: Callable[[Extraction, EvaluationRow], list[Question] | float]


def mean_with_interval(values: np.ndarray, seed: int) -> dict[str, float]:
    """Mean of one value a row `[E]`, with its 95 % bootstrap interval."""
    value, low, high = paired_bootstrap(values, np.zeros_like(values), seed)
    return {"value": value, "low": low, "high": high}


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        name, layer, version: what it is called, where it belongs (`LAYERS`), and its version.
        reference: the keys a row's reference needs.
        metrics: what `score` gives, the main one first; all are 0 for a malformed answer.
        extract: reads an answer (without its think block).
        score: scores what was read.
        generation: how answers are generated.
        check: what else is wrong with a row, in words, or None.
        grading: a further metric that needs a grader.
        aggregate: values of a metric, one a row, and a seed -> what stands in the result.
        trace_metrics: what `score_trace` gives, in mode `think` only.
        score_trace: scores a trace (empty where the think block is), whatever the answer is; None where there is
            nothing to score.
    """

    name: str
    layer: str
    version: int
    reference: Mapping[str, Kind]
    metrics: tuple[str, ...]
    extract: Callable[[str, EvaluationRow], Extraction]
    score: Callable[[Extraction, EvaluationRow], dict[str, float]]
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    check: Callable[[EvaluationRow], str | None] | None = None
    grading: Grading | None = None
    aggregate: Callable[[np.ndarray, int], dict[str, float]] = mean_with_interval
    trace_metrics: tuple[str, ...] = ()
    score_trace: Callable[[str, EvaluationRow], dict[str, float | None]] | None = None
