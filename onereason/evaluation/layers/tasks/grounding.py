"""R0: a caption -> the item it describes, written as free text; the first whole pattern of the answer counts."""

from __future__ import annotations

from onereason.data.prompt_sets import load_prompt_set
from onereason.data.prompts import domain_noun, opening_turns
from onereason.evaluation.layers.tasks.base import (
    MALFORMED,
    TEXT,
    EvaluationRow,
    Extraction,
    GenerationSettings,
    Message,
    Task,
)
from onereason.evaluation.layers.tasks.patterns import check_pattern, row_format


def build_messages(caption: str, domain: str, language: str = "en") -> list[Message]:
    """System and user turn."""
    text = load_prompt_set("perception", language).text
    user = text("grounding.user").format(noun=domain_noun(domain, language=language), caption=caption)
    return opening_turns(text("grounding.system").format(), user)


def extract(text: str, row: EvaluationRow) -> Extraction:
    found = row_format(row).parse(text).items
    return Extraction((found[0].domain, found[0].codes)) if found else MALFORMED


def score(extraction: Extraction, row: EvaluationRow) -> dict[str, float]:
    return {"pass_at_1": float(extraction == extract(row.reference["pattern"], row))}


TASK = Task(
    name="grounding",
    layer="R0",
    version=1,
    reference={"pattern": TEXT},
    metrics=("pass_at_1",),
    extract=extract,
    score=score,
    generation=GenerationSettings(max_new_tokens=32, think_budget=512),
    check=check_pattern,
)
