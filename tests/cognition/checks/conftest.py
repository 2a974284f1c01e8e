"""A small catalogue whose counts can be checked by eye."""

# ruff: noqa: RUF001

from __future__ import annotations

import pytest

from onereason.cognition.checks.leakage import CatalogTexts, LeakDetector
from onereason.itemic.format import PRESETS

FORMAT = PRESETS["onereason"]


def row(domain, codes, title, caption, **attributes):
    values = {name: v if isinstance(v, tuple) else (v,) for name, v in attributes.items()}
    return FORMAT.render(codes, domain), title, caption, values


ROWS = [
    # 0, the target of most tests: its brand, shade, price and last code are its own.
    row(
        "prod",
        (12, 7, 300),
        "Bellaroma Velvet Rosé Night-Cream for Dry Skin, 50 ml",
        "A rich night cream that Bellaroma whips from damask petals and almond milk. It sinks in within a minute and "
        "leaves no shine. The jar closes with a cork lid and smells of a garden after rain.",
        category=("skin care", "face cream"),
        brand="Bellaroma",
        price="34.90",
        shade="damask rose",
        asin="B004ZT0SSG",
    ),
    # 1-4: face creams by Nivola, one of them with the target's first two codes.
    row("prod", (12, 7, 301), "Nivola Day Cream", "A day cream.", category=("skin care", "face cream"), brand="Nivola"),
    row(
        "prod", (5, 6, 302), "Nivola Rich Cream", "A rich cream.", category=("skin care", "face cream"), brand="Nivola"
    ),
    row("prod", (5, 8, 303), "Nivola Eye Cream", "An eye cream.", category=("skin care", "face cream"), brand="Nivola"),
    row("prod", (9, 9, 304), "Face Cream", "Face cream.", category=("skin care", "face cream"), brand="Nivola"),
    # 5: the target's codes in another domain.
    row("video", (12, 7, 300), "How to Layer Creams", "A short video about skin care.", category="skin care"),
    # 6: Chinese.
    row(
        "video",
        (40, 41, 305),
        "雾面玫瑰口红试色合集",
        "博主在窗边依次试涂了九支雾面口红，从奶茶色一路试到浆果色，最后用一支玫瑰色收尾，并且比较了每一支的持妆时间。",
        category="美妆",
    ),
    row("prod", (50, 7, 306), "Mascara", "Black mascara.", category="eyes", brand="Nivola"),
    row("prod", (51, 7, 307), "Mascara", "Brown mascara.", category="eyes", brand="Nivola"),
    row("prod", (52, 7, 308), "Mascara", "Blue mascara.", category="eyes", brand="Nivola"),
]
IDS = ["prod_00417", "12", "x1", "x2", "x3", "x4", "x5", "mascara", "x7", "x8"]


@pytest.fixture(scope="package")
def items() -> CatalogTexts:
    patterns, titles, captions, attributes = zip(*ROWS, strict=True)
    return CatalogTexts(IDS, patterns, titles, captions, attributes, FORMAT)


@pytest.fixture(scope="package")
def detector(items) -> LeakDetector:
    return LeakDetector(items)
