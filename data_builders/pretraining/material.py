"""What the sections are made of: items in words, by index, and the training part of the interactions.

Notation: `N` items, `L` levels, `T` themes, `n` interactions, `U` users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from data_builders.common import Row
from data_builders.engine import Reject
from onereason.cognition.associations import compute_lift, count_window, keep_at_least
from onereason.cognition.streams import Stream
from onereason.data.prompt_sets import PromptSet
from onereason.data.prompts import SWITCHES, domain_noun
from onereason.itemic.format import ANY_DOMAIN, ItemicFormat

THEME_WINDOW = 3
"""Themes that stand at most so many steps apart in a history occur together."""
MIN_THEME_PAIRS = 5
"""Times that two themes must occur together before their lift counts."""
VARIANT_0_SHARE = 0.4
"""Of the texts, in the wording that stands first."""


@dataclass(frozen=True)
class Material:
    """Items and histories.

    Attributes:
        format: the itemic format.
        item_ids, domains, patterns: of the `N` items.
        codes: int `[N, L]`.
        captions: what codes can hold of the items' texts, one line each, empty where unknown.
        themes: category of each item, empty where unknown.
        traits: of each item, attribute -> value, of attributes that many items share.
        trait_nouns: attribute -> what people call it.
        user_ids: `U` names.
        items: int `[n]`, item indices of the training histories, oldest first.
        offsets: int `[U + 1]`.
        timestamps: int `[n]`, seconds; None where the data has no dates.
        searches: `[n]`, what was typed in before the interaction, empty where nothing; None where no search is logged.
        prompts: prompt set `pretraining`.
        min_lift: themes whose lift is at least this can be bridged by a sentence.
        seed: of every choice.
    """

    format: ItemicFormat
    item_ids: Sequence[str]
    domains: Sequence[str]
    patterns: Sequence[str]
    codes: np.ndarray
    captions: Sequence[str]
    themes: Sequence[str]
    traits: Sequence[Mapping[str, str]]
    trait_nouns: Mapping[str, str]
    user_ids: Sequence[str]
    items: np.ndarray
    offsets: np.ndarray
    timestamps: np.ndarray | None
    searches: Sequence[str] | None
    prompts: PromptSet
    min_lift: float
    seed: int

    @property
    def tells_domains(self) -> bool:
        """Whether the tokens of items tell which of several domains they are of."""
        return len(self.format.domains) > 1

    @cached_property
    def theme_names(self) -> list[str]:
        return sorted(set(self.themes) - {""})

    @cached_property
    def theme_of(self) -> np.ndarray:
        """Int64 `[N]`: number of each item's theme, -1 where unknown."""
        number = {name: at for at, name in enumerate(self.theme_names)}
        return np.array([number.get(theme, -1) for theme in self.themes], dtype=np.int64)

    @cached_property
    def domain_numbers(self) -> np.ndarray:
        """Int64 `[N]`: number of each item's domain."""
        number = {name: at for at, name in enumerate(sorted(set(self.domains)))}
        return np.array([number[domain] for domain in self.domains], dtype=np.int64)

    @cached_property
    def theme_lift(self) -> sp.csr_matrix:
        """`[T, T]`: how much more often than by chance a theme comes within `THEME_WINDOW` steps after another."""
        counts = count_window(self.theme_of[self.items], self.offsets, THEME_WINDOW, len(self.theme_names))
        return compute_lift(keep_at_least(counts, MIN_THEME_PAIRS))

    @cached_property
    def bridged_themes(self) -> set[tuple[int, int]]:
        """Pairs of themes, the earlier one first, that a sentence can bridge."""
        lift = self.theme_lift.tocoo()
        kept = lift.data >= self.min_lift
        return set(zip(lift.row[kept].tolist(), lift.col[kept].tolist(), strict=True))

    @cached_property
    def nouns(self) -> dict[str, tuple[str, str]]:
        """Domain -> what people call one of its items, and several."""
        language = self.prompts.language
        return {d: (domain_noun(d, False, language), domain_noun(d, True, language)) for d in set(self.domains)}

    @cached_property
    def any_nouns(self) -> tuple[str, str]:
        """What people call one item, and several, of any domain."""
        return domain_noun(ANY_DOMAIN, False, self.prompts.language), domain_noun(
            ANY_DOMAIN, True, self.prompts.language
        )

    def history(self, user: int) -> list[int]:
        return self.items[self.offsets[user] : self.offsets[user + 1]].tolist()

    def stream(self, salt: int, unit: int) -> Stream:
        return Stream(self.seed, unit, salt)

    def wording(self, name: str, stream: Stream) -> str:
        """A wording of a text, the first one more often than each of the others."""
        variants = self.prompts.texts[name]
        return variants[0] if stream.chance(VARIANT_0_SHARE) else variants[stream.below(len(variants))]

    def text(self, name: str) -> str:
        return self.prompts.texts[name][0]

    def join(self, words: Sequence[str]) -> str:
        return self.text("join").join(words)


class Section(Protocol):
    """Rows of one granularity, unit by unit.

    Attributes:
        name: the task of its rows.
        left_out: what gave no unit, for the manifest.
    """

    name: str
    left_out: Mapping[str, int]

    @property
    def num_units(self) -> int: ...

    def rows_of(self, unit: int, rows: list[Row], rejects: list[Reject]) -> None:
        """Adds the rows of a unit, and what gave none."""
        ...


def qa_row(row_id: str, task: str, turns: Sequence[str], loss: str = "assistant") -> Row:
    """A row of the question form.

    Args:
        turns: user and assistant in turn, ending with the assistant; the last question is closed by the switch.
    """
    last = len(turns) - 2
    messages = [
        {"role": "assistant", "content": text}
        if at % 2
        else {"role": "user", "content": text + SWITCHES["no_think"] if at == last else text}
        for at, text in enumerate(turns)
    ]
    return {"id": f"{row_id}:qa", "task": task, "loss": loss, "mode": "no_think", "messages": messages} | _TEACHER


def free_row(row_id: str, task: str, text: str, loss: str = "all") -> Row:
    """A row of the free form."""
    return {"id": f"{row_id}:free", "task": task, "loss": loss, "mode": "no_think", "text": text} | _TEACHER


_TEACHER = {"teacher": "template"}
