"""Text as checks compare it."""

# ruff: noqa: RUF001

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onereason.cognition.normalise import is_cjk, mostly_cjk, normalise


@pytest.mark.parametrize(
    ("text", "spaced"),
    [
        ("Café-Crème №5", " cafe creme 5 "),
        ("ＣＡＦÉ  crème, 5", " cafe creme 5 "),
        ("OPI's Nail—Lacquer™", " opis nail lacquer "),
        ("玫瑰色·口红ＡＢ１２", " 玫 瑰 色 口 红 ab12 "),
        ("S\u200bK\u00adIN", " skin "),
        ("Straße", " strasse "),
        ("e\u0301a", " ea "),
        ("<s_a_12><s_b_7>", " s a 12 s b 7 "),
        ("٣ ３ 3", " 3 3 3 "),
        ("ガ が", " ガ が "),  # a voiced kana is a letter of its own, no accent
        ("...", " "),
        ("", " "),
    ],
)
def test_words(text, spaced):
    found = normalise(text)
    assert found.spaced == spaced
    assert found.words == spaced.split() and found.squeezed == "".join(spaced.split())
    assert found.word_set == set(found.words)


@given(st.text(max_size=40))
def test_normalising_twice_is_normalising_once(text):
    once = normalise(text)
    assert normalise(once.spaced).words == once.words


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_the_quick_way_for_ascii_is_the_general_way(text):
    # A no-break space makes the text go the general way, and separates like any space.
    assert normalise(text).words == normalise(f"{text}\u00a0").words


def test_cjk_words():
    assert is_cjk("红") and is_cjk("カ") and not is_cjk("a") and not is_cjk("红色")
    assert mostly_cjk(["红", "a"]) and not mostly_cjk(["红", "a", "b"]) and not mostly_cjk([])
