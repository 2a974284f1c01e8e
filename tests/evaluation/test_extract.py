"""Generated text taken apart: JSON, citations."""

from __future__ import annotations

import numpy as np
import pytest

from onereason.evaluation.extract import (
    extract_cited_items,
    extract_json,
    extract_selection,
    history_validity,
    legality,
)
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import PRESETS

FORMAT = PRESETS["onereason"]
V1, V2 = "<|video_begin|><s_a_1><s_b_2><s_c_3>", "<|video_begin|><s_a_4><s_b_5><s_c_6>"
AD = "<|ad_begin|><s_a_1><s_b_2><s_c_3>"
BROKEN = "<|video_begin|><s_a_1><s_c_3>"
VIDEO1, VIDEO2 = ("video", (1, 2, 3)), ("video", (4, 5, 6))


# -- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2]}', {"a": [1, 2]}),
        ("<think>[0]</think>\n[1, 2]<|im_end|>", [1, 2]),
        ('```json\n[{"a": 1}]\n```', [{"a": 1}]),
        ("```\n[1]\n```", [1]),
        ('Here it is: [{"a": 1}, {"a": 2}].', [{"a": 1}, {"a": 2}]),
        ('As said [note], it is {"a": [1]} I think', {"a": [1]}),
        ("[]", []),
        ("[1, 2", None),
        ("<think>[1, 2]", None),
        ("] {", None),
        ("none", None),
    ],
)
def test_json_of_an_answer(text, value):
    assert extract_json(text) == value


def test_selections():
    assert extract_selection('["a", " b", "a", null, "", 3]') == ["a", "b", "3"]
    assert extract_selection("[]") == []
    assert extract_selection('{"a": 1}') is None and extract_selection("a, b") is None


# -- citations --------------------------------------------------------------------------------------------------------

# Items 0 and 1 share the sid of V1; item 2 is V2; item 3 is the ad.
CATALOG = Catalog(
    FORMAT,
    ["w", "x", "y", "z"],
    np.array([[1, 2, 3], [1, 2, 3], [4, 5, 6], [1, 2, 3]]),
    ["video", "video", "video", "ad"],
)
INVENTED = "<|video_begin|><s_a_7><s_b_7><s_c_7>"


def test_cited_items_are_distinct_and_in_order():
    assert extract_cited_items(f"{V2} and {V1}, again {V2}; {BROKEN}", FORMAT) == [VIDEO2, VIDEO1]
    assert extract_cited_items(None, FORMAT) == extract_cited_items("no item", FORMAT) == []


def test_legality_and_history_validity_by_hand():
    trace = f"{V1} {V2} {AD} {INVENTED} <|prod_begin|><s_a_1><s_b_2><s_c_3> {V1}"
    cited = extract_cited_items(trace, FORMAT)
    # Five distinct items; the invented one and the product are in no row of the catalog.
    assert legality(cited, CATALOG) == 3 / 5
    # Of V1, V2, AD: V1 is met as item 1, which shares its sid.
    assert history_validity(cited, [1], CATALOG) == 1 / 3
    assert history_validity(cited, np.array([2, 1, 1]), CATALOG) == 2 / 3
    assert history_validity(cited, {0, 2, 3}, CATALOG) == 1
    assert history_validity(cited, [], CATALOG) == 0


def test_no_citation_has_no_rate():
    assert legality([], CATALOG) is None and history_validity([], [1], CATALOG) is None
    invented = extract_cited_items(INVENTED, FORMAT)
    assert legality(invented, CATALOG) == 0 and history_validity(invented, [1], CATALOG) is None
