"""RQ-KMeans and its collision policies against hand computation and brute force."""

from __future__ import annotations

from itertools import pairwise

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.errors import CatalogError, DataError, FormatError
from onereason.itemic.collisions import (
    Taken,
    add_level,
    bucket_ids,
    bucket_sizes,
    domain_groups,
    rank_in_bucket,
    reassign,
)
from onereason.itemic.format import PRESETS
from onereason.itemic.quantize import (
    Codebooks,
    compute_errors,
    compute_variance,
    encode,
    fit_rq_kmeans,
    reconstruct,
)


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


def books(*levels: np.ndarray, fitted: tuple[int, ...] | None = None) -> Codebooks:
    return Codebooks(tuple(levels), fitted or tuple(len(level) for level in levels))


# -- fitting and encoding ---------------------------------------------------------------------------------------------


def test_two_levels_by_hand():
    # Clusters {0, 1} and {10, 11}: centroids 0.5 and 10.5; residuals -0.5, 0.5, -0.5, 0.5 are the second level's codes.
    vectors = column(0, 1, 10, 11)
    codebooks = fit_rq_kmeans(vectors, (2, 2), seed=0)
    assert sorted(codebooks.centroids[0].ravel().tolist()) == [0.5, 10.5]
    assert sorted(codebooks.centroids[1].ravel().tolist()) == [-0.5, 0.5]
    encoding = encode(codebooks, vectors)
    assert encoding.codes.dtype == np.int32
    a, b = encoding.codes.T
    assert a[0] == a[1] != a[2] == a[3]
    assert b[0] == b[2] != b[1] == b[3]
    np.testing.assert_array_equal(encoding.errors, [[0.25, 0]] * 4)
    np.testing.assert_array_equal(reconstruct(codebooks, encoding.codes), vectors)
    # Mean 5.5; squared distances 30.25 + 20.25 + 20.25 + 30.25.
    assert compute_variance(vectors) == 101.0


def brute_force(codebooks: Codebooks, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes, errors = [], []
    for vector in vectors.astype(np.float64):
        residual, mine, left = vector, [], []
        for centroids, fitted in zip(codebooks.centroids, codebooks.num_fitted, strict=True):
            distances = ((residual - centroids[:fitted].astype(np.float64)) ** 2).sum(axis=1)
            mine.append(int(distances.argmin()))
            residual = residual - centroids[mine[-1]]
            left.append(float((residual**2).sum()))
        codes.append(mine)
        errors.append(left)
    return np.array(codes), np.array(errors)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 3), st.integers(1, 9))
def test_encoding_is_greedy_nearest_and_errors_are_what_is_left(seed, num_vectors, levels, size):
    vectors = np.random.default_rng(seed).standard_normal((num_vectors, 4)).astype(np.float32)
    codebooks = fit_rq_kmeans(vectors, (size,) * levels, seed=seed, iterations=3)
    encoding = encode(codebooks, vectors, batch_size=7)
    codes, errors = brute_force(codebooks, vectors)
    np.testing.assert_array_equal(encoding.codes, codes)
    np.testing.assert_allclose(encoding.errors, errors, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(compute_errors(codebooks, vectors, codes), errors, rtol=1e-4, atol=1e-5)
    left = ((vectors - reconstruct(codebooks, encoding.codes)) ** 2).sum(axis=1)
    np.testing.assert_allclose(left, errors[:, -1], rtol=1e-4, atol=1e-5)


def test_every_level_lowers_the_error_and_batches_do_not_matter():
    vectors = np.random.default_rng(1).standard_normal((500, 16)).astype(np.float32)
    codebooks = fit_rq_kmeans(vectors, (8, 8, 8), seed=2)
    whole, parts = encode(codebooks, vectors), encode(codebooks, vectors, batch_size=64)
    np.testing.assert_array_equal(whole.codes, parts.codes)
    totals = [compute_variance(vectors), *whole.errors.sum(axis=0, dtype=np.float64)]
    assert all(later < earlier for earlier, later in pairwise(totals))


def test_same_seed_same_codebooks_and_another_seed_others():
    vectors = np.random.default_rng(3).standard_normal((300, 8)).astype(np.float32)
    first, second, other = (fit_rq_kmeans(vectors, (16, 16), seed=s) for s in (4, 4, 5))
    for a, b in zip(first.centroids, second.centroids, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.centroids[0], other.centroids[0])


def test_a_level_is_faiss_k_means_and_stops_when_the_error_hardly_falls():
    vectors = np.random.default_rng(6).standard_normal((400, 5)).astype(np.float32)
    kmeans = faiss.Kmeans(5, 6, niter=5, seed=9, min_points_per_centroid=1)
    kmeans.train(vectors)
    found = fit_rq_kmeans(vectors, (6,), seed=9, iterations=5, tolerance=0.0)
    np.testing.assert_array_equal(found.centroids[0], kmeans.centroids)
    # No iteration lowers the error by its whole amount: the second one is the last.
    stopped = fit_rq_kmeans(vectors, (6,), seed=9, tolerance=1.0)
    np.testing.assert_array_equal(
        stopped.centroids[0], fit_rq_kmeans(vectors, (6,), seed=9, iterations=2, tolerance=0.0).centroids[0]
    )
    assert not np.array_equal(stopped.centroids[0], found.centroids[0])


def test_fitting_leaves_the_input_alone_and_takes_any_memory_order():
    vectors = np.asfortranarray(np.random.default_rng(3).standard_normal((100, 4)))
    before = vectors.copy()
    a = fit_rq_kmeans(vectors, (4, 4))
    b = fit_rq_kmeans(np.ascontiguousarray(vectors, dtype=np.float32), (4, 4))
    np.testing.assert_array_equal(vectors, before)
    np.testing.assert_array_equal(a.centroids[1], b.centroids[1])


def test_fewer_vectors_than_codes_leaves_codes_unassigned_in_silence(capfd):
    vectors = column(1, 5, 5, 9)  # three distinct values for eight codes; every residual is then 0, one distinct value
    codebooks = fit_rq_kmeans(vectors, (8, 8))
    assert codebooks.num_fitted == (3, 1)
    assert codebooks.codes_per_level == (8, 8)
    encoding = encode(codebooks, vectors)
    assert encoding.codes.tolist() == [[0, 0], [1, 0], [1, 0], [2, 0]]
    assert not encoding.errors.any()
    fit_rq_kmeans(np.random.default_rng(0).standard_normal((40, 3)), (8, 8))  # five vectors a code: faiss would warn
    assert capfd.readouterr() == ("", "")


def test_codebooks_survive_saving(tmp_path):
    codebooks = fit_rq_kmeans(column(1, 5, 5, 9), (8, 2))
    codebooks.save(tmp_path / "c.npz")
    loaded = Codebooks.load(tmp_path / "c.npz")
    assert loaded.num_fitted == codebooks.num_fitted
    for a, b in zip(loaded.centroids, codebooks.centroids, strict=True):
        np.testing.assert_array_equal(a, b)
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(CatalogError, match=r"bad.npz cannot be read as codebooks"):
        Codebooks.load(tmp_path / "bad.npz")


def test_bad_vectors_are_refused():
    with pytest.raises(DataError, match=r"expected a float array \[N, D\], got float64 with shape \[0, 3\]"):
        fit_rq_kmeans(np.empty((0, 3)), (2,))
    with pytest.raises(DataError, match="row 1 holds a value that is not finite"):
        fit_rq_kmeans(np.array([[1.0], [np.inf]]), (2,))
    with pytest.raises(DataError, match="have 2 dimensions, the tokenizer was fitted with 1"):
        encode(fit_rq_kmeans(column(1, 2), (2,)), np.zeros((3, 2)))


# -- collisions -------------------------------------------------------------------------------------------------------


def test_domains_collide_only_where_tokens_do_not_tell_them_apart():
    domains = ["prod", "video", "prod"]
    assert domain_groups(PRESETS["onereason"], domains).tolist() == [1, 0, 1]
    assert domain_groups(PRESETS["minionerec"], domains).tolist() == [0, 0, 0]
    codes = np.array([[1, 2, 3]] * 3)
    assert bucket_sizes(codes, np.array([1, 0, 1])).tolist() == [2, 1]
    with pytest.raises(FormatError, match="domain 'shop' is not in format 'onereason'"):
        domain_groups(PRESETS["onereason"], ["shop"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=20))
def test_buckets_and_ranks_equal_brute_force(rows):
    codes, groups = np.array(rows)[:, :2], np.array(rows)[:, 2]
    ids = bucket_ids(codes, groups)
    assert [[a == b for b in rows] for a in rows] == (ids[:, None] == ids[None, :]).tolist()
    assert rank_in_bucket(ids).tolist() == [rows[:i].count(row) for i, row in enumerate(rows)]


def test_the_nearest_item_keeps_its_sid_and_the_others_take_the_next_nearest_free_code():
    # One level with centroids 0, 10, 20, 30. Items 1, -2, 3 are all nearest to 0, item 11 to 10.
    # 1 is the nearest and keeps 0. Next comes -2: code 1 (10) is taken by 11, so code 2 (20). Then 3: code 3 (30).
    codebooks = books(column(0, 10, 20, 30))
    vectors = column(3, 1, -2, 11)
    codes = encode(codebooks, vectors).codes
    assert codes.ravel().tolist() == [0, 0, 0, 1]
    assert reassign(codebooks, vectors, codes, np.zeros(4, int)).ravel().tolist() == [3, 0, 2, 1]
    # In another domain each is alone but for the first two: 3 moves to the nearest free code of its own domain.
    assert reassign(codebooks, vectors, codes, np.array([0, 0, 1, 2])).ravel().tolist() == [1, 0, 0, 1]


def test_codes_without_a_centroid_are_taken_last():
    codebooks = books(np.concatenate([column(0, 10), np.zeros((2, 1), np.float32)]), fitted=(2,))
    vectors = column(5.1, 0, 4, 5)
    codes = encode(codebooks, vectors).codes  # 1, 0, 0, 0
    # 0 keeps code 0; 4 finds code 1 taken by 5.1 and takes code 2, 5 takes code 3.
    assert reassign(codebooks, vectors, codes, np.zeros(4, int)).ravel().tolist() == [1, 0, 2, 3]


def test_a_full_prefix_sends_its_farthest_items_to_the_next_nearest_prefix():
    # Two levels of two codes. Level a: 0 and 100. Level b: -1 and 1. Items 0.5, 1.5, 3 fall under prefix 0, which holds
    # two; 3 is the farthest and moves to prefix 1 (residual -97: code 0). 0.5 and 1.5 want b = 1; 0.5 is left with
    # residual -0.5 and 1.5 with 0.5 after it, a tie that the item order breaks, so 1.5 takes b = 0.
    codebooks = books(column(0, 100), column(-1, 1))
    vectors = column(3, 0.5, 1.5)
    codes = encode(codebooks, vectors).codes
    assert codes.tolist() == [[0, 1], [0, 1], [0, 1]]
    assert reassign(codebooks, vectors, codes, np.zeros(3, int)).tolist() == [[1, 0], [0, 1], [0, 0]]


def test_equal_items_fill_every_sid_and_one_more_is_refused():
    codebooks = books(column(0, 1), column(0, 1, 2))
    vectors = column(*[0.0] * 6)
    codes = np.zeros((6, 2), np.int32)
    moved = reassign(codebooks, vectors, codes, np.zeros(6, int))
    assert sorted(map(tuple, moved.tolist())) == [(a, b) for a in range(2) for b in range(3)]
    assert moved[0].tolist() == [0, 0]
    with pytest.raises(CatalogError, match=r"7 items of one domain cannot have 6 distinct sids \(2 x 3\)"):
        reassign(codebooks, np.zeros((7, 1), np.float32), np.zeros((7, 2), np.int32), np.zeros(7, int))
    # Seven items of two domains fit.
    split = reassign(
        codebooks, np.zeros((7, 1), np.float32), np.zeros((7, 2), np.int32), np.array([0, 1, 0, 0, 0, 0, 0])
    )
    assert split[1].tolist() == [0, 0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([(41,), (3, 14), (2, 5, 5), (7, 3, 2)]))
def test_reassigned_codes_are_unique_and_only_surplus_items_move(seed, num_items, sizes):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (num_items, 2)).astype(np.float32)
    groups = rng.integers(0, 2, num_items)
    codebooks = fit_rq_kmeans(vectors, sizes, seed=seed, iterations=2)
    encoding = encode(codebooks, vectors)
    moved = reassign(codebooks, vectors, encoding.codes, groups)
    np.testing.assert_array_equal(moved, reassign(codebooks, vectors, encoding.codes, groups))
    assert ((moved >= 0) & (moved < np.array(sizes))).all()
    assert len({(g, *c) for g, c in zip(groups.tolist(), moved.tolist(), strict=True)}) == num_items
    # Every sid in use before is still borne by one of its own items: the nearest one, unless its prefix overflowed.
    before = bucket_ids(encoding.codes, groups)
    prefixes = bucket_ids(encoding.codes[:, :-1], groups)
    overflows = len(sizes) > 1 and np.bincount(prefixes).max() > sizes[-1]
    changed = (moved != encoding.codes).any(axis=1)
    if not overflows:
        assert int(changed.sum()) == num_items - len(np.unique(before))
        for bucket in np.unique(before):
            members = np.flatnonzero(before == bucket)
            keeper = members[~changed[members]]
            assert len(keeper) == 1
            assert encoding.errors[keeper[0], -1] == encoding.errors[members, -1].min()
        assert (moved[:, :-1] == encoding.codes[:, :-1]).all()


def test_taken_sids_stay_and_new_items_go_around_them():
    codebooks = books(column(0, 10, 20))
    taken = Taken(np.array([[0], [1]], np.int32), np.array([0, 1]))
    # Code 0 is taken in group 0: the new item at 1 takes code 1 there, but keeps code 0 in group 1.
    vectors, codes = column(1, 1), np.zeros((2, 1), np.int32)
    assert reassign(codebooks, vectors, codes, np.array([0, 1]), taken).ravel().tolist() == [1, 0]
    full = Taken(np.array([[0], [1], [2]], np.int32), np.zeros(3, int))
    with pytest.raises(CatalogError, match="4 items of one domain cannot have 3 distinct sids"):
        reassign(codebooks, vectors[:1], codes[:1], np.zeros(1, int), full)


def test_extra_level_numbers_the_items_of_a_bucket():
    format = PRESETS["minionerec"].with_shape(2, 4)
    codes = np.array([[0, 0], [1, 1], [0, 0], [0, 0], [1, 1]], np.int32)
    longer, numbered = add_level(format, codes, np.zeros(5, int))
    assert longer.codes_per_level == (4, 4, 3)
    assert numbered.tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 2], [1, 1, 1]]
    roomy, same = add_level(format, codes, np.zeros(5, int), size=16)
    assert roomy.codes_per_level == (4, 4, 16)
    np.testing.assert_array_equal(same, numbered)
    longer, numbered = add_level(format, codes, np.array([0, 0, 1, 0, 1]))
    assert longer.codes_per_level == (4, 4, 2)
    assert numbered[:, 2].tolist() == [0, 0, 0, 1, 0]
    with pytest.raises(CatalogError, match="the extra level has 2 codes, but the largest bucket holds 3 items"):
        add_level(format, codes, np.zeros(5, int), size=2)


def test_extra_level_numbers_new_items_after_those_in_use():
    format = PRESETS["minionerec"].with_shape(1, 4)
    # In bucket 0 the numbers 0 and 4 are in use (others have left the catalog): new ones are 5 and 6.
    taken = Taken(np.array([[0, 0], [0, 4], [1, 0]], np.int32), np.zeros(3, int))
    _, numbered = add_level(format, np.array([[0], [1], [2], [0]], np.int32), np.zeros(4, int), 8, taken)
    assert numbered.tolist() == [[0, 5], [1, 1], [2, 0], [0, 6]]
