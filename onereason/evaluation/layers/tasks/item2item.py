"""R1: which of some items goes with a given one; all items are itemic tokens."""

from __future__ import annotations

from collections.abc import Sequence

from onereason.data.prompt_sets import load_prompt_set
from onereason.data.prompts import domain_noun, opening_turns
from onereason.evaluation.layers.tasks.base import GenerationSettings, Message, Task
from onereason.evaluation.layers.tasks.choices import (
    ANSWER,
    CHOICES,
    check_answer,
    extract_letters,
    render_choices,
    score_letters,
)


def build_messages(pattern: str, domain: str, choices: Sequence[str], language: str = "en") -> list[Message]:
    """System and user turn."""
    text = load_prompt_set("derivation", language).text
    noun = domain_noun(domain, language=language)
    user = text("item2item.user").format(noun=noun, pattern=pattern, choices=render_choices(choices))
    return opening_turns(text("item2item.system").format(), user)


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
