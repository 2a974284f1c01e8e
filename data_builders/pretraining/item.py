"""Item granularity: captions both ways, and questions from several perspectives, answered out of attributes."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_builders.common import Row
from data_builders.engine import Reject
from data_builders.pretraining.material import Material, free_row, qa_row

TASK = "item"
STYLE_ATTRIBUTES = ("style", "mood", "tone", "look")
"""Attributes that say how an item is, by preference."""
MAX_TRAITS = 2
"""Named in one sentence."""


@dataclass
class ItemSection:
    """A unit is an item; each kind of text it can give is written in both forms."""

    material: Material
    name: str = TASK
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def num_units(self) -> int:
        return len(self.material.patterns)

    def rows_of(self, unit: int, rows: list[Row], rejects: list[Reject]) -> None:
        material = self.material
        if material.captions[unit]:
            rows += self._rows(unit, "caption", {"caption": material.captions[unit]})
            rows += self._rows(unit, "grounding", {"caption": material.captions[unit]})
        else:
            rejects.append(Reject(f"{TASK}:caption:{material.item_ids[unit]}", "no_caption"))
        found = self.perspectives(unit)
        if not found:
            rejects.append(Reject(f"{TASK}:audience:{material.item_ids[unit]}", "no_attributes"))
        for kind, said in found.items():
            rows += self._rows(unit, kind, {"said": said})

    def perspectives(self, item: int) -> dict[str, str]:
        """What is said of an item from each perspective that its attributes allow."""
        material = self.material
        theme, traits = material.themes[item], material.traits[item]
        if not theme and not traits:
            return {}
        phrase = material.text("item.trait")
        shown = [name for name in traits if name not in STYLE_ATTRIBUTES] or list(traits)
        # an item shows other traits to other perspectives
        turn = material.stream(200, item).below(len(shown)) if shown else 0
        shown = (shown[turn:] + shown[:turn])[:MAX_TRAITS]
        listed = material.join([phrase.format(name=material.trait_nouns[name], value=traits[name]) for name in shown])
        kind = "both" if theme and listed else "theme" if theme else "traits"
        fields = {"theme": theme, "traits": listed}
        said = {
            "audience": material.text(f"item.audience.{kind}").format(**fields),
            "appeal": material.text(f"item.appeal.{kind}").format(**fields),
        }
        style = next((name for name in STYLE_ATTRIBUTES if name in traits), None)
        if style is not None:
            said["style"] = material.text("item.style.said").format(value=traits[style])
        if traits:
            name = style if style is not None and turn % 2 else shown[0]
            fields |= {"name": material.trait_nouns[name], "value": traits[name]}
        kind = "both" if theme and traits else "theme" if theme else "traits"
        said["dislike"] = material.text(f"item.dislike.{kind}").format(**fields)
        return said

    def _rows(self, item: int, kind: str, said: dict[str, str]) -> list[Row]:
        material = self.material
        stream = material.stream(201 + KINDS.index(kind), item)
        fields = {"pattern": material.patterns[item], "noun": material.nouns[material.domains[item]][0], **said}
        question, answer, free = (material.wording(f"item.{kind}.{p}", stream) for p in ("question", "answer", "free"))
        row_id = f"{TASK}:{kind}:{material.item_ids[item]}"
        domain = {"domain": material.domains[item]}
        return [
            qa_row(row_id, TASK, [question.format(**fields), answer.format(**fields)]) | domain,
            free_row(row_id, TASK, free.format(**fields)) | domain,
        ]


KINDS = ("caption", "grounding", "audience", "appeal", "style", "dislike")
