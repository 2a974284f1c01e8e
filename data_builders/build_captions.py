"""Itemic dense captioning: one item's tokens, then its description.

python -m data_builders.build_captions --catalog runs/demo/catalog --out runs/demo/corpora/caption
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_builders.common import ItemTexts, Row, build_parser, run_builder, track, write_corpus
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


def caption_rows(catalog: Catalog, rejected: Counter[str]) -> Iterator[Row]:
    """All rows; items without a caption are counted as rejected."""
    items = ItemTexts.of(catalog)
    for index, item_id in track(enumerate(catalog.item_ids), len(catalog), "caption rows"):
        row = caption_row(item_id, index, items)
        if row is None:
            rejected["empty_caption"] += 1
        else:
            yield row


def build(args: argparse.Namespace) -> None:
    catalog = Catalog.load(args.catalog)
    rejected: Counter[str] = Counter()
    write_corpus(
        args,
        caption_rows(catalog, rejected),
        rejected,
        title="Itemic dense captioning",
        description=CARD,
        inputs=[args.catalog / CATALOG_TABLE, args.catalog / CATALOG_META],
        options=(),
    )


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(__doc__, timelines=False)
    parser.add_argument("--catalog", type=Path, required=True, help="catalog folder (or a model folder)")
    return run_builder(parser, build, argv)


if __name__ == "__main__":
    sys.exit(main())
