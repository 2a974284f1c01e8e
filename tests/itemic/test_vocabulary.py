"""Token ids of formats: the published ids, and the arithmetic against a table of token -> id."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.errors import FormatError, ModelError
from onereason.io import write_json
from onereason.itemic.format import ANY_DOMAIN, PRESETS
from onereason.itemic.vocabulary import ITEMIC_FILE, ItemicVocabulary, require_same_format


class TableTokenizer:
    """The one method of a tokenizer that is asked for ids."""

    def __init__(self, ids: dict[str, int]):
        self.ids = ids

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [self.ids.get(token, 0) for token in tokens]


def test_onereason_ids_after_qwen3_are_the_published_ones():
    vocabulary = ItemicVocabulary(PRESETS["onereason"], 151669)
    assert vocabulary.code_ids(np.array([[0, 0, 0], [8191, 8191, 8191]])).tolist() == [
        [151669, 151669 + 8192, 151669 + 2 * 8192],
        [151669 + 8191, 151669 + 2 * 8192 - 1, 176244],
    ]
    assert [vocabulary.marker_ids(d) for d in ("video", "prod", "living", "ad")] == [
        (176245, 176246),
        (176247, 176248),
        (176249, 176250),
        (176251, 176252),
    ]
    assert vocabulary.end_token_id == 176253  # the vocabulary size of OneReason-0.8B
    assert vocabulary.prefix_ids("ad") == [176251]
    assert ItemicVocabulary(PRESETS["minionerec"], 9).prefix_ids() == []


@pytest.mark.parametrize("name", PRESETS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_pattern_ids_are_the_ids_of_the_rendered_tokens(name, data):
    format = PRESETS[name].with_shape(codes=data.draw(st.integers(1, 20)))
    vocabulary = ItemicVocabulary(format, data.draw(st.integers(0, 200_000)))
    ids = {token: vocabulary.first_token_id + i for i, token in enumerate(format.tokens())}
    codes = st.tuples(*(st.integers(0, size - 1) for size in format.codes_per_level))
    items = data.draw(st.lists(st.tuples(st.sampled_from(list(format.domains)), codes), min_size=1, max_size=4))
    found = vocabulary.pattern_ids(np.array([c for _, c in items]), [d for d, _ in items])
    names = {i: token for token, i in ids.items()}
    assert ["".join(names[i] for i in row) for row in found.tolist()] == [format.render(c, d) for d, c in items]
    assert found.shape == (len(items), format.pattern_length)
    assert vocabulary.is_itemic(found).all()
    outside = np.array([vocabulary.first_token_id - 1, vocabulary.end_token_id])
    assert not vocabulary.is_itemic(outside).any()
    vocabulary.check_tokenizer(TableTokenizer(ids))


def test_a_tokenizer_with_other_ids_is_refused():
    vocabulary = ItemicVocabulary(PRESETS["minionerec"].with_shape(codes=4), 100)
    ids = {token: 100 + i for i, token in enumerate(vocabulary.format.tokens())}
    ids["<b_2>"], ids["<b_3>"] = ids["<b_3>"], ids["<b_2>"]
    with pytest.raises(ModelError, match="<b_2> should be id 106, the tokenizer has 107"):  # 100 + 4 + 2
        vocabulary.check_tokenizer(TableTokenizer(ids))


def test_itemic_json_round_trip(tmp_path):
    vocabulary = ItemicVocabulary(PRESETS["onereason"], 151669)
    vocabulary.save(tmp_path)
    assert ItemicVocabulary.load(tmp_path) == vocabulary


def test_itemic_json_missing_or_malformed(tmp_path):
    with pytest.raises(ModelError, match=r"holds no itemic.json: .* run `onereason extend"):
        ItemicVocabulary.load(tmp_path)
    write_json(tmp_path / ITEMIC_FILE, {"first_token_id": "151669"})
    with pytest.raises(ModelError, match="is malformed: expected the keys version, first_token_id, format"):
        ItemicVocabulary.load(tmp_path)
    write_json(tmp_path / ITEMIC_FILE, {"first_token_id": 1, "format": {"name": "x"}})
    with pytest.raises(FormatError, match="expected the keys name, codes_per_level"):
        ItemicVocabulary.load(tmp_path)


def test_two_formats_are_named_where_they_differ():
    require_same_format(PRESETS["onereason"], PRESETS["onereason"], "the catalog")
    with pytest.raises(FormatError, match=r"the catalog uses format 'minionerec' .*256.*, the model uses 'onereason'"):
        require_same_format(PRESETS["onereason"], PRESETS["minionerec"], "the catalog")
    with pytest.raises(FormatError, match="is not in format"):
        ItemicVocabulary(PRESETS["onereason"], 0).marker_ids(ANY_DOMAIN)
