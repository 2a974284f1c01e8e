"""Assignments of the tests: a question, and the text the template teacher writes for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    id: str
    prompt: str
    composed: str = "evidence"

    def compose(self) -> str:
        return self.composed

    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.prompt}]


def questions(count: int, start: int = 0) -> list[Question]:
    return [Question(f"q{i}", f"question {i}") for i in range(start, start + count)]
