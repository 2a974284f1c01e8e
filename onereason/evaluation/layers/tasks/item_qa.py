"""R0: a multiple-choice question about one item in itemic tokens."""

from __future__ import annotations

from collections.abc import Sequence

from onereason.data.prompt_sets import load_prompt_set
from onereason.data.prompts import attribute_noun, domain_noun, opening_turns
from onereason.evaluation.layers.tasks.base import GenerationSettings, Message, Task
from onereason.evaluation.layers.tasks.choices import (
    ANSWER,
    CHOICES,
    check_answer,
    extract_letters,
    render_choices,
    score_letters,
)


def build_messages(
    pattern: str, domain: str, attribute: str, choices: Sequence[str], language: str = "en"
) -> list[Message]:
    """System and user turn; `attribute` as in the dataset, e.g. `price_range`."""
    text = load_prompt_set("perception", language).text
    user = text("item_qa.user").format(
        attribute=attribute_noun(attribute, language),
        noun=domain_noun(domain, language=language),
        pattern=pattern,
        choices=render_choices(choices),
    )
    return opening_turns(text("item_qa.system").format(), user)


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
