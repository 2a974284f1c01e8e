"""Graders: a language model that judges through a chat endpoint, and an entailment model in a folder.

A grader gives questions scores from 0 to 1. A judge that cannot be reached does not end an evaluation: the questions
are left without a score, and the reason is kept. Verdicts are saved, so that scoring again asks nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from onereason.data.chat import parse_answer
from onereason.endpoint import Endpoint, EndpointError, first_choice
from onereason.errors import ConfigError, ModelError
from onereason.evaluation.layers.tasks.base import Question
from onereason.jsonl_log import JsonlLog

VERDICTS_FILE = "verdicts.jsonl"
PROMPT_VERSION = 1
MAX_VERDICT_TOKENS = 1024

PROMPTS = {
    "caption": (
        "Two descriptions of one item follow. How well does the second say what the first says: its subject, its kind "
        "and what sets it apart? 1 means that nothing of weight is missing or wrong, 0 that it describes something "
        "else.\n\nFirst:\n{first}\n\nSecond:\n{second}"
    ),
    "entailment": (
        "How likely is it that the second statement follows from the first? 1 means that it must be true where the "
        "first is, 0 that it need not be or cannot be.\n\nFirst:\n{first}\n\nSecond:\n{second}"
    ),
}
VERDICT = '\n\nAnswer with JSON and nothing else: {"score": a number from 0 to 1}.'


@dataclass(frozen=True)
class Grades:
    """Scores of questions.

    Attributes:
        scores: from 0 to 1, in the order of the questions; None where a verdict holds no such number, or there is none.
        reason: why the grader stopped, None where it did not.
    """

    scores: list[float | None]
    reason: str | None = None


class Grader(Protocol):
    """What a grader must offer."""

    kinds: Sequence[str]
    """The kinds of questions it answers."""

    def grade(self, questions: Sequence[Question]) -> Grades: ...

    def describe(self) -> dict[str, Any]:
        """What the result records about it."""


@dataclass
class Judge:
    """A language model behind a chat endpoint.

    Attributes:
        endpoint: where it is.
        folder: where its verdicts are kept.
        concurrency: questions asked at once.
    """

    endpoint: Endpoint
    folder: Path
    concurrency: int = 8
    kinds: Sequence[str] = field(default=tuple(PROMPTS), init=False)

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigError(f"the judge's concurrency must be at least 1, got {self.concurrency}.")

    def describe(self) -> dict[str, Any]:
        return {"judge": self.endpoint.model, "prompt_version": PROMPT_VERSION}

    def grade(self, questions: Sequence[Question]) -> Grades:
        """Asks what is not answered yet. Once the endpoint fails, no further question is sent."""
        log = JsonlLog(self.folder / VERDICTS_FILE)
        known: dict[str, float | None] = {record["key"]: record["score"] for record in log.read()}
        keys = [self._key(question) for question in questions]
        left = {key: q for key, q in zip(keys, questions, strict=True) if key not in known}
        reason: str | None = None
        with ThreadPoolExecutor(self.concurrency) as pool:
            asked = {pool.submit(self._ask, question): key for key, question in left.items()}
            for future in as_completed(asked):
                if future.cancelled():
                    continue
                try:
                    score = future.result()
                except EndpointError as error:
                    reason = reason or str(error)
                    for waiting in asked:
                        waiting.cancel()
                    continue
                known[asked[future]] = score
                log.append([{"key": asked[future], "score": score}])
        return Grades([known.get(key) for key in keys], reason)

    def _key(self, question: Question) -> str:
        parts = (PROMPT_VERSION, self.endpoint.model, question.kind, question.first, question.second)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _ask(self, question: Question) -> float | None:
        prompt = PROMPTS[question.kind].format(first=question.first, second=question.second) + VERDICT
        payload = {
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": MAX_VERDICT_TOKENS,
        }
        choice = first_choice(self.endpoint.post("chat/completions", payload), self.endpoint.base_url)
        message = choice.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        return parse_verdict(content) if isinstance(content, str) else None


def parse_verdict(text: str) -> float | None:
    """The score of `{"score": 0.7}`, None where the text holds no such object or the score is not in 0 .. 1.

    A think block, a code fence and words around the object are passed over; the last object with a score counts.
    """
    for candidate in reversed(re.findall(r"\{[^{}]*\}", parse_answer(text).answer)):
        try:
            score = json.loads(candidate).get("score")
        except ValueError:
            continue
        if isinstance(score, int | float) and not isinstance(score, bool):
            return float(score) if 0 <= score <= 1 else None
    return None


class EntailmentModel:
    """A sequence classifier for natural language inference in a folder, e.g. nli-deberta-v3-base.

    Its score is the probability of the label `entailment`, the first text the premise.
    """

    kinds: Sequence[str] = ("entailment",)

    def __init__(self, path: str | Path, device: str = "cpu", batch_size: int = 32):
        """
        Raises:
            ModelError: the folder holds no such classifier.
        """
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        self.path, self.batch_size = Path(path), batch_size
        if not self.path.is_dir():
            raise ModelError(f"entailment model folder {path} does not exist; give the folder of an NLI classifier.")
        try:
            labels = {i: str(name).lower() for i, name in AutoConfig.from_pretrained(path).id2label.items()}
            self.tokenizer = AutoTokenizer.from_pretrained(path)
            self.model = AutoModelForSequenceClassification.from_pretrained(path).eval().to(device)
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(f"{path}: the entailment model cannot be loaded: {error}".splitlines()[0]) from error
        self.label = next((i for i, name in labels.items() if name == "entailment"), None)
        if self.label is None:
            raise ModelError(f"{path}: no label is called 'entailment' ({', '.join(labels.values())}).")

    def describe(self) -> dict[str, Any]:
        return {"entailment_model": self.path.name}

    def grade(self, questions: Sequence[Question]) -> Grades:
        import torch

        scores: list[float | None] = []
        for at in range(0, len(questions), self.batch_size):
            some = questions[at : at + self.batch_size]
            batch = self.tokenizer(
                [q.first for q in some], [q.second for q in some], padding=True, truncation=True, return_tensors="pt"
            )
            with torch.inference_mode():
                logits = self.model(**batch.to(self.model.device)).logits
            scores += logits.float().softmax(-1)[:, self.label].tolist()
        return Grades(scores)
