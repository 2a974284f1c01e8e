"""User granularity: histories grouped by domain, interleaved with captions, and sub-chains of one interest."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_builders.common import Row
from data_builders.engine import Reject
from data_builders.pretraining.material import Material, free_row, qa_row

TASK = "user"
MIN_ITEMS = 3
"""Items of a history, and of a sub-chain, before it gives a row."""
MAX_STRIDE = 3
NUM_THEMES = 3
"""Themes named of a group."""


@dataclass
class UserSection:
    """A unit is a user; each kind of text the history can give is written in both forms.

    Attributes:
        material: items and histories.
        max_history: newest items in a text.
        caption_share: share of the items of an interleaved history that stand there by their captions.
    """

    material: Material
    max_history: int = 30
    caption_share: float = 0.3
    name: str = TASK
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def num_units(self) -> int:
        return len(self.material.user_ids)

    def rows_of(self, unit: int, rows: list[Row], rejects: list[Reject]) -> None:
        user = self.material.user_ids[unit]
        history = self.material.history(unit)
        if len(history) < MIN_ITEMS:
            rejects.append(Reject(f"{TASK}:{user}", "history_too_short", f"{len(history)} training items"))
            return
        history = history[-self.max_history :]
        for kind, make, reason in (
            ("grouped", self.grouped_rows, "one_domain_without_themes"),
            ("interleaved", self.interleaved_rows, "no_caption"),
            ("chain", self.chain_rows, "no_chain"),
        ):
            made = make(unit, history)
            if not made:
                rejects.append(Reject(f"{TASK}:{kind}:{user}", reason))
            rows += [row | {"user": user} for row in made]

    # -- kinds ------------------------------------------------------------------------------------------------------

    def grouped_rows(self, user: int, history: list[int]) -> list[Row]:
        """One turn a domain, that of the newest item last: what the first group is about, then each further group."""
        material = self.material
        groups: dict[str, list[int]] = {}
        for item in history:
            groups[material.domains[item]] = [*groups.pop(material.domains[item], []), item]
        (first, shown), *rest = groups.items()
        stream = material.stream(400, user)
        turns: list[str] = []
        about = self._about(shown)
        fields = {"nouns": material.nouns[first][1], "items": self._listed(shown)}
        if about:
            turns.append(material.wording("user.grouped.question", stream).format(**fields))
            turns.append(material.wording("user.grouped.answer", stream).format(themes=about))
        for domain, items in rest:
            wording = material.wording("user.grouped.next" if turns else "user.grouped.both", stream)
            turns.append(wording.format(**fields, others=material.nouns[domain][1]))
            turns.append(self._listed(items))
        if not turns:
            return []
        line = material.text("user.grouped.line")
        lines = [material.wording("user.grouped.free", stream)]
        lines += [line.format(nouns=material.nouns[d][1], items=self._listed(items)) for d, items in groups.items()]
        row_id = f"{TASK}:grouped:{material.user_ids[user]}"
        domain = {"domain": rest[-1][0]} if rest else {}
        return [qa_row(row_id, TASK, turns) | domain, free_row(row_id, TASK, "\n".join(lines))]

    def interleaved_rows(self, user: int, history: list[int]) -> list[Row]:
        """The history in time order, some items by their captions; the question form asks for the last one."""
        material = self.material
        stream = material.stream(401, user)
        entries, replaced = [], 0
        for item in history[:-1]:
            by_caption = stream.chance(self.caption_share) and bool(material.captions[item])
            entries.append(material.captions[item] if by_caption else material.patterns[item])
            replaced += by_caption
        if not replaced and not any(material.captions[item] for item in history[:-1]):
            return []
        last, domain = material.patterns[history[-1]], material.domains[history[-1]]
        told = "\n".join(entries)
        question = material.wording("user.interleaved.question", stream)
        noun = material.nouns[domain][0] if material.tells_domains else material.any_nouns[0]
        row_id = f"{TASK}:interleaved:{material.user_ids[user]}"
        free = material.wording("user.interleaved.free", stream)
        return [
            qa_row(row_id, TASK, [question.format(history=told, noun=noun), last]) | {"domain": domain},
            free_row(row_id, TASK, f"{free}\n{told}\n{last}") | {"domain": domain},
        ]

    def chain_rows(self, user: int, history: list[int]) -> list[Row]:
        """Every d-th item of the history as long as it is like the one kept before; only items are learned."""
        material = self.material
        stream = material.stream(402, user)
        items: list[int] = []
        for stride in range(stream.between(1, MAX_STRIDE), 0, -1):  # a shorter stride where a longer one finds nothing
            items = self.chain(history, stride, stream.below(stride))
            if len(items) >= MIN_ITEMS:
                break
        else:
            return []
        *known, last = (material.patterns[item] for item in items)
        told, domain = "".join(known), material.domains[items[-1]]
        question = material.wording("user.chain.question", stream)
        free = material.wording("user.chain.free", stream)
        row_id = f"{TASK}:chain:{material.user_ids[user]}"
        return [
            qa_row(row_id, TASK, [question.format(items=told), last]) | {"domain": domain},
            free_row(row_id, TASK, f"{free}\n{told}{last}", "next_items") | {"domain": domain},
        ]

    def chain(self, history: list[int], stride: int, start: int) -> list[int]:
        """The first item at `start` and every `stride`-th after it that is like the one kept before.

        Two items are alike if they have one theme, or themes that a sentence can bridge; where themes are unknown, if
        they have one first code. An item does not follow itself.
        """
        kept = [history[start]]
        for item in history[start + stride :: stride]:
            if item != kept[-1] and self._alike(kept[-1], item):
                kept.append(item)
        return kept

    def _alike(self, first: int, second: int) -> bool:
        themes = self.themes
        a, b = themes[first], themes[second]
        if a < 0 or b < 0:
            return self.first_codes[first] == self.first_codes[second]
        return a == b or (a, b) in self.material.bridged_themes

    # -- writing ----------------------------------------------------------------------------------------------------

    def __post_init__(self) -> None:
        self.themes: list[int] = self.material.theme_of.tolist()
        self.first_codes: list[int] = self.material.codes[:, 0].tolist()

    def _listed(self, items: list[int]) -> str:
        patterns = self.material.patterns
        return "".join([patterns[item] for item in items])

    def _about(self, items: list[int]) -> str:
        """The most frequent themes of some items, the newer one first on a tie; empty where none is known."""
        counts: dict[str, int] = {}
        for item in reversed(items):
            theme = self.material.themes[item]
            if theme:
                counts[theme] = counts.get(theme, 0) + 1
        best = sorted(counts, key=lambda theme: -counts[theme])[:NUM_THEMES]
        return self.material.join(best)
