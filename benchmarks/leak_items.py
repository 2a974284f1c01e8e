"""A made catalogue, and clean traces about it, to plant leaks in.

How many items carry a piece of text is decided here by plain search through the catalogue's raw texts, on a
normalisation of its own, so that what the detector should find is not defined by the detector.
"""

# ruff: noqa: RUF001 (Chinese punctuation)

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from onereason.itemic.format import PRESETS, ItemicFormat

MIN_ITEMS = 3
EMPTY_WORDS = frozenset(
    "the a an of for and with by in on to from or at as no not too your you all is it that this 的 了 和 与 在".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Items:
    """A catalogue in words, with codes and domains (`N` items)."""

    item_ids: Sequence[str]
    domains: Sequence[str]
    codes: Sequence[tuple[int, ...]]
    patterns: Sequence[str]
    titles: Sequence[str]
    captions: Sequence[str]
    attributes: Sequence[Mapping[str, tuple[str, ...]]]
    format: ItemicFormat
    theme: str

    @cached_property
    def plain(self) -> list[str]:
        """All words of each item; `|` between its texts."""
        found = []
        for item in range(len(self.item_ids)):
            values = [v for of in self.attributes[item].values() for v in of]
            parts = [self.titles[item], self.captions[item], *values]
            found.append(" | ".join(" ".join(plain_words(part)) for part in parts))
        return found

    def carriers(self, text: str) -> int:
        """How many items carry these words in a row."""
        wanted = f" {' '.join(plain_words(text))} "
        return sum(wanted in f" {one} " for one in self.plain)

    def carriers_of_all(self, text: str) -> int:
        """How many items carry all of these words that carry meaning."""
        wanted = set(plain_words(text)) - EMPTY_WORDS
        return sum(wanted <= set(one.split()) for one in self.plain)

    def themes(self, item: int) -> str:
        return (self.attributes[item].get(self.theme) or ("",))[-1]


def plain_words(text: str) -> list[str]:
    """Lower-case words without accents; a CJK character is a word."""
    folded = unicodedata.normalize("NFKD", text.replace("'", "").replace("\u2019", "").lower())
    folded = "".join(c for c in folded if not unicodedata.combining(c))
    return re.findall(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+", folded)


# -- a made catalogue -----------------------------------------------------------------------------------------------

_KINDS_EN = (
    "nail polish",
    "face mask",
    "hair serum",
    "lip balm",
    "hand cream",
    "body scrub",
    "eye cream",
    "shampoo bar",
)
_KINDS_ZH = ("口红", "面膜", "洗发水", "护手霜", "眼影盘", "身体乳")
_SHADES_EN = ("coral", "ivory", "amber", "rose", "plum", "sand", "jade", "pearl", "copper", "slate")
_SHADES_ZH = ("珊瑚色", "象牙白", "琥珀色", "玫瑰色", "梅子色", "沙色", "翡翠绿", "珍珠白")
_USES_EN = ("for dry skin", "for travel", "with vitamin e", "for daily use", "without perfume", "for cold winters")
_USES_ZH = ("适合干皮", "旅行装", "含维生素", "日常使用", "无香型", "冬季专用")
_PLACES_EN = ("a cabinet", "a travel bag", "an office drawer", "a gym locker", "a bathroom shelf")
_PLACES_ZH = ("化妆台", "旅行袋", "办公抽屉", "健身柜", "浴室架")


def make_name(rng: random.Random, length: int = 3) -> str:
    """A word that no language has."""
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(length)).capitalize()


def make_items(num_items: int = 240, seed: int = 0, format: ItemicFormat | None = None) -> Items:
    """Items of two domains, English and Chinese: some share a brand, a title, or a semantic id; some have a title that
    is no more than the name of their category."""
    rng = random.Random(seed)
    format = format or PRESETS["onereason"].with_shape(codes=256)
    names = list(format.domains)[:2]
    brands = [make_name(rng) for _ in range(6)]
    # Items that resemble each other share their first codes, as after RQ-KMeans.
    heads = [tuple(rng.randrange(size) for size in format.codes_per_level[:-1]) for _ in range(num_items // 6 + 1)]
    codes: list[tuple[int, ...]] = []
    columns: list[tuple[str, str, str, dict[str, tuple[str, ...]]]] = []
    for number in range(num_items):
        is_chinese = number % 3 == 2
        domain = names[number % len(names)]
        kind = rng.choice(_KINDS_ZH if is_chinese else _KINDS_EN)
        brand = rng.choice(brands) if rng.random() < 0.7 else make_name(rng, 4)
        line = make_name(rng, rng.choice((2, 3)))
        shade = rng.choice(_SHADES_ZH if is_chinese else _SHADES_EN)
        use = rng.choice(_USES_ZH if is_chinese else _USES_EN)
        place = rng.choice(_PLACES_ZH if is_chinese else _PLACES_EN)
        maker, origin = make_name(rng, 4), make_name(rng, 3)
        ounces = rng.randint(2, 40) / 2
        if is_chinese:
            title = f"{brand} {line}{shade}{kind} {use}"
            caption = (
                f"这款{kind}来自{maker}工坊，颜色是{shade}。{use}，适合放在{place}里。"
                f"配方由{origin}的老师傅调制，质地像{line}丝绸一样顺滑，打开盖子就能闻到淡淡的花香。"
            )
        else:
            title = f"{brand} {line} {kind.title()} in {shade.title()}, {use}, {ounces:g} oz"
            caption = (
                f"A {shade} {kind} that {maker} pours by hand in a workshop near {origin}. Keep it in {place}, "
                f"it is made {use}. The {line} blend settles within {rng.randint(2, 90)} seconds and leaves a sheen "
                f"that lasts until {rng.choice(('noon', 'dusk', 'midnight'))}."
            )
        if number % 11 == 0:
            title = kind
        price = f"{rng.randint(3, 90)}.{rng.randint(10, 99)}"
        values = {
            "category": (kind,),
            "brand": (brand,),
            "maker": (maker,),
            "price": (price,),
            "asin": (f"B{rng.randrange(10**8, 10**9)}",),
        }
        columns.append((domain, title, caption, values))
        head = rng.choice(heads)
        last = rng.randrange(format.codes_per_level[-1])
        codes.append(codes[-3] if number % 37 == 36 else (*head, last))
    ids = [f"{domain}_{number:06d}" if number % 4 else str(number) for number, (domain, *_) in enumerate(columns)]
    patterns = [format.render(c, column[0]) for c, column in zip(codes, columns, strict=True)]
    domains, titles, captions, attributes = zip(*columns, strict=True)
    return Items(ids, domains, codes, patterns, titles, captions, attributes, format, "category")


# -- clean traces ---------------------------------------------------------------------------------------------------


def make_trace(items: Items, history: Sequence[int], target: int, rng: random.Random, length: int = 600) -> str:
    """A trace about a history that stays at the level of kinds; it cites items, some with their titles."""
    is_chinese = rng.random() < 0.4
    kinds = list(dict.fromkeys(kind for item in history if (kind := items.themes(item)))) or ["things"]
    cited = rng.sample(list(history), min(len(history), 4))
    goal = items.themes(target) or kinds[-1]
    goal = goal if items.carriers(goal) >= MIN_ITEMS else kinds[-1]
    if is_chinese:
        lines = [f"用户画像：近期多看{'、'.join(kinds[:4])}，口味稳定，共{len(history)}次。", "兴趣："]
        lines += [f"{n}. {items.themes(i) or kinds[0]}：见{_cite(items, i, rng)}" for n, i in enumerate(cited, 1)]
        lines.append(f"转移：从{kinds[-1]}出发，用户常由此转向{goal}，下一步很可能与之搭配，停留在类别层面。")
    else:
        lines = [
            f"Persona: over {len(history)} steps the user keeps to {', '.join(kinds[:4])}; tastes are steady.",
            "Interests:",
        ]
        lines += [f"{n}. {items.themes(i) or kinds[0]}, as in {_cite(items, i, rng)}." for n, i in enumerate(cited, 1)]
        lines.append(
            f"Transition: from {kinds[-1]}, which leads the recent steps, users often go on to {goal}, so what comes "
            "next most likely goes with it; nothing speaks for one product over another."
        )
    trace = "\n".join(lines)
    filler = " 证据来自近期的行为。" if is_chinese else " The evidence is recent, on 2025-01-03 and later."
    while len(trace) < length:
        trace += filler
    return trace


def _cite(items: Items, item: int, rng: random.Random) -> str:
    return f"{items.patterns[item]} ({items.titles[item]})" if rng.random() < 0.3 else items.patterns[item]
