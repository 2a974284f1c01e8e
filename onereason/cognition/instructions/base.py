"""What exercises are made of: the items at hand, a scene drawn from them, and the exercise itself.

Notation: `N` items, `U` users, `n` interactions of the training part.
"""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np

from onereason.cognition.streams import Stream
from onereason.data.prompt_sets import PromptSet
from onereason.itemic.format import ItemicFormat, level_letter

SEPARATOR = " | "
"""Between an item and what is said beside it."""


@dataclass(frozen=True)
class Stock:
    """The items and histories exercises draw from.

    Attributes:
        format: the itemic format.
        patterns, domains: of the `N` items.
        codes: int `[N, L]`.
        names: one line of text each, empty where unknown.
        themes: category of each item, empty where unknown.
        user_ids: names of the `U` users.
        items: int `[n]`, item indices of all users' training histories, oldest first.
        offsets: int `[U + 1]`.
        days: int `[n]`, days since 1970 of the interactions; None where the data has no dates.
    """

    format: ItemicFormat
    patterns: Sequence[str]
    domains: Sequence[str]
    codes: np.ndarray
    names: Sequence[str]
    themes: Sequence[str]
    user_ids: Sequence[str]
    items: np.ndarray
    offsets: np.ndarray
    days: np.ndarray | None = None

    @cached_property
    def first_codes(self) -> list[int]:
        return self.codes[:, 0].tolist()

    @cached_property
    def buckets(self) -> list[list[int]]:
        """First code -> the items that have it."""
        found: list[list[int]] = [[] for _ in range(self.format.codes_per_level[0])]
        for item, code in enumerate(self.first_codes):
            found[code].append(item)
        return found

    @cached_property
    def of_domain(self) -> dict[str, list[int]]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        for item, domain in enumerate(self.domains):
            found[domain].append(item)
        return dict(found)

    @cached_property
    def users(self) -> list[int]:
        """Users with a training history."""
        return np.flatnonzero(np.diff(self.offsets) > 0).tolist()

    @cached_property
    def starts(self) -> list[int]:
        return np.asarray(self.offsets).tolist()

    @cached_property
    def tells_domains(self) -> bool:
        """Whether the tokens of items tell which of several domains they are of."""
        return len(self.format.domains) > 1

    @cached_property
    def features(self) -> frozenset[str]:
        """What kinds of exercises may need: `domains`, `dates`, `themes`, `names`, `levels` (two or more)."""
        has = {
            "domains": self.tells_domains and len(self.of_domain) > 1,
            "dates": self.days is not None,
            "themes": any(self.themes),
            "names": sum(map(bool, self.names)) > 1,
            "levels": self.format.num_levels > 1,
        }
        return frozenset(name for name, there in has.items() if there)

    @cached_property
    def known(self) -> np.ndarray:
        """Items of training histories, int64."""
        return np.unique(self.items)

    @cached_property
    def domain_json(self) -> dict[str, str]:
        return {domain: json.dumps(domain, ensure_ascii=False) for domain in self.of_domain}

    @cached_property
    def letters(self) -> list[str]:
        return [level_letter(level) for level in range(self.format.num_levels)]

    def warm(self) -> None:
        """Makes what is made once, before rows are made."""
        _ = self.buckets, self.of_domain, self.users, self.starts, self.features, self.known, self.domain_json


@dataclass
class Exercise:
    """One question and its answer.

    Attributes:
        fields: what the wording's placeholders say.
        answer: exact.
        items: text of the list that is asked about; empty where the wording holds all.
        other: text of a second list.
        steps: lines of the trace, where one is asked for.
        answer_items: item indices the answer consists of, for the domain of the row.
        text: name of the wording, where it is not that of the kind.
    """

    fields: dict[str, str | int]
    answer: str
    items: str = ""
    other: str = ""
    steps: Sequence[str] = ()
    answer_items: Sequence[int] = field(default_factory=tuple)
    text: str | None = None


Maker = Callable[["Scene"], Exercise | None]
"""Makes an exercise of a scene; None where what was drawn does not serve."""


class Scene:
    """What one exercise is made of: draws items, writes lists, and says words of the prompt set."""

    __slots__ = ("patterns", "prompts", "stock", "stream", "think", "user")

    def __init__(self, stock: Stock, stream: Stream, prompts: PromptSet, think: bool) -> None:
        self.stock = stock
        self.stream = stream
        self.prompts = prompts
        self.think = think
        self.patterns = stock.patterns
        self.user: int | None = None

    # -- drawing ----------------------------------------------------------------------------------------------------

    def span(self, low: int, high: int) -> tuple[int, int] | None:
        """Places in `stock.items` of `low` to `high` neighbours in one user's history; None where it is shorter."""
        stock, stream = self.stock, self.stream
        if not stock.users:
            return None
        user = stream.pick(stock.users)
        begin, end = stock.starts[user], stock.starts[user + 1]
        if end - begin < low:
            return None
        length = min(stream.between(low, high), end - begin)
        start = begin + stream.below(end - begin - length + 1)
        self.user = user
        return start, start + length

    def history(self, low: int, high: int) -> list[int] | None:
        """Neighbours in a user's history, oldest first; an item may stand there twice."""
        span = self.span(low, high)
        return None if span is None else self.stock.items[span[0] : span[1]].tolist()

    def draw(self, low: int, high: int) -> list[int] | None:
        """`low` to `high` items with different patterns, half the time of a history, else of the catalog."""
        if self.stream.below(2):
            found = self.history(low, high)
        else:
            self.user = None
            below, size = self.stream.below, len(self.patterns)
            found = [below(size) for _ in range(self.stream.between(low, high))]
        if found is None:
            return None
        patterns = self.patterns
        different = list({patterns[item]: item for item in found}.values())
        return different if len(different) >= low else None

    def one(self) -> int:
        """One item: of the training histories where the exercise names a user, else of the catalog."""
        if self.user is None:
            return self.stream.below(len(self.patterns))
        known = self.stock.known
        return int(known[self.stream.below(len(known))])

    def others(self, number: int, avoid: Sequence[int]) -> list[int]:
        """Up to `number` items whose patterns differ from each other's and from those of `avoid`."""
        taken = {self.patterns[item] for item in avoid}
        found: list[int] = []
        for _ in range(3 * number):
            item = self.one()
            if len(found) < number and self.patterns[item] not in taken:
                taken.add(self.patterns[item])
                found.append(item)
        return found

    def alike(self, item: int) -> int:
        """An item with the same first code, maybe itself."""
        bucket = self.stock.buckets[self.stock.first_codes[item]]
        if self.user is None:
            return self.stream.pick(bucket)
        for _ in range(4):
            other = self.stream.pick(bucket)
            place = int(np.searchsorted(self.stock.known, other))
            if place < len(self.stock.known) and self.stock.known[place] == other:
                return other
        return item

    # -- writing ----------------------------------------------------------------------------------------------------

    def of(self, items: Sequence[int]) -> list[str]:
        patterns = self.patterns
        return [patterns[item] for item in items]

    def lines(self, items: Sequence[int]) -> str:
        """Items one a line, as answers have them; the word for none where there is none."""
        return "\n".join(self.of(items)) if items else self.word("none")

    def listing(self, patterns: Sequence[str]) -> str:
        """A list as questions have it, in one of four forms."""
        form = self.stream.below(4)
        if form == 0:
            return "\n".join(patterns)
        if form == 1:
            return numbered(patterns)
        return ", ".join(patterns) if form == 2 else "".join(patterns)

    def beside(self, items: Sequence[int], notes: Sequence[str]) -> str:
        """Items one a line, each with a note beside it."""
        patterns = self.patterns
        return "\n".join([f"{patterns[item]}{SEPARATOR}{note}" for item, note in zip(items, notes, strict=True)])

    def codes(self, item: int) -> list[int]:
        return self.stock.codes[item].tolist()

    def as_object(self, item: int, domain: str = "domain", codes: str = "codes") -> str:
        """An item as a JSON object; without its domain where tokens do not tell domains apart."""
        numbers = ", ".join(map(str, self.codes(item)))
        head = f'"{domain}": {self.stock.domain_json[self.stock.domains[item]]}, ' if self.stock.tells_domains else ""
        return f'{{{head}"{codes}": [{numbers}]}}'

    def kind_text(self, name: str) -> str:
        """Name of a wording: that for formats that do not tell domains apart where the format is one."""
        return name if self.stock.tells_domains else f"{name}_plain"

    def word(self, name: str) -> str:
        return self.prompts.texts[f"word.{name}"][0]

    def yes_no(self, holds: bool) -> str:
        return self.word("yes" if holds else "no")

    def say(self, name: str, **fields: object) -> str:
        """A line of a trace."""
        return self.prompts.texts[f"step.{name}"][0].format(**fields)

    def notes(self, items: Sequence[int], notes: Sequence[object]) -> list[str]:
        """Lines of a trace: place, item, what is seen of it."""
        patterns = self.patterns
        return [f"{n}. {patterns[i]}: {note}" for n, (i, note) in enumerate(zip(items, notes, strict=True), 1)]

    def reading(self, item: int) -> str:
        """Line of a trace that reads an item."""
        codes = ", ".join([f"{a}={c}" for a, c in zip(self.stock.letters, self.codes(item), strict=True)])
        if self.stock.tells_domains:
            return self.say("reads", item=self.patterns[item], domain=self.stock.domains[item], codes=codes)
        return self.say("reads_plain", item=self.patterns[item], codes=codes)

    def places(self, chosen: Sequence[int | str]) -> str:
        return ", ".join(map(str, chosen)) if chosen else self.word("none")


def numbered(lines: Sequence[str]) -> str:
    return "\n".join([f"{n}. {line}" for n, line in enumerate(lines, 1)])


def join_json(texts: Sequence[str]) -> str:
    return json.dumps(list(texts), ensure_ascii=False)


@cache
def day_name(day: int) -> str:
    """`2025-01-31` of a day since 1970."""
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()
