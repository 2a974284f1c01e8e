"""Small language exercises with exact answers: the general-language part of the demonstration's corpus."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from typing import Any

from onereason.errors import ConfigError

_WORDS = (
    "river",
    "stone",
    "lamp",
    "cloud",
    "garden",
    "window",
    "paper",
    "silver",
    "market",
    "bridge",
    "forest",
    "candle",
    "pocket",
    "winter",
    "summer",
    "harbour",
    "needle",
    "basket",
    "copper",
    "meadow",
    "button",
    "island",
    "ladder",
    "velvet",
    "thunder",
    "saddle",
    "orchard",
    "pebble",
    "lantern",
    "whistle",
)


def general_rows(seed: int, n: int) -> list[dict[str, Any]]:
    """`n` rows `{"messages": [user, assistant], "answer": str, "kind": str}`; the assistant says the answer alone.

    The four kinds (arithmetic, dates, lists, strings) take turns. The same seed gives the same rows.
    """
    if n < 0:
        raise ConfigError(f"n must not be negative, got {n}.")
    rng = random.Random(seed)
    rows = []
    for index in range(n):
        kind, makers = list(_MAKERS.items())[index % len(_MAKERS)]
        question, answer = rng.choice(makers)(rng)
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        rows.append({"messages": messages, "answer": answer, "kind": kind})
    return rows


def _add(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(2, 999), rng.randint(2, 999)
    return f"What is {a} plus {b}? Answer with the number.", str(a + b)


def _subtract(rng: random.Random) -> tuple[str, str]:
    a, b = sorted((rng.randint(2, 999), rng.randint(2, 999)), reverse=True)
    return f"Subtract {b} from {a}. Answer with the number.", str(a - b)


def _multiply(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(2, 12), rng.randint(2, 99)
    return f"A box holds {b} pencils. How many pencils are in {a} boxes?", str(a * b)


def _divide(rng: random.Random) -> tuple[str, str]:
    b, quotient, rest = rng.randint(3, 12), rng.randint(2, 40), rng.randint(0, 2)
    return f"What remains when {b * quotient + rest} is divided by {b}?", str(rest)


def _day(rng: random.Random) -> datetime.date:
    return datetime.date(2020, 1, 1) + datetime.timedelta(days=rng.randint(0, 3650))


def _add_days(rng: random.Random) -> tuple[str, str]:
    day, days = _day(rng), rng.randint(2, 60)
    return f"Which date is {days} days after {day}? Write YYYY-MM-DD.", str(day + datetime.timedelta(days=days))


def _weekday(rng: random.Random) -> tuple[str, str]:
    day = _day(rng)
    names = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    return f"On which day of the week does {day} fall?", names[day.weekday()]


def _days_between(rng: random.Random) -> tuple[str, str]:
    day, days = _day(rng), rng.randint(1, 90)
    return f"How many days lie between {day} and {day + datetime.timedelta(days=days)}?", str(days)


def _sample(rng: random.Random) -> list[str]:
    return rng.sample(_WORDS, rng.randint(3, 6))


def _sort(rng: random.Random) -> tuple[str, str]:
    words = _sample(rng)
    return f"Sort these words alphabetically: {', '.join(words)}.", ", ".join(sorted(words))


def _longest(rng: random.Random) -> tuple[str, str]:
    numbers = rng.sample(range(10, 1000), 5)
    return f"Which is the largest of {', '.join(map(str, numbers))}?", str(max(numbers))


def _third(rng: random.Random) -> tuple[str, str]:
    words = _sample(rng)
    place = rng.randrange(3)
    name = ("first", "second", "third")[place]
    return f"Give the {name} word of this list: {', '.join(words)}.", words[place]


def _count(rng: random.Random) -> tuple[str, str]:
    words = _sample(rng)
    return f"How many words does this list have: {', '.join(words)}?", str(len(words))


def _upper(rng: random.Random) -> tuple[str, str]:
    word = rng.choice(_WORDS)
    return f"Write {word!r} in capital letters.", word.upper()


def _reverse(rng: random.Random) -> tuple[str, str]:
    word = rng.choice(_WORDS)
    return f"Write {word!r} backwards.", word[::-1]


def _replace(rng: random.Random) -> tuple[str, str]:
    word = rng.choice(_WORDS)
    old = rng.choice(word)
    new = rng.choice("aeiou")
    return f"In {word!r}, replace every {old!r} by {new!r}.", word.replace(old, new)


def _join(rng: random.Random) -> tuple[str, str]:
    words = _sample(rng)
    return f"Join these words with hyphens: {' '.join(words)}.", "-".join(words)


_MAKERS: dict[str, tuple[Callable[[random.Random], tuple[str, str]], ...]] = {
    "arithmetic": (_add, _subtract, _multiply, _divide),
    "dates": (_add_days, _weekday, _days_between),
    "lists": (_sort, _longest, _third, _count),
    "strings": (_upper, _reverse, _replace, _join),
}
