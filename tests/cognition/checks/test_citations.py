"""Citations against the shares evaluation computes (OneReason, Eq. 24-25)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onereason.cognition.checks.citations import CitationReader, Citations
from onereason.cognition.checks.patterns import PatternReader
from onereason.cognition.checks.problem import Problem
from onereason.itemic.catalog import Catalog
from onereason.itemic.citations import extract_cited_items, history_validity, legality
from onereason.itemic.format import PRESETS, ItemicFormat, Marker

FORMAT = PRESETS["onereason"].with_shape(codes=6)
V1, V2 = "<|video_begin|><s_a_1><s_b_2><s_c_3>", "<|video_begin|><s_a_4><s_b_5><s_c_0>"
AD = "<|ad_begin|><s_a_1><s_b_2><s_c_3>"
INVENTED, BROKEN = "<|video_begin|><s_a_2><s_b_2><s_c_2>", "<|video_begin|><s_a_1><s_c_3>"
TOO_LARGE = "<|video_begin|><s_a_1><s_b_2><s_c_6>"
# Items 0 and 1 share a semantic id.
CATALOG = Catalog(
    FORMAT,
    ["w", "x", "y", "z"],
    np.array([[1, 2, 3], [1, 2, 3], [4, 5, 0], [1, 2, 3]]),
    ["video", "video", "video", "ad"],
)
READER = CitationReader(PatternReader(FORMAT), [CATALOG.render(i) for i in range(4)])


def test_by_hand():
    found = READER.read(f"{V2} and {V1}, again {V2}; {INVENTED}{BROKEN} {TOO_LARGE} {AD}", [1])
    assert found == Citations((V2, V1, AD), (INVENTED,), (V2, AD), 2)
    assert found.legality == 3 / 6  # of V2, V1, AD, one invented, two malformed
    assert found.history_validity == 1 / 3
    assert [problem.reason for problem in found.problems()] == [
        "citation_illegal",
        "citation_not_in_history",
        "citation_not_in_history",
        "citation_malformed",
    ]
    assert found.problems(at_least=2)[-1] == Problem("citation_missing", "1 of at least 2")


def test_nothing_cited():
    found = READER.read("no item", [0])
    assert found.legality is None and found.history_validity is None and found.problems() == []
    assert found.problems(at_least=1) == [Problem("citation_missing", "0 of at least 1")]
    assert READER.read(INVENTED, [0]).legality == 0 and READER.read(INVENTED, [0]).history_validity is None


PIECES = [
    V1,
    V2,
    AD,
    INVENTED,
    BROKEN,
    TOO_LARGE,
    "<s_a_1>",
    "<|ad_begin|>",
    "<|video_end|>",
    " and ",
    ", ",
    "\n",
    "<b>",
]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.lists(st.integers(0, 3), max_size=4))
def test_the_same_shares_as_evaluation(trace, history):
    found = READER.read(trace, history)
    cited = extract_cited_items(trace, FORMAT)
    assert found.legality == legality(cited, CATALOG, FORMAT.parse(trace).num_malformed)
    assert found.history_validity == history_validity(cited, history, CATALOG)


@pytest.mark.parametrize("name", PRESETS)
def test_formats(name):
    format = PRESETS[name]
    patterns = [format.render([c] * format.num_levels, next(iter(format.domains))) for c in range(3)]
    reader = CitationReader(PatternReader(format), patterns[:2])
    found = reader.read(" ".join(patterns), [0])
    assert found == Citations((patterns[0], patterns[1]), (patterns[2],), (patterns[1],), 0)


def test_tokens_that_end_on_their_number():
    """`xa1xb2` is another item than `xa1xb23`."""
    format = ItemicFormat("open", (30, 30), "x{level}{code}", {"*": Marker()})
    reader = PatternReader(format)
    assert reader.read("xa1xb23 xa1xb2.") == (["xa1xb23", "xa1xb2"], "   .")
    assert reader.parse_pattern("xa1xb23") == (1, 23)
    with pytest.raises(ValueError, match="'xa1' is not a pattern of format 'open'"):
        reader.parse_pattern("xa1")
    assert reader.find_stray("xa1xb2 xb2") == "xb2" and reader.find_stray("xa1xb2 box") is None
