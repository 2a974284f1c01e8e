r"""Interleaved user persona grounding: a text about a user in which itemic tokens and captions alternate.

    python -m data_builders.build_persona --data runs/demo/world --catalog runs/demo/catalog \
        --out runs/demo/corpora/persona

The text ties an item's tokens to its words in the context of a user's tastes. It is made of the training part only.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_builders.common import ItemTexts, Row, TrainingPart, build_parser, load_training_part, run_builder
from data_builders.engine import Reject, add_engine_arguments, build_corpus
from onereason.data.prompts import PERSONA_TEMPLATES, RECENCY_NAMES, PersonaTemplate, domain_noun
from onereason.errors import ConfigError

CARD = """
A text about one user in which itemic patterns and captions alternate, grouped by domain or by recency. The wording
comes from a few templates, chosen by the seed. The loss falls on all tokens.

Only the training part of the split is read. Validation and test items appear in no row.
"""


def persona_row(user_id: str, history: Sequence[int], items: ItemTexts, template: int, variant: int = 0) -> Row:
    """One row.

    Args:
        user_id: for the row's id.
        history: item indices, oldest first; each has a caption.
        items: the catalog as text.
        template: position in `PERSONA_TEMPLATES`.
        variant: for the row's id, where a user has several.
    """
    wording = PERSONA_TEMPLATES[template]
    lines = [wording.opening]
    for label, group in _groups(history, items, wording):
        lines.append(wording.heading.format(**label))
        for i in group:
            noun = domain_noun(items.domains[i])
            lines.append(wording.item.format(pattern=items.patterns[i], caption=items.captions[i], noun=noun))
    text = "\n".join(lines)
    return {"id": f"{user_id}:persona:{variant}", "task": "persona", "loss": "all", "mode": "no_think", "text": text}


def _groups(
    history: Sequence[int], items: ItemTexts, wording: PersonaTemplate
) -> list[tuple[dict[str, str], list[int]]]:
    """The groups of a persona in the order of the text: what the heading says, and the items, oldest first.

    Domains come in the order of their newest item, so that a text cut from the front keeps the newest interests.
    """
    if wording.grouping == "domain":
        by_domain: dict[str, list[int]] = {}
        for item in history:
            by_domain[items.domains[item]] = [*by_domain.pop(items.domains[item], []), item]
        return [({"nouns": domain_noun(domain, plural=True)}, group) for domain, group in by_domain.items()]
    names = RECENCY_NAMES[min(len(RECENCY_NAMES), len(history))]
    edges = [len(history) * k // len(names) for k in range(len(names) + 1)]
    return [({"when": name}, list(history[edges[k] : edges[k + 1]])) for k, name in enumerate(names)]


def shorten(caption: str, max_chars: int) -> str:
    """A caption on one line, cut at a word's end, without the punctuation that would double the sentence's own."""
    line = " ".join(caption.split())
    if len(line) > max_chars:
        head = line[: max_chars + 1]
        line = head.rpartition(" ")[0] or line[:max_chars]
    return line.rstrip(" .,;:")


@dataclass(frozen=True)
class PersonaSource:
    """All rows; a unit is a user. Items without a caption are left out, users without any captioned item are rejected.

    Attributes:
        part: the training part, captions shortened.
        max_history: newest captioned items in a text.
        variants: rows a user, each by another template.
        seed: of the choice of templates.
    """

    part: TrainingPart
    max_history: int
    variants: int
    seed: int

    @property
    def num_units(self) -> int:
        return len(self.part.histories)

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        rows = []
        rejects = []
        items, captions = self.part.items, self.part.items.captions
        for user in range(start, stop):
            user_id, history = self.part.user_ids[user], self.part.histories[user].tolist()
            known = [i for i in history if captions[i]]
            if not known:
                rejects.append(Reject(user_id, "no_captioned_item" if history else "no_training_item"))
                continue
            order = list(range(len(PERSONA_TEMPLATES)))
            random.Random(f"{self.seed}:{user}").shuffle(order)
            for variant in range(self.variants):
                rows.append(persona_row(user_id, known[-self.max_history :], items, order[variant], variant))
        return rows, rejects


def build(args: argparse.Namespace) -> None:
    for name in ("max_history", "variants", "max_caption_chars"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}.")
    if args.variants > len(PERSONA_TEMPLATES):
        raise ConfigError(f"--variants must be at most {len(PERSONA_TEMPLATES)} (the templates), got {args.variants}.")
    part = load_training_part(args)
    captions = [shorten(caption, args.max_caption_chars) for caption in part.items.captions]
    part = replace(part, items=replace(part.items, captions=captions))
    build_corpus(
        args,
        PersonaSource(part, args.max_history, args.variants, args.seed),
        title="Interleaved user persona grounding",
        description=CARD,
        inputs=part.inputs,
        options=("max_history", "variants", "max_caption_chars", "split_method", "validation_start", "test_start"),
    )


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(__doc__, timelines=True)
    parser.add_argument("--max-history", type=int, default=20, help="newest captioned items in a text")
    parser.add_argument("--variants", type=int, default=1, help="rows a user, each by another template")
    parser.add_argument("--max-caption-chars", type=int, default=200, help="longer captions are cut at a word's end")
    add_engine_arguments(parser)
    return run_builder(parser, build, argv)


if __name__ == "__main__":
    sys.exit(main())
