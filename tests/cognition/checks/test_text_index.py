"""How many items carry words, against plain search."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from onereason.cognition.checks.text_index import TextIndex

TEXTS = [" red nail polish | nail care ", " nail polish remover ", " red lipstick ", " "]


def test_by_hand():
    index = TextIndex(TEXTS)
    assert index.count_run(["nail", "polish"], 9) == 2
    assert index.count_run(["polish", "nail"], 9) == 0  # the bar keeps the parts of an item apart
    assert index.count_words(["polish", "nail"], 9) == 2
    assert index.count_run(["red"], 9) == 2 and index.count_run(["red"], 1) == 1
    assert index.count_run(["blue"], 9) == index.count_words(["red", "blue"], 9) == 0


WORDS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=6)


@given(st.lists(WORDS, max_size=8), WORDS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_against_plain_search_in_any_order_of_items(texts, words, limit, rng):
    spaced = [f" {' '.join(text)} " for text in texts]
    runs = sum(f" {' '.join(words)} " in text for text in spaced)
    sets = sum(set(words) <= set(text.split()) for text in spaced)
    for _ in range(2):
        index = TextIndex(spaced)
        assert index.count_run(words, limit) == min(limit, runs)
        assert index.count_words(words, limit) == min(limit, sets)
        rng.shuffle(spaced)
