r"""Sequential preference modelling: a user's history, then the next item.

    python -m data_builders.build_sequential --data runs/demo/world --catalog runs/demo/catalog \
        --out runs/demo/corpora/sequential

Each training history gives one row a style: its newest items, the last of them the answer. Longer histories give
further windows that share one item with the next, so that every training item but a user's first is supervised exactly
once a style (loss `next_items` supervises each item that has another before it).

`--copies` adds perturbed copies, for models trained from scratch on sparse data: items left out (`--drop`) show what
comes after the next one, and exchanged neighbours (`--swap`) say that the order of near purchases means little.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from data_builders.common import (
    ItemTexts,
    Row,
    TrainingPart,
    build_parser,
    load_training_part,
    run_builder,
    track,
    write_corpus,
)
from onereason.data.prompts import STYLES, recommendation_messages
from onereason.errors import ConfigError

CARD = """
A user's history in time order and the item that came next. Style `chat` asks a recommendation engine in a conversation;
style `plain` is the itemic patterns alone. The loss `next_items` falls on every item but the first of a row, in the
history as in the answer: each is predicted from the items before it.

Only the training part of the split is read. Validation and test items appear in no row.
"""


def sequential_row(user_id: str, history: Sequence[int], items: ItemTexts, style: str, end: int) -> Row:
    """One row.

    Args:
        user_id: for the row's id.
        history: item indices, oldest first; the last one is the answer.
        items: the catalog as text.
        style: `chat` or `plain`.
        end: place of the answer in the whole timeline, for the row's id.
    """
    *known, target = history
    row: Row = {"id": f"{user_id}:{style}:{end}", "task": "sequential", "loss": "next_items", "mode": "no_think"}
    text = "".join([items.patterns[i] for i in known])
    if style == "plain":
        return row | {"text": text + items.patterns[target]}
    answer = {"role": "assistant", "content": items.patterns[target]}
    return row | {"messages": [*recommendation_messages(text, items.domains[target], items.format), answer]}


def windows(length: int, max_history: int) -> list[tuple[int, int]]:
    """The spans `[start, end)` of a history's rows, oldest first.

    Every position from 1 to `length - 1` stands exactly once at a place that is not a window's first.
    """
    spans = []
    end = length
    while end > 1:
        start = max(0, end - 1 - max_history)
        spans.append((start, end))
        end = start + 1
    return spans[::-1]


def perturb(history: Sequence[int], drop: float, swap: float, rng: random.Random) -> list[int]:
    """A copy of a history (at least 2 items) in which some items are missing and some neighbours have changed places.

    Args:
        drop: chance of each item to be left out; two items always stay.
        swap: chance of each pair of neighbours to change places, from the oldest on; no item moves twice.
    """
    kept = [item for item in history if rng.random() >= drop]
    if len(kept) < 2:
        first = rng.randrange(len(history) - 1)
        kept = list(history[first : first + 2])
    place = 0
    while place + 1 < len(kept):
        if rng.random() < swap:
            kept[place : place + 2] = kept[place + 1], kept[place]
            place += 1
        place += 1
    return kept


def random_cuts(length: int, max_history: int, cuts: int, rng: random.Random) -> list[tuple[int, int]]:
    """Up to `cuts` further spans that end at random places, other than those of `windows`."""
    taken = {end for _, end in windows(length, max_history)}
    free = [end for end in range(2, length) if end not in taken]
    return [(max(0, end - 1 - max_history), end) for end in sorted(rng.sample(free, min(cuts, len(free))))]


def sequential_rows(
    part: TrainingPart,
    styles: Sequence[str],
    max_history: int,
    cuts: int,
    seed: int,
    rejected: Counter[str],
    copies: int = 0,
    drop: float = 0.0,
    swap: float = 0.0,
) -> Iterator[Row]:
    """All rows; users with fewer than two training items are counted as rejected."""
    for user, history in track(enumerate(part.histories), len(part.histories), "sequential rows"):
        if len(history) < 2:
            rejected["fewer_than_2_training_items"] += 1
            continue
        indices = history.tolist()
        base = windows(len(indices), max_history)
        for style in styles:
            extra = []
            if cuts:
                extra = random_cuts(len(indices), max_history, cuts, random.Random(f"{seed}:{user}:{style}"))
            for start, end in base + extra:
                yield sequential_row(part.user_ids[user], indices[start:end], part.items, style, end)
            rng = random.Random(f"{seed}:{user}:{style}:copies")
            for copy in range(copies):
                for start, end in base:
                    changed = perturb(indices[start:end], drop, swap, rng)
                    row = sequential_row(part.user_ids[user], changed, part.items, style, end)
                    yield row | {"id": f"{row['id']}:copy{copy + 1}"}


def build(args: argparse.Namespace) -> None:
    styles = [style.strip() for style in args.styles.split(",") if style.strip()]
    unknown = [style for style in styles if style not in STYLES]
    if unknown or not styles or len(set(styles)) < len(styles):
        raise ConfigError(f"--styles {args.styles!r} must name {', '.join(STYLES)} or one of them, each once.")
    if args.max_history < 1 or args.cuts < 0:
        raise ConfigError(f"--max-history ({args.max_history}) must be at least 1 and --cuts ({args.cuts}) at least 0.")
    if args.copies < 0 or not 0 <= args.drop < 1 or not 0 <= args.swap <= 1:
        raise ConfigError(
            f"--copies ({args.copies}) must be at least 0, --drop ({args.drop}) in 0 <= p < 1, "
            f"--swap ({args.swap}) in 0 <= p <= 1."
        )
    part = load_training_part(args)
    rejected: Counter[str] = Counter()
    write_corpus(
        args,
        sequential_rows(
            part, styles, args.max_history, args.cuts, args.seed, rejected, args.copies, args.drop, args.swap
        ),
        rejected,
        title="Sequential preference modelling",
        description=CARD,
        inputs=part.inputs,
        options=(
            "styles",
            "max_history",
            "cuts",
            "copies",
            "drop",
            "swap",
            "split_method",
            "validation_start",
            "test_start",
        ),
    )


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(__doc__, timelines=True)
    parser.add_argument("--styles", default="chat,plain", help="comma-separated prompt styles, in equal numbers")
    parser.add_argument("--max-history", type=int, default=50, help="items before the answer")
    parser.add_argument("--cuts", type=int, default=0, help="further rows a user and style, ending at random places")
    parser.add_argument("--copies", type=int, default=0, help="perturbed copies of each row")
    parser.add_argument("--drop", type=float, default=0.0, help="in copies: chance of an item to be left out")
    parser.add_argument("--swap", type=float, default=0.0, help="in copies: chance of neighbours to change places")
    return run_builder(parser, build, argv)


if __name__ == "__main__":
    sys.exit(main())
