"""R3: the item that comes next, written freely behind a history (`onereason.data.prompts.recommendation_messages`).

No catalog restrains the answer: it has to be one whole pattern and nothing else. Where there is a trace, its form and
what it cites are measured too. The ranking of a catalog's items is `onereason evaluate`.
"""

from __future__ import annotations

import sys

from onereason.cognition.checks.structure import TraceForm, check_structure
from onereason.data.prompts import SWITCHES, recommendation_messages
from onereason.evaluation.layers.tasks.base import (
    MALFORMED,
    TEXT,
    TEXTS,
    EvaluationRow,
    Extraction,
    GenerationSettings,
    Message,
    Task,
)
from onereason.evaluation.layers.tasks.patterns import check_pattern, row_format, true_pattern
from onereason.itemic.citations import extract_cited_items, share
from onereason.itemic.format import ItemicFormat


def build_messages(history_text: str, domain: str, format: ItemicFormat, language: str = "en") -> list[Message]:
    """System and user turn.

    Args:
        history_text: itemic patterns, oldest first, directly one after another.
        domain: of the item that is asked for.
    """
    system, user = recommendation_messages(history_text, domain, format, "no_think", language)
    return [system, {**user, "content": user["content"].removesuffix(SWITCHES["no_think"])}]


def extract(text: str, row: EvaluationRow) -> Extraction:
    """The answer's item; malformed unless the answer is one whole pattern and nothing else.

    An end token that the format owns and does not write may close the pattern.
    """
    found = row_format(row).parse(text).items
    if len(found) != 1 or (text[: found[0].start] + text[found[0].end :]).strip():
        return MALFORMED
    return Extraction((found[0].domain, found[0].codes))


def score(extraction: Extraction, row: EvaluationRow) -> dict[str, float]:
    """Is it the sid that came next; is its domain the one asked for (always so where tokens tell no domains apart);
    is its first code the right one, whatever its domain."""
    domain, codes = extraction.value
    true = true_pattern(row)
    return {
        "pass_at_1": float((domain, codes) == (true.domain, true.codes)),
        "in_domain": float(domain == true.domain),
        "first_code": float(codes[0] == true.codes[0]),
    }


def score_trace(trace: str, row: EvaluationRow) -> dict[str, float | None]:
    """Do the stages stand in the trace, each once, in order and not empty; the share of what it cites that the question
    shows.

    Runs of itemic tokens that are no whole pattern count as cited. As items of a history are in the catalog,
    `cited_in_history` is legality (malformed citations counted) times history validity (OneReason, Eq. 24-25), and
    needs no catalog.
    """
    format, headings = row_format(row), row.reference.get("headings")
    cited = extract_cited_items(trace, format)
    shown = set(extract_cited_items(row.messages[-1]["content"], format))
    in_form = None
    if headings is not None:
        # The budget bounds a trace's length already.
        form = TraceForm(tuple(headings), candidates_in=None, min_length=0, max_length=sys.maxsize)
        in_form = float(not check_structure(trace, form))
    malformed = format.parse(trace).num_malformed
    return {
        "trace_in_form": in_form,
        "cited_in_history": share(sum(item in shown for item in cited), len(cited) + malformed),
    }


def check(row: EvaluationRow) -> str | None:
    headings = row.reference.get("headings")
    if headings is not None and not (TEXTS.holds(headings) and 1 <= len(set(headings)) == len(headings)):
        return f"reference.headings must be a list of distinct non-empty strings, is {headings!r}"
    return check_pattern(row)


TASK = Task(
    name="next_item",
    layer="R3",
    version=1,
    reference={"pattern": TEXT},
    metrics=("pass_at_1", "in_domain", "first_code"),
    extract=extract,
    score=score,
    generation=GenerationSettings(max_new_tokens=32, think_budget=2048),
    check=check,
    trace_metrics=("trace_in_form", "cited_in_history"),
    score_trace=score_trace,
)
