"""Cited items; the shares are tested with evaluation, which reports them."""

from __future__ import annotations

import numpy as np

from onereason.itemic.catalog import Catalog
from onereason.itemic.citations import extract_cited_items, legality, share
from onereason.itemic.format import PRESETS

FORMAT = PRESETS["onereason"]
CATALOG = Catalog(FORMAT, ["x"], np.array([[1, 2, 3]]), ["ad"])


def test_malformed_patterns_count_where_they_are_given():
    text = "<|ad_begin|><s_a_1><s_b_2><s_c_3>, <|ad_begin|><s_a_1>, <s_b_2>"
    parsed = FORMAT.parse(text)
    cited = extract_cited_items(text, FORMAT)
    assert cited == [("ad", (1, 2, 3))] and parsed.num_malformed == 2
    assert legality(cited, CATALOG) == 1
    assert legality(cited, CATALOG, parsed.num_malformed) == 1 / 3
    assert legality([], CATALOG, 2) == 0 and legality([], CATALOG) is None


def test_a_share_of_nothing():
    assert share(1, 4) == 0.25 and share(0, 0) is None
