"""R2: how a named interest of a dated timeline evolves, as a logic chain."""

from __future__ import annotations

from collections.abc import Sequence

from onereason.data.prompt_sets import load_prompt_set
from onereason.data.prompts import opening_turns
from onereason.evaluation.layers.tasks.base import GenerationSettings, Message, Task
from onereason.evaluation.layers.tasks.chains import CHAIN, GRADING, METRICS, extract_chain, score_logic_chain


def build_messages(timeline: Sequence[str], topic: str, language: str = "en") -> list[Message]:
    """System and user turn; an entry is a line."""
    text = load_prompt_set("evolution", language).text
    user = text("topic.user").format(timeline="\n".join(timeline), topic=topic)
    return opening_turns(text("chain.system").format(date=text("label.dated")), user)


TASK = Task(
    name="topic",
    layer="R2",
    version=2,
    reference={"logic_chain": CHAIN},
    metrics=METRICS,
    extract=extract_chain,
    score=score_logic_chain,
    generation=GenerationSettings(max_new_tokens=1024, think_budget=2048),
    grading=GRADING,
)
