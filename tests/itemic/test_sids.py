"""Ready semantic ids: every public spelling reads to the same codes, and a wrong one names the item."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from onereason.errors import DataError, FormatError
from onereason.itemic.sids import parse_sids, read_sids


@pytest.mark.parametrize(
    "written",
    [
        ["<a_1>", "<b_20>", "<c_0>"],
        ["<s_a_1>", "<s_b_20>", "<s_c_0>"],
        ["<item_a_1>", "<item_b_20>", "<item_c_0>"],
        ["<|sid_begin|>", "<s_a_1>", "<s_b_20>", "<s_c_0>", "<|sid_end|>"],
        "<a_1><b_20><c_0>",
        "<|sid_begin|><s_a_1><s_b_20><s_c_0><|sid_end|>",
        "<a_1> <b_20> <c_0>",
        [1, 20, 0],
    ],
)
def test_every_spelling_reads_to_the_same_codes(written):
    assert parse_sids({"7": written, "3": ["<a_2>", "<b_2>", "<c_2>"]}) == {"7": (1, 20, 0), "3": (2, 2, 2)}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "expected an object .*, got list"),
        ({}, "holds no item"),
        ({"x": None}, "item 'x': expected a list of code tokens, got null"),
        ({"x": []}, "item 'x' has 0 levels"),
        ({"x": ["<a_1>"] * 27}, "item 'x' has 27 levels"),
        ({"x": ["<a_1>", "<c_1>"]}, "item 'x': '<c_1>' stands at level b"),
        ({"x": ["<b_1>", "<a_1>"]}, "item 'x': '<b_1>' stands at level a"),
        ({"x": ["<a_1>", "b_1"]}, "item 'x': 'b_1' is not a code token; expected e.g. '<b_12>'"),
        ({"x": ["<a_-1>"]}, "is not a code token"),
        ({"x": ["<a_1><b_2>"]}, "is not a code token"),
        ({"x": "<a_1>?<b_2>"}, r"'\?' is not a code token"),
        ({"x": [1.5]}, "item 'x': 1.5 is not a code token"),
        ({"x": [True]}, "item 'x': True is not a code token"),
        ({"x": [-1]}, "item 'x': code -1 is negative"),
        ({"x": [1, 2], "y": [1, 2, 3]}, "item 'y' has 3 levels, item 'x' has 2"),
    ],
)
def test_a_malformed_id_names_the_item(value, message):
    with pytest.raises(FormatError, match=message):
        parse_sids(value)


def test_the_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"semantic ids not found: expected a file at .*sids\.json"):
        read_sids(tmp_path / "sids.json")
    (tmp_path / "sids.json").write_text("{")
    with pytest.raises(DataError, match="is not valid JSON"):
        read_sids(tmp_path / "sids.json")
    (tmp_path / "sids.json").write_text(json.dumps({"x": 3}))
    with pytest.raises(FormatError, match=r"sids.json: item 'x': expected a list of code tokens, got int"):
        read_sids(tmp_path / "sids.json")


@pytest.mark.parametrize(("method", "in_collision"), [("rqvae", 1031), ("rkmeans", 2612), ("letter", 130)])
def test_real_ids_have_the_published_collisions(shared_dir, method, in_collision):
    sids = read_sids(shared_dir / "data" / "beauty" / f"sid_{method}.json")
    assert len(sids) == 12_101
    assert {len(codes) for codes in sids.values()} == {4}
    assert all(0 <= code <= 255 for codes in sids.values() for code in codes)
    assert sum(count for count in Counter(sids.values()).values() if count > 1) == in_collision
