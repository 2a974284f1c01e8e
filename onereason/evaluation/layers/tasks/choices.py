"""What multiple-choice tasks share: choices in words, letters out of answers, accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from onereason.evaluation.layers.tasks.base import MALFORMED, EvaluationRow, Extraction, Kind
from onereason.evaluation.scores.set_scores import choice_accuracy, normalise_choice
from onereason.evaluation.scores.text_scores import exact_match, extract_choice

LETTERS = "ABCDEFGHIJ"
ANSWER = Kind(
    f"one or several of the letters {LETTERS[0]} to {LETTERS[-1]}",
    lambda v: isinstance(v, str) and bool(normalise_choice(v)) and set(normalise_choice(v)) <= set(LETTERS),
)
CHOICES = Kind(
    f"a list of 2 to {len(LETTERS)} distinct strings",
    lambda v: (
        isinstance(v, list)
        and all(isinstance(c, str) and c.strip() for c in v)
        and 2 <= len(set(v)) == len(v) <= len(LETTERS)
    ),
)


def render_choices(choices: Sequence[str]) -> str:
    """A line a choice: `A. first`."""
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def row_letters(row: EvaluationRow) -> str:
    """The letters a row's question offers; all of them where it does not list its choices."""
    choices = row.reference.get("choices")
    return LETTERS if choices is None else LETTERS[: len(choices)]


def check_answer(row: EvaluationRow) -> str | None:
    """What is wrong with the true answer or the choices."""
    choices = row.reference.get("choices")
    if choices is not None and not CHOICES.holds(choices):
        return f"reference.choices must be {CHOICES.rule}, is {choices!r}"
    letters = row_letters(row)
    if set(normalise_choice(row.reference["answer"])) <= set(letters):
        return None
    return f"reference.answer {row.reference['answer']!r} is not among the {len(letters)} choices"


def extract_letters(text: str, row: EvaluationRow) -> Extraction:
    """The letters an answer names, or the letter of the choice it repeats word for word."""
    letters = extract_choice(text, row_letters(row))
    if letters is None:
        choices = row.reference.get("choices") or ()
        letters = next((LETTERS[i] for i, choice in enumerate(choices) if exact_match(choice, text)), None)
    return MALFORMED if letters is None else Extraction(letters)


def score_letters(extraction: Extraction, row: EvaluationRow) -> dict[str, float]:
    return {"accuracy": float(choice_accuracy([extraction.value], [row.reference["answer"]])[0])}
