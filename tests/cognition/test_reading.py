"""Traces of perception over three levels, in a format whose tokens tell no domains apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from onereason.cognition.aspects import Aspect
from onereason.cognition.reading import CatalogReading, Reader, read_catalog
from onereason.data.prompt_sets import load_prompt_set
from onereason.itemic.format import ItemicFormat, load_format

CODES = [(0, 0, c) for c in range(4)] + [(0, 1, c) for c in range(3)] + [(1, 0, 0), (1, 1, 0), (2, 0, 0)]
THEMES = ["tea"] * 4 + ["cup"] * 3 + ["tea", "cup", None]
WOODS = ["oak", "oak", "oak", "elm", "elm", "ash", "oak", "oak", None, None]


def aspect(name: str, angle: str, values: Sequence[str | None]) -> Aspect:
    known = sorted({v for v in values if v})
    return Aspect(name, angle, known, np.array([known.index(v) if v else -1 for v in values]), {})


def reading(format: ItemicFormat, domains: Sequence[str]) -> CatalogReading:
    aspects = [aspect("kind", "theme", THEMES), aspect("main_wood", "other", WOODS)]
    patterns = [format.render(codes, domain) for codes, domain in zip(CODES, domains, strict=True)]
    return read_catalog(format, np.array(CODES), domains, patterns, aspects, load_prompt_set("perception"), "en")


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(reading(load_format("openonerec", 3, 4), ["beauty"] * 10), 0, 10)


def test_each_code_narrows_the_items_down(reader):
    # Under <s_a_0>: 4 of 7 are tea, 3 cup; 4 of 7 oak. Under <s_a_0><s_b_0>: 4 of 4 tea, 3 of 4 oak.
    assert reader.read_pattern(3) == (
        "<s_a_0> gathers items: most are about tea, many are about cup, most have the main wood oak.\n"
        "<s_a_0><s_b_0> narrows them down: nearly all are about tea, most have the main wood oak.\n"
        "Read together, this item is about tea, with the main wood elm."
    )


def test_of_what_is_asked_only_groups_are_told(reader):
    # Under <s_a_0>: 4 of 7 oak, 2 elm, 1 ash: the two most frequent are told, and the theme most have.
    assert reader.read_pattern(4, asked=1) == (
        "<s_a_0> gathers items: most have the main wood oak, many have the main wood elm, most are about tea.\n"
        "<s_a_0><s_b_1> narrows them down: many have the main wood ash, many have the main wood elm, "
        "nearly all are about cup.\n"
        "Read together, this item is about cup."
    )
    assert reader.read_pattern(8, asked=0) is None  # two items under <s_a_1>, and nothing else is known


def test_nothing_is_said_of_few_items_or_without_knowledge(reader):
    assert reader.read_pattern(7) == "Read together, this item is about tea, with the main wood oak."
    assert reader.read_pattern(9) is None and reader.read_description(9, "tea of oak") is None


def test_a_description_is_narrowed_down_to_the_first_code_that_most_of_its_kind_have(reader):
    # 4 of the 5 items about tea begin with <s_a_0>; so do 4 of the 5 of oak.
    told = "Among items about tea, nearly all begin with <s_a_0>."
    assert reader.read_description(3, "A tea.") == f"The item described is about tea.\n{told}"
    assert reader.read_description(0, "OAK box for tea") == (
        f"The item described is about tea, with the main wood oak.\n{told}\n"
        "Among items with the main wood oak, nearly all begin with <s_a_0>."
    )
    assert reader.read_description(5, "of ash") == (
        "The item described is about cup, with the main wood ash.\n"
        "Among items about cup, most begin with <s_a_0>."  # ash is one item's
    )


def test_no_trace_argues_for_a_first_code_that_is_not_the_answers(reader):
    # items 7 and 8 begin with <s_a_1>, most of their kinds with <s_a_0>
    assert reader.read_description(7, "tea of oak") == "The item described is about tea, with the main wood oak."
    assert reader.read_description(8, "cup") == "The item described is about cup."


def test_a_first_code_is_not_told_where_it_would_be_told_of_the_item_itself():
    names, themes = ["x"] * 6, aspect("kind", "theme", ["tea"] * 4 + ["cup"] * 2)

    def described(codes: list[tuple[int, ...]]) -> str | None:
        format = load_format("openonerec", len(codes[0]), 8)
        read = read_catalog(format, np.array(codes), names, [""] * 6, [themes], load_prompt_set("perception"), "en")
        return Reader(read, 0, 6).read_description(0, "tea")

    kind, most = "The item described is about tea.", "Among items about tea, most begin with <s_a_0>."
    assert described([(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)]) == f"{kind}\n{most}"  # 3 of 4
    assert described([(0, 0), (0, 1), (1, 2), (3, 0), (2, 0), (2, 1)]) == kind  # 2 of 4 are few
    assert described([(0,), (0,), (0,), (1,), (2,), (2,)]) == kind  # one level: the code is the whole item


def test_a_part_of_the_catalog_is_read_like_the_whole(reader):
    part = Reader(reading(load_format("openonerec", 3, 4), ["beauty"] * 10), 3, 5)
    assert [part.read_pattern(i) for i in (3, 4)] == [reader.read_pattern(i) for i in (3, 4)]


def test_domains_that_tokens_tell_apart_are_counted_apart():
    format = load_format("onereason", 3, 4)
    reader = Reader(reading(format, ["video"] * 4 + ["prod"] * 6), 0, 10)
    assert reader.read_pattern(0) == (
        "<s_a_0> gathers videos: nearly all are about tea, most have the main wood oak.\n"
        "<s_a_0><s_b_0> narrows them down: nearly all are about tea, most have the main wood oak.\n"
        "Read together, this video is about tea, with the main wood oak."
    )
    assert reader.read_pattern(4).startswith("<s_a_0> gathers products: nearly all are about cup.\n")


def test_the_first_line_may_stand_at_the_second_code():
    """A prefix that is of all kinds of items says nothing; the next one then opens the trace."""
    n = 24
    codes = np.array([(0, 0, c) if c < 4 else (0, 1, c) for c in range(n)])
    themes = aspect("kind", "theme", ["tea" if c < 2 else f"kind {c}" if c >= 4 else None for c in range(n)])
    format = load_format("openonerec", 3, 32)
    read = read_catalog(format, codes, ["x"] * n, [""] * n, [themes], load_prompt_set("perception"), "en")
    # tea is 2 of 24 under the first code, 2 of 4 under the first two.
    assert Reader(read, 0, n).read_pattern(3) == "<s_a_0><s_b_0> gathers items: most are about tea."
