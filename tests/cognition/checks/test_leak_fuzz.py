"""Leaks under fire: planted ones are always caught, clean traces pass, nothing crashes, order and repetition change
nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.leak_items import make_items, make_trace
from benchmarks.leak_kinds import PLANTS, insert
from benchmarks.leaks import load_beauty, make_histories, measure
from onereason.cognition.checks.leakage import KINDS, CatalogTexts, LeakDetector
from onereason.itemic.format import PRESETS

FORMATS = {
    "onereason": PRESETS["onereason"].with_shape(codes=256),
    "onerec_think": PRESETS["onerec_think"],
    "minionerec": PRESETS["minionerec"],
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_planted_leak_is_caught_and_no_clean_trace_is_accused(name):
    items = make_items(180, seed=3, format=FORMATS[name])
    histories = make_histories(items, 150, random.Random(5))
    found = measure(items, histories, num_planted=25, seed=7)
    missed = {kind: one["missed"] for kind, one in found["kinds"].items() if one["missed"]}
    assert not missed
    assert found["planted"] == found["caught"] > 800
    assert found["false_alarm_rate"] == 0, found["false_alarm_examples"]
    never = {kind for kind, one in found["kinds"].items() if not one["planted"]}
    assert never <= {"pattern_other_begin"}  # a format without domains has no other begin token
    called = {kind for one in found["kinds"].values() for kind in one["called"]}
    assert called <= set(KINDS)


def test_beauty_leaks_are_caught(shared_dir):
    items, histories = load_beauty(shared_dir / "data" / "beauty")
    found = measure(items, histories[:60], num_planted=2, seed=1)
    assert {kind: one["missed"] for kind, one in found["kinds"].items() if one["missed"]} == {}
    assert found["false_alarm_rate"] <= 0.005, found["false_alarm_examples"]


ITEMS = make_items(90, seed=1)
DETECTOR = LeakDetector(ITEMS)
SEEDS = st.integers(0, 10**6)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PLANTS)), st.integers(0, len(ITEMS.item_ids) - 1), SEEDS)
def test_a_leak_is_caught_wherever_it_is_put(kind, target, seed):
    rng = random.Random(seed)
    history = [item for item in rng.sample(range(len(ITEMS.item_ids)), 8) if ITEMS.codes[item] != ITEMS.codes[target]]
    trace = make_trace(ITEMS, history, target, rng)
    assert DETECTOR.find(trace, target, history) == []
    text = PLANTS[kind](ITEMS, target, rng)
    if text is None:
        return
    planted = insert(trace, text, rng)
    found = DETECTOR.find(planted, target)
    assert found
    assert DETECTOR.find(planted, target) == found  # asked again, the same


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(len(ITEMS.item_ids))), st.sampled_from(sorted(PLANTS)), SEEDS)
def test_the_order_of_items_changes_nothing(order, kind, seed):
    rng = random.Random(seed)
    target = rng.randrange(len(order))
    columns = {
        name: [getattr(ITEMS, name)[item] for item in order]
        for name in ("item_ids", "patterns", "titles", "captions", "attributes")
    }
    other = LeakDetector(CatalogTexts(format=ITEMS.format, **columns))
    text = PLANTS[kind](ITEMS, target, rng) or "nothing"
    trace = make_trace(ITEMS, [item for item in order[:6] if item != target], target, rng)
    planted = insert(trace, text, rng)
    assert other.find(planted, order.index(target)) == DETECTOR.find(planted, target)


TEXT = st.text(st.sampled_from("ab1 2.,-<>|_é口红Ａ\u0301\u200b\n'"), max_size=30)


@st.composite
def catalogues(draw) -> CatalogTexts:
    format = FORMATS[draw(st.sampled_from(sorted(FORMATS)))].with_shape(codes=4)
    n = draw(st.integers(1, 6))
    domains = list(format.domains)
    codes = st.tuples(*(st.integers(0, 3) for _ in range(format.num_levels)))
    patterns = [format.render(draw(codes), draw(st.sampled_from(domains))) for _ in range(n)]
    texts = st.lists(TEXT, min_size=n, max_size=n)
    values = st.dictionaries(st.sampled_from(["brand", "price"]), st.lists(TEXT, max_size=2).map(tuple), max_size=2)
    return CatalogTexts(
        draw(texts), patterns, draw(texts), draw(texts), draw(st.lists(values, min_size=n, max_size=n)), format
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(catalogues(), TEXT, TEXT, st.booleans())
def test_any_catalogue_and_any_trace(items, before, after, shows):
    detector = LeakDetector(items, min_items=2)
    shown = range(len(items.item_ids)) if shows else ()
    for target, pattern in enumerate(items.patterns):
        trace = f"{before} {after}"
        found = detector.find(trace, target, shown)
        assert {leak.kind for leak in found} <= set(KINDS)
        assert LeakDetector(items, min_items=2).find(trace, target, shown) == found
        assert "pattern" in {leak.kind for leak in detector.find(f"{before}{pattern}{after}", target, shown)}
