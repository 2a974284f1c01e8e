"""Rows of the question "which item comes next", with and without a trace before the answer.

Both modes ask in the same words, so that what a trace adds can be told from what a prompt adds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from data_builders.cards import Row
from onereason.data.prompts import recommendation_messages
from onereason.itemic.format import ItemicFormat

_MARK = "\x00"


@dataclass
class RecommendationRows:
    """Makes rows, the constant parts of the prompts ready.

    Attributes:
        task: of the rows.
        format: the itemic format.
        language: of the wording.
    """

    task: str
    format: ItemicFormat
    language: str = "en"
    _frames: dict[tuple[str, str], tuple[str, str, str]] = field(default_factory=dict, repr=False)

    def row(
        self, row_id: str, user: str, history_text: str, domain: str, answer: str, trace: str | None, teacher: str
    ) -> Row:
        """A row; `trace` None answers at once.

        Args:
            history_text: itemic patterns, oldest first, directly one after another.
            domain: of the answer.
            answer: the next item's pattern.
            teacher: who wrote the trace.
        """
        mode = "no_think" if trace is None else "think"
        frame = self._frames.get((domain, mode))
        if frame is None:
            frame = self._frames[domain, mode] = self._frame(domain, mode)
        system, before, after = frame
        row: Row = {
            "id": row_id,
            "task": self.task,
            "loss": "assistant",
            "mode": mode,
            "domain": domain,
            "user": user,
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": f"{before}{history_text}{after}"},
                {"role": "assistant", "content": answer if trace is None else think_answer(trace, answer)},
            ],
        }
        if trace is not None:
            row["teacher"] = teacher
        return row

    def _frame(self, domain: str, mode: str) -> tuple[str, str, str]:
        system, user = recommendation_messages(_MARK, domain, self.format, mode, self.language)
        before, _, after = user["content"].partition(_MARK)
        return system["content"], before, after


def think_answer(trace: str, answer: str) -> str:
    """What the assistant says: the trace in a think block, then the answer."""
    return f"<think>\n{trace}\n</think>\n\n{answer}"
