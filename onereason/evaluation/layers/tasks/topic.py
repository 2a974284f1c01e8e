"""R2: how a named interest of a dated timeline evolves, as a logic chain."""

from __future__ import annotations

from collections.abc import Sequence

from onereason.evaluation.layers.tasks.base import GenerationSettings, Message, Task
from onereason.evaluation.layers.tasks.chains import CHAIN, GRADING, METRICS, SYSTEM, extract_chain, score_logic_chain

USER = "The user's timeline, oldest first:\n{timeline}\nHow does the user's interest in {topic} evolve?"


def build_messages(timeline: Sequence[str], topic: str) -> list[Message]:
    """System and user turn; an entry is a line."""
    user = USER.format(timeline="\n".join(timeline), topic=topic)
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]


TASK = Task(
    name="topic",
    layer="R2",
    version=1,
    reference={"logic_chain": CHAIN},
    metrics=METRICS,
    extract=extract_chain,
    score=score_logic_chain,
    generation=GenerationSettings(max_new_tokens=1024, think_budget=2048),
    grading=GRADING,
)
