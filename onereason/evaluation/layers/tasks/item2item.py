"""R1: which of some items goes with a given one; all items are itemic tokens."""

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
    "You are a recommendation analyst. Items are written as itemic tokens. Answer with the letter of the item that "
    "goes best with the given one, and nothing else."
)
USER = "A user chose this {noun}: {pattern}\nWhich of these goes best with it?\n{choices}"


def build_messages(pattern: str, domain: str, choices: Sequence[str]) -> list[Message]:
    """System and user turn."""
    user = USER.format(noun=domain_noun(domain), pattern=pattern, choices=render_choices(choices))
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]


TASK = Task(
    name="item2item",
    layer="R1",
    version=1,
    reference={"answer": ANSWER, "choices": CHOICES},
    metrics=("accuracy",),
    extract=extract_letters,
    score=score_letters,
    generation=GenerationSettings(max_new_tokens=32, think_budget=512),
    check=check_answer,
)
