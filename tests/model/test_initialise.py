"""Initial rows against computations by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onereason.errors import CatalogError, ConfigError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ItemicFormat, Marker, load_format
from onereason.model.initialise import (
    RowStatistics,
    build_rows,
    compute_row_statistics,
    default_rows,
    description_means,
    description_rows,
    mean_noise_rows,
    vector_rows,
)


def abc_matrix(tokenizer):
    """Rows [1, 0] for byte `a`, [0, 1] for `b`, [-1, 0] for `c`, zero elsewhere."""
    matrix = torch.zeros(320, 2)
    for letter, row in (("a", [1.0, 0.0]), ("b", [0.0, 1.0]), ("c", [-1.0, 0.0])):
        (at,) = tokenizer(letter)["input_ids"]
        matrix[at] = torch.tensor(row)
    return matrix


def test_statistics_by_hand():
    # rows (0,0), (2,0), (4,6): mean (2,2); variances (4+0+4)/3 and (4+4+16)/3;
    # distances from the mean sqrt 8, 2, sqrt 20: median sqrt 8
    found = compute_row_statistics(torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 6.0]]))
    torch.testing.assert_close(found.mean, torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(found.std, torch.tensor([8 / 3, 8.0]).sqrt())
    assert found.deviation_norm == pytest.approx(8**0.5)


@pytest.mark.parametrize("markers_first", [False, True])
def test_description_by_hand(tokenizer, markers_first):
    format = ItemicFormat("f", (3,), "<x_{level}_{code}>", {"a": Marker("<|a|>")}, markers_first=markers_first)
    catalog = Catalog(format, ["i", "j", "k", "l"], [[0], [0], [1], [2]], ["a"] * 4, ["b", "a", "c", " "])
    statistics = RowStatistics(torch.tensor([10.0, 20.0]), torch.zeros(2), 2.0)  # no spread: no noise
    rows = description_rows(abc_matrix(tokenizer), statistics, tokenizer, catalog, torch.Generator())
    # v_0 = ([0,1] + [1,0]) / 2 = [.5,.5]; v_1 = [-1,0]; their mean [-.25,.25]; centred [.75,.25] and its negative, of
    # norm sqrt(.625) = .790569; times 2 / .790569: [1.897367, .632456]. Code 2 has a blank caption: the mean.
    codes = [[11.897367, 20.632456], [8.102633, 19.367544], [10.0, 20.0]]
    # begin token of domain "a": [1,0] - [10,20] = [-9,-20], norm 21.931712; 10 - 18/21.931712, 20 - 40/21.931712
    begin = [[9.179271, 18.176157]]
    expected = torch.tensor(begin + codes if markers_first else codes + begin)
    torch.testing.assert_close(rows, expected)


def test_a_caption_is_the_mean_of_its_tokens_and_an_item_counts_once(tokenizer):
    format = load_format("minionerec", 2, 2)
    catalog = Catalog(format, ["i", "j"], [[0, 1], [0, 0]], captions=["abbb", "c"])
    first, second = description_means(abc_matrix(tokenizer), tokenizer, catalog)
    # i: (1*[1,0] + 3*[0,1]) / 4 = [.25,.75]; j: [-1,0]; code (0,0): ([.25,.75] + [-1,0]) / 2, not weighted by length
    torch.testing.assert_close(first, torch.tensor([[-0.375, 0.375], [np.nan, np.nan]]), equal_nan=True)
    torch.testing.assert_close(second, torch.tensor([[-1.0, 0.0], [0.25, 0.75]]))


def test_described_rows_lie_as_far_from_the_mean_as_old_rows(tokenizer, build, small_format):
    matrix = build().get_input_embeddings().weight
    statistics = compute_row_statistics(matrix[:280])
    words = ["red apple", "green tea", "blue shoe", "wool hat", "warm pie", "trail set"]
    codes = [[n % 3, n % 4] for n in range(12)]
    catalog = Catalog(small_format, list(map(str, range(12))), codes, ["video"] * 12, words * 2)
    rows = description_rows(matrix, statistics, tokenizer, catalog, torch.Generator().manual_seed(0))
    ratio = (rows - statistics.mean).norm(dim=1) / statistics.deviation_norm
    assert ratio.min() > 0.8 and ratio.max() < 1.2  # 0.1 of noise beside 1 of meaning
    distance = torch.cdist(rows, rows) + 100 * torch.eye(len(rows))
    assert distance.min() > 0.1 * statistics.deviation_norm  # no two rows are alike


@pytest.mark.parametrize("markers_first", [False, True])
def test_vectors_by_hand(markers_first):
    format = ItemicFormat("f", (2, 3), "<x_{level}_{code}>", {"a": Marker("<|a|>")}, markers_first=markers_first)
    catalog = Catalog(format, list("ijkl"), [[0, 0], [0, 1], [1, 0], [1, 0]], ["a"] * 4)
    vectors = np.array([[7.0, 1.0], [7.0, -1.0], [3.0, 0.0], [3.0, 0.0]])  # around their mean: [2, +-1], [-2, 0]
    statistics = RowStatistics(torch.tensor([10.0, 20.0, 30.0]), torch.zeros(3), 3.0)  # no spread: no noise
    rows = vector_rows(vectors, statistics, catalog, torch.Generator().manual_seed(0))
    first = len(format.marker_tokens) if markers_first else 0
    moved = rows - statistics.mean
    # Level 1: means [2,0] and [-2,0], root mean square 2, brought to 2 * 3: opposite rows of length 6.
    # Level 2: what is left is [0,1], [0,-1], 0, 0. Code 0: [0, 1/3]; code 1: [0, -1]; root mean square sqrt(5/9), so
    # both are times 6 / sqrt(5/9) = 8.049845: opposite rows of lengths 2.683282 and 8.049845. No item bears code 2.
    # Turning keeps lengths and angles; the two levels are turned each in its own way.
    torch.testing.assert_close(moved[first] @ moved[first], torch.tensor(36.0))
    torch.testing.assert_close(moved[first + 1], -moved[first])
    torch.testing.assert_close(moved[first + 2].norm(), torch.tensor(2.683282))
    torch.testing.assert_close(moved[first + 3], -3 * moved[first + 2])
    assert torch.equal(moved[first + 4], torch.zeros(3))  # mean_noise without spread
    assert torch.equal(moved[0 if markers_first else 5], torch.zeros(3))  # so is the begin token
    assert abs(moved[first] @ moved[first + 2]) < 0.99 * 6 * 2.683282


def test_mean_noise_has_half_the_spread_around_the_mean():
    old = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 7.0) + 3.0
    rows = mean_noise_rows(compute_row_statistics(old), 4000, torch.Generator().manual_seed(1))
    # standard error of a mean: 0.5 * 6 / sqrt(4000) = 0.05; of a standard deviation about the same
    torch.testing.assert_close(rows.mean(0), old.mean(0), atol=0.2, rtol=0)
    torch.testing.assert_close(rows.std(0), 0.5 * old.std(0), atol=0.15, rtol=0)


def test_default_rows_have_the_configs_range():
    rows = default_rows(5000, 4, 0.02, torch.Generator().manual_seed(0))
    assert rows.mean().abs() < 5e-4 and abs(rows.std() - 0.02) < 5e-4


def test_bad_requests(tokenizer, small_format):
    matrix = torch.zeros(320, 2)
    statistics = compute_row_statistics(matrix)
    generator = torch.Generator()
    with pytest.raises(
        ConfigError, match="init 'zeros' is not known; use mean_noise, description, vectors, copy_default"
    ):
        build_rows("zeros", matrix, statistics, tokenizer, small_format, None, None, 0.02, generator)
    with pytest.raises(ConfigError, match="init 'description' reads captions and needs --catalog"):
        build_rows("description", matrix, statistics, tokenizer, small_format, None, None, 0.02, generator)
    silent = Catalog(small_format, ["i"], [[0, 0]], ["video"])
    with pytest.raises(CatalogError, match="init 'description' needs captions, the catalog has none"):
        build_rows("description", matrix, statistics, tokenizer, small_format, silent, None, 0.02, generator)
    for given, shape in ((None, "none"), (np.zeros((2, 4)), r"\(2, 4\)")):
        with pytest.raises(
            ConfigError, match=f"init 'vectors' needs a --catalog with one vector an item, found {shape}"
        ):
            build_rows("vectors", matrix, statistics, tokenizer, small_format, silent, given, 0.02, generator)
