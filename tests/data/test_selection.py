"""Which rows go into a mixture: think ratios and shares, exact to a row."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.data.selection import RowTable, balance_think, count_modes, draw_shares, find_convertible, keep_first
from onereason.errors import ConfigError, DataError


def table(corpus, thinks=None, domain=None, size=None) -> RowTable:
    """Rows that all say something different; by default all of one domain, of size 1, and without a trace."""
    n = len(corpus)
    return RowTable(
        np.array(corpus, dtype=np.int16),
        np.arange(1, n + 1, dtype=np.uint64),
        np.zeros(n, dtype=bool) if thinks is None else np.array(thinks, dtype=bool),
        np.zeros(n, dtype=np.int32) if domain is None else np.array(domain, dtype=np.int32),
        np.ones(n, dtype=np.uint32) if size is None else np.array(size, dtype=np.uint32),
    )


def everything(rows: RowTable) -> np.ndarray:
    return np.ones(len(rows.corpus), dtype=bool)


# -- duplicates -----------------------------------------------------------------------------------------------------


def test_the_first_of_each_stays():
    assert keep_first(np.array([5, 3, 5, 5, 3, 7], dtype=np.uint64)).tolist() == [True, True, False, False, False, True]
    assert keep_first(np.zeros(0, dtype=np.uint64)).tolist() == []


def test_a_trace_may_be_dropped_where_nobody_says_what_is_left():
    content = np.array([1, 2, 3, 4, 5, 6], dtype=np.uint64)
    #                none  new  same as row 0  same as row 1  not alive  new
    bare = np.array([0, 10, 1, 10, 11, 12], dtype=np.uint64)
    alive = np.array([True, True, True, True, False, True])
    assert find_convertible(content, bare, alive).tolist() == [False, True, False, False, False, True]


# -- think ratios ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("think", "direct", "convertible", "ratio", "counts"),
    [
        (10, 10, 0, 0.5, (10, 0, 10)),
        (10, 10, 0, 0.2, (2, 0, 10)),  # 10 x 0.2 / 0.8 = 2.5, to the even neighbour
        (10, 10, 0, 0.8, (10, 0, 2)),  # 10 x 0.2 / 0.8 = 2.5
        (10, 10, 0, 0.0, (0, 0, 10)),
        (10, 10, 0, 1.0, (10, 0, 0)),
        (10, 0, 0, 0.3, (10, 0, 0)),  # one mode only: nothing to balance
        (0, 10, 0, 0.3, (0, 0, 10)),
        # all 20 stay when 6 lose their trace: 4 of 20 think
        (10, 10, 10, 0.2, (4, 6, 10)),
        # only 2 may: 12 rows do not think, and 12 x 0.2 / 0.8 = 3 do
        (10, 10, 2, 0.2, (3, 2, 10)),
        (10, 0, 10, 0.3, (3, 7, 0)),
        (10, 0, 4, 0.5, (4, 4, 0)),
        (10, 0, 4, 0.0, (0, 4, 0)),
        (10, 0, 4, 1.0, (10, 0, 0)),
        (3, 10, 3, 0.5, (3, 0, 3)),  # too few think: no trace is dropped
    ],
)
def test_most_rows_stay_at_a_ratio(think, direct, convertible, ratio, counts):
    assert count_modes(think, direct, convertible, ratio) == counts


@given(st.integers(0, 25), st.integers(0, 25), st.integers(0, 25), st.floats(0, 1))
def test_no_other_choice_at_the_ratio_keeps_more(think, direct, convertible, ratio):
    convertible = min(convertible, think)
    kept, bare, plain = count_modes(think, direct, convertible, ratio)
    assert 0 <= bare <= convertible and 0 <= kept <= think - bare and 0 <= plain <= direct
    if not think or not (direct or convertible):
        assert (kept, bare, plain) == (think, 0, direct)
        return
    total = kept + bare + plain
    assert abs(kept - ratio * total) <= 0.5 + 1e-9
    most = max(
        t + d
        for t in range(think + 1)
        for d in range(direct + min(convertible, think - t) + 1)
        if abs(t - ratio * (t + d)) <= 1e-9
    )
    assert total >= most - 1  # whole rows: one fewer where halves round


def test_ratios_hold_in_each_corpus_and_domain():
    # corpus 0: domain 0 has 8 and 8, domain 1 has 8 and 2; corpus 1: domain 0 has 4 and 4, no domain 3 and 3
    cells = [(0, 0, 8, 8), (0, 1, 8, 2), (1, 0, 4, 4), (1, -1, 3, 3)]
    rows = [(c, d, t) for c, d, think, direct in cells for t in [True] * think + [False] * direct]
    corpus, domain, thinks = zip(*rows, strict=True)
    found = table(corpus, thinks, domain)
    kept, converted = balance_think(found, everything(found), {0: 0.25}, 0.5, seed=3)
    assert not converted.any()
    counts = Counter(row for row, keep in zip(rows, kept, strict=True) if keep)
    assert counts == {
        (0, 0, True): 3,  # 8 x 0.25 / 0.75 = 2.67
        (0, 0, False): 8,
        (0, 1, True): 2,
        (0, 1, False): 2,
        (1, 0, True): 1,  # 4 x 0.25 / 0.75 = 1.33
        (1, 0, False): 4,
        (1, -1, True): 3,
        (1, -1, False): 3,
    }


def test_without_a_ratio_all_rows_stay():
    found = table([0] * 6, [True] * 5 + [False])
    kept, _ = balance_think(found, everything(found), {}, None, seed=0)
    assert kept.all()
    kept, _ = balance_think(found, everything(found), {7: 0.0}, None, seed=0)
    assert kept.all()


def test_rows_that_take_no_part_do_not_count():
    found = table([0] * 6, [True, True, True, True, False, False])
    alive = np.array([True, True, False, False, True, False])
    kept, _ = balance_think(found, alive, {}, 0.5, seed=0)
    assert kept[:2].sum() == 1 and kept.tolist()[2:] == [False, False, True, False]
    kept, _ = balance_think(found, np.zeros(6, dtype=bool), {}, 0.5, seed=0)
    assert not kept.any()


def test_converted_rows_are_convertible_and_stay():
    found = table([0] * 20, [True] * 10 + [False] * 10)
    may = np.zeros(20, dtype=bool)
    may[[1, 3, 5, 7, 9]] = True
    kept, converted = balance_think(found, everything(found), {}, 0.3, 0, may)
    # 20 x 0.3 = 6 think, so 4 of the 5 lose their trace
    assert kept.all() and converted.sum() == 4 and may[converted].all()


def test_what_is_left_out_depends_on_the_seed_alone():
    found = table([0] * 40, [True] * 30 + [False] * 10)
    first, again, other = (balance_think(found, everything(found), {}, 0.5, seed)[0] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
    assert first.sum() == other.sum() == 20


# -- shares ---------------------------------------------------------------------------------------------------------


def draw(rows: RowTable, shares, total=None, seed=0, alive=None) -> np.ndarray:
    names = [f"c{n}" for n in range(len(shares))]
    return draw_shares(rows, everything(rows) if alive is None else alive, names, shares, total, seed)


def test_the_scarcest_corpus_decides_the_size():
    rows = table([0] * 30 + [1] * 100)
    # 30 rows are 3 of 4 shares, so that the mixture has 40
    chosen = draw(rows, [3, 1])
    assert np.bincount(rows.corpus[chosen]).tolist() == [30, 10]
    assert len(set(chosen.tolist())) == 40


def test_rows_are_dealt_out_by_largest_remainder():
    rows = table([0] * 20 + [1] * 20 + [2] * 20)
    assert np.bincount(rows.corpus[draw(rows, [1, 1, 1], 10)]).tolist() == [4, 3, 3]
    # exact: 5.5, 2.75, 2.75 of 11; 9 whole rows, the two rests of .75 get one each
    assert np.bincount(rows.corpus[draw(rows, [2, 1, 1], 11)]).tolist() == [5, 3, 3]


def test_a_corpus_of_share_zero_takes_no_part():
    rows = table([0] * 5 + [1] * 5)
    assert sorted(draw(rows, [0, 1]).tolist()) == [5, 6, 7, 8, 9]


def test_domains_and_modes_keep_their_proportions():
    cells = [(0, True, 30), (0, False, 30), (1, True, 10), (1, False, 20), (-1, False, 10)]
    rows = table(
        [0] * 100 + [1] * 50,
        [t for _, t, n in cells for _ in range(n)] + [False] * 50,
        [d for d, _, n in cells for _ in range(n)] + [0] * 50,
    )
    chosen = draw(rows, [1, 1], 100)
    of = Counter((int(rows.domain[i]), bool(rows.thinks[i])) for i in chosen if rows.corpus[i] == 0)
    assert of == {(0, True): 15, (0, False): 15, (1, True): 5, (1, False): 10, (-1, False): 5}


def test_the_order_is_random_and_depends_on_the_seed_alone():
    rows = table([0] * 50 + [1] * 50)
    first, again, other = (draw(rows, [1, 1], 60, seed).tolist() for seed in (1, 1, 2))
    assert first == again and sorted(first) != sorted(other)
    of = rows.corpus[first]
    assert of.tolist() != sorted(of.tolist())


def test_rows_that_are_out_are_not_drawn():
    rows = table([0] * 10)
    alive = np.arange(10) % 2 == 0
    assert sorted(draw(rows, [1], alive=alive).tolist()) == [0, 2, 4, 6, 8]


def test_shares_of_tokens_are_missed_by_less_than_a_row():
    rng = np.random.default_rng(0)
    rows = table([0] * 400 + [1] * 400, rng.random(800) < 0.5, rng.integers(0, 3, 800), rng.integers(2, 90, 800))
    for seed in range(20):
        chosen = draw(rows, [3, 1], 8000, seed)
        tokens = np.bincount(rows.corpus[chosen], rows.size[chosen])
        assert 6000 - 90 < tokens[0] <= 6000 and 2000 - 90 < tokens[1] <= 2000
    stratum = rows.domain * 2 + rows.thinks
    own = rows.corpus == 0
    whole = np.bincount(stratum[own], rows.size[own]) / rows.size[own].sum()
    mine = chosen[rows.corpus[chosen] == 0]
    assert np.abs(np.bincount(stratum[mine], rows.size[mine]) - 6000 * whole).max() < 180


def test_all_tokens_of_the_scarcest_corpus_are_taken():
    rows = table([0] * 3 + [1] * 9, size=[7, 5, 3] + [4] * 9)
    chosen = draw(rows, [0.3, 0.7])
    assert set(chosen.tolist()) >= {0, 1, 2}
    # 15 tokens are 3 of 10 shares: 35 of corpus 1, which is 8 rows of 4
    assert len(chosen) == 3 + 8


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(-1, 1)), min_size=3, max_size=60),
    st.tuples(*(st.integers(1, 9) for _ in range(3))),
    st.integers(1, 60),
)
def test_shares_are_exact_whatever_the_rows(rows, shares, total):
    rows = [*rows, (0, True, 0), (1, True, 0), (2, True, 0)]
    corpus, thinks, domain = zip(*rows, strict=True)
    found = table(corpus, thinks, domain)
    available = np.bincount(found.corpus, minlength=3)
    wanted = np.array(shares) / sum(shares)
    if (total * wanted > available * (1 + 1e-9)).any():
        with pytest.raises(ConfigError, match="ask for at most"):
            draw(found, shares, total)
        return
    chosen = draw(found, shares, total)
    assert len(chosen) == len(set(chosen.tolist())) == total
    counts = np.bincount(found.corpus[chosen], minlength=3)
    assert (np.abs(counts - total * wanted) < 1).all()
    for c in range(3):
        for key in {(t, d) for k, t, d in rows if k == c}:
            exact = counts[c] * sum(r == (c, *key) for r in rows) / available[c]
            assert abs(sum(rows[i] == (c, *key) for i in chosen.tolist()) - exact) < 1


@pytest.mark.parametrize("shares", [[0, 0], [-1, 2], [float("nan"), 1], [float("inf"), 1]])
def test_shares_must_be_shares(shares):
    with pytest.raises(ConfigError, match="shares must be numbers from 0 with one above it"):
        draw(table([0, 1]), shares)


def test_a_mixture_that_is_too_large_names_the_corpus_that_is_too_small():
    rows = table([0] * 10 + [1] * 90)
    said = "a mixture of 40 needs 20 of corpus 'c0', which has 10; ask for at most 20"
    with pytest.raises(ConfigError, match=said):
        draw(rows, [1, 1], 40)
    assert len(draw(rows, [1, 1], 20)) == 20


def test_a_corpus_without_rows_is_named():
    with pytest.raises(DataError, match="corpus 'c1' has share 2 but no row is left of it"):
        draw(table([0, 0]), [1, 2])
