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
from collections.abc import Sequence
from dataclasses import dataclass

from data_builders.cards import prompt_settings
from data_builders.common import (
    ItemTexts,
    Row,
    TrainingPart,
    add_language_argument,
    build_parser,
    load_training_part,
    run_builder,
)
from data_builders.engine import Reject, add_engine_arguments, build_corpus
from onereason.data.prompts import RECOMMENDATION_SETS, STYLES, recommendation_messages
from onereason.errors import ConfigError

PROMPT_SETS = RECOMMENDATION_SETS

CARD = """
A user's history in time order and the item that came next. Style `chat` asks a recommendation engine in a conversation;
style `plain` is the itemic patterns alone. The loss `next_items` falls on every item but the first of a row, in the
history as in the answer: each is predicted from the items before it.

Only the training part of the split is read. Validation and test items appear in no row.
"""


def sequential_row(
    user_id: str, history: Sequence[int], items: ItemTexts, style: str, end: int, language: str = "en"
) -> Row:
    """One row.

    Args:
        user_id: whose history it is.
        history: item indices, oldest first; the last one is the answer.
        items: the catalog as text.
        style: `chat` or `plain`.
        end: place of the answer in the whole timeline, for the row's id.
        language: of style `chat`.
    """
    *known, target = history
    row: Row = {
        "id": f"{user_id}:{style}:{end}",
        "task": "sequential",
        "loss": "next_items",
        "mode": "no_think",
        "domain": items.domains[target],
        "user": user_id,
    }
    text = "".join([items.patterns[i] for i in known])
    if style == "plain":
        return row | {"text": text + items.patterns[target]}
    answer = {"role": "assistant", "content": items.patterns[target]}
    question = recommendation_messages(text, items.domains[target], items.format, language=language)
    return row | {"messages": [*question, answer]}


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


@dataclass(frozen=True)
class SequentialSource:
    """All rows; a unit is a user. Users with fewer than two training items are rejected.

    Attributes:
        part: the training part.
        styles: prompt styles, in equal numbers.
        max_history: items before the answer.
        cuts: further rows a user and style, ending at random places.
        seed: of the random choices.
        copies, drop, swap: perturbed copies of each row (`perturb`).
        language: of the questions.
    """

    part: TrainingPart
    styles: Sequence[str]
    max_history: int
    cuts: int
    seed: int
    copies: int = 0
    drop: float = 0.0
    swap: float = 0.0
    language: str = "en"

    @property
    def num_units(self) -> int:
        return len(self.part.histories)

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        rows: list[Row] = []
        rejects = []
        for user in range(start, stop):
            history = self.part.histories[user].tolist()
            if len(history) < 2:
                rejects.append(Reject(self.part.user_ids[user], "fewer_than_2_training_items", f"{len(history)} items"))
                continue
            for style in self.styles:
                rows += self._user_rows(user, history, style)
        return rows, rejects

    def _user_rows(self, user: int, history: list[int], style: str) -> list[Row]:
        user_id, items = self.part.user_ids[user], self.part.items
        base = windows(len(history), self.max_history)
        extra = []
        if self.cuts:
            rng = random.Random(f"{self.seed}:{user}:{style}")
            extra = random_cuts(len(history), self.max_history, self.cuts, rng)
        rows = [
            sequential_row(user_id, history[first:end], items, style, end, self.language) for first, end in base + extra
        ]
        if self.copies:
            rng = random.Random(f"{self.seed}:{user}:{style}:copies")
            for copy in range(self.copies):
                for first, end in base:
                    changed = perturb(history[first:end], self.drop, self.swap, rng)
                    row = sequential_row(user_id, changed, items, style, end, self.language)
                    rows.append(row | {"id": f"{row['id']}:copy{copy + 1}"})
        return rows


def parse_styles(text: str) -> list[str]:
    """`chat,plain` -> `["chat", "plain"]`."""
    styles = [style.strip() for style in text.split(",") if style.strip()]
    unknown = [style for style in styles if style not in STYLES]
    if unknown or not styles or len(set(styles)) < len(styles):
        raise ConfigError(f"--styles {text!r} must name {', '.join(STYLES)} or one of them, each once.")
    return styles


def check_arguments(args: argparse.Namespace) -> None:
    """`ConfigError` for a value that makes no sense."""
    parse_styles(args.styles)
    if args.max_history < 1 or args.cuts < 0:
        raise ConfigError(f"--max-history ({args.max_history}) must be at least 1 and --cuts ({args.cuts}) at least 0.")
    if args.copies < 0 or not 0 <= args.drop < 1 or not 0 <= args.swap <= 1:
        raise ConfigError(
            f"--copies ({args.copies}) must be at least 0, --drop ({args.drop}) in 0 <= p < 1, "
            f"--swap ({args.swap}) in 0 <= p <= 1."
        )
    prompt_settings(args.language, PROMPT_SETS)


def build(args: argparse.Namespace) -> None:
    check_arguments(args)
    part = load_training_part(args)
    build_corpus(
        args,
        SequentialSource(
            part,
            parse_styles(args.styles),
            args.max_history,
            args.cuts,
            args.seed,
            args.copies,
            args.drop,
            args.swap,
            args.language,
        ),
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
        extra=prompt_settings(args.language, PROMPT_SETS),
    )


def make_parser() -> argparse.ArgumentParser:
    parser = build_parser(__doc__, timelines=True)
    parser.add_argument("--styles", default="chat,plain", help="comma-separated prompt styles, in equal numbers")
    parser.add_argument("--max-history", type=int, default=50, help="items before the answer")
    parser.add_argument("--cuts", type=int, default=0, help="further rows a user and style, ending at random places")
    parser.add_argument("--copies", type=int, default=0, help="perturbed copies of each row")
    parser.add_argument("--drop", type=float, default=0.0, help="in copies: chance of an item to be left out")
    parser.add_argument("--swap", type=float, default=0.0, help="in copies: chance of neighbours to change places")
    add_language_argument(parser)
    add_engine_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_builder(make_parser(), build, argv)


if __name__ == "__main__":
    sys.exit(main())
