"""Itemic dense captioning: one item's tokens, then its description.

python -m data_builders.build_captions --catalog runs/demo/catalog --out runs/demo/corpora/caption
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_builders.common import ItemTexts, Row, build_parser, run_builder
from data_builders.engine import Reject, add_engine_arguments, build_corpus
from onereason.data.prompts import caption_messages
from onereason.itemic.catalog import CATALOG_META, CATALOG_TABLE, Catalog

CARD = """
One row an item of the catalog: the conversation shows the item's itemic pattern, the answer is its caption. The loss
falls on the answer. Captions say what an item is; no interaction is read.
"""


def caption_row(item_id: str, index: int, items: ItemTexts) -> Row | None:
    """One row; None where the item has no caption.

    Args:
        item_id: for the row's id.
        index: the item's index.
        items: the catalog as text.
    """
    caption = items.captions[index].strip()
    if not caption:
        return None
    question = caption_messages(items.patterns[index], items.domains[index], items.format)
    messages = [*question, {"role": "assistant", "content": caption}]
    return {"id": item_id, "task": "caption", "loss": "assistant", "mode": "no_think", "messages": messages}


@dataclass(frozen=True)
class CaptionSource:
    """All rows; a unit is an item. Items without a caption are rejected."""

    item_ids: Sequence[str]
    items: ItemTexts

    @property
    def num_units(self) -> int:
        return len(self.item_ids)

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        found = [
            (self.item_ids[index], caption_row(self.item_ids[index], index, self.items)) for index in range(start, stop)
        ]
        rejects = [Reject(item_id, "empty_caption") for item_id, row in found if row is None]
        return [row for _, row in found if row is not None], rejects


def build(args: argparse.Namespace) -> None:
    catalog = Catalog.load(args.catalog)
    build_corpus(
        args,
        CaptionSource(catalog.item_ids, ItemTexts.of(catalog)),
        title="Itemic dense captioning",
        description=CARD,
        inputs=[args.catalog / CATALOG_TABLE, args.catalog / CATALOG_META],
        options=(),
    )


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(__doc__, timelines=False)
    parser.add_argument("--catalog", type=Path, required=True, help="catalog folder (or a model folder)")
    add_engine_arguments(parser)
    return run_builder(parser, build, argv)


if __name__ == "__main__":
    sys.exit(main())
