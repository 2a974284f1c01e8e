"""R0: a multiple-choice question about one item in itemic tokens."""

from __future__ import annotations

from collections.abc import Sequence

from onereason.data.prompts import domain_noun
from onereason.evaluation.layers.tasks.base import GenerationSettings, Message, Task
from onereason.evaluation.layers.tasks.choices import (
    ANSWER,
    CHOICES,
    check_answer,
    extract_letters,
    render_choices,
    score_letters,
)

SYSTEM = (
    "You are an expert content analyst. Items are written as itemic tokens. Answer with the letter of the right choice "
    "and nothing else."
)
USER = "What is the {attribute} of this {noun}: {pattern}\n{choices}"


def build_messages(pattern: str, domain: str, attribute: str, choices: Sequence[str]) -> list[Message]:
    """System and user turn; `attribute` as in the dataset, e.g. `price_range`."""
    user = USER.format(
        attribute=attribute.replace("_", " "),
        noun=domain_noun(domain),
        pattern=pattern,
        choices=render_choices(choices),
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]


TASK = Task(
    name="item_qa",
    layer="R0",
    version=1,
    reference={"answer": ANSWER, "choices": CHOICES},
    metrics=("accuracy",),
    extract=extract_letters,
    score=score_letters,
    generation=GenerationSettings(max_new_tokens=32, think_budget=512),
    check=check_answer,
)
