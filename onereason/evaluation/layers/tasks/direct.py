"""R2: how the main interest of a dated timeline evolves, as a logic chain; the interest is not named."""

from __future__ import annotations

from collections.abc import Sequence

from onereason.data.prompt_sets import load_prompt_set
from onereason.data.prompts import opening_turns
from onereason.evaluation.layers.tasks.base import GenerationSettings, Message, Task
from onereason.evaluation.layers.tasks.chains import CHAIN, GRADING, METRICS, extract_chain, score_logic_chain


def build_messages(timeline: Sequence[str], language: str = "en") -> list[Message]:
    """System and user turn; an entry is a line."""
    text = load_prompt_set("evolution", language).text
    return opening_turns(
        text("chain.system").format(date=text("label.dated")), text("direct.user").format(timeline="\n".join(timeline))
    )


TASK = Task(
    name="direct",
    layer="R2",
    version=1,
    reference={"logic_chain": CHAIN},
    metrics=METRICS,
    extract=extract_chain,
    score=score_logic_chain,
    generation=GenerationSettings(max_new_tokens=1024, think_budget=2048),
    grading=GRADING,
)
