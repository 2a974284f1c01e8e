"""Itemic dense captioning: one item's tokens, then its description.

python -m data_builders.build_captions --catalog runs/demo/catalog --out runs/demo/corpora/caption
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_builders.cards import prompt_settings
from data_builders.common import ItemTexts, Row, add_language_argument, build_parser, run_builder
from data_builders.engine import Reject, add_engine_arguments, build_corpus
from onereason.data.prompts import caption_messages
from onereason.itemic.catalog import CATALOG_META, CATALOG_TABLE, Catalog

PROMPT_SETS = ("domains", "perception")

CARD = """
One row an item of the catalog: the conversation shows the item's itemic pattern, the answer is its caption. The loss
falls on the answer. Captions say what an item is; no interaction is read.
"""


def caption_row(item_id: str, index: int, items: ItemTexts, language: str = "en") -> Row | None:
    """One row; None where the item has no caption.

    Args:
        item_id: for the row's id.
        index: the item's index.
        items: the catalog as text.
        language: of the question.
    """
    caption = items.captions[index].strip()
    if not caption:
        return None
    question = caption_messages(items.patterns[index], items.domains[index], items.format, language=language)
    messages = [*question, {"role": "assistant", "content": caption}]
    return {"id": item_id, "task": "caption", "loss": "assistant", "mode": "no_think", "messages": messages}


@dataclass(frozen=True)
class CaptionSource:
    """All rows; a unit is an item. Items without a caption are rejected."""

    item_ids: Sequence[str]
    items: ItemTexts
    language: str = "en"

    @property
    def num_units(self) -> int:
        return len(self.item_ids)

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        found = [
            (item_id, caption_row(item_id, index, self.items, self.language))
            for index, item_id in enumerate(self.item_ids[start:stop], start)
        ]
        rejects = [Reject(item_id, "empty_caption") for item_id, row in found if row is None]
        return [row for _, row in found if row is not None], rejects


def check_arguments(args: argparse.Namespace) -> None:
    """`ConfigError` for a value that makes no sense."""
    prompt_settings(args.language, PROMPT_SETS)


def build(args: argparse.Namespace) -> None:
    check_arguments(args)
    catalog = Catalog.load(args.catalog)
    build_corpus(
        args,
        CaptionSource(catalog.item_ids, ItemTexts.of(catalog), args.language),
        title="Itemic dense captioning",
        description=CARD,
        inputs=[args.catalog / CATALOG_TABLE, args.catalog / CATALOG_META],
        options=(),
        extra=prompt_settings(args.language, PROMPT_SETS),
    )


def make_parser() -> argparse.ArgumentParser:
    parser = build_parser(__doc__, timelines=False)
    parser.add_argument("--catalog", type=Path, required=True, help="catalog folder (or a model folder)")
    add_language_argument(parser)
    add_engine_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_builder(make_parser(), build, argv)


if __name__ == "__main__":
    sys.exit(main())
