"""The tokenizer as a whole: fit, encode new items, add them to a catalog, save, load, report."""

from __future__ import annotations

import json

import numpy as np
import pytest

from onereason.errors import CatalogError, ConfigError, DataError, FormatError
from onereason.itemic.collisions import bucket_ids
from onereason.itemic.embed import ArrayEmbedder, TfidfEmbedder
from onereason.itemic.format import PRESETS
from onereason.itemic.sid_report import (
    build_report,
    compute_collisions,
    compute_level_use,
    render_tables,
    write_report,
)
from onereason.itemic.tokenizer import ItemicTokenizer, TokenizerConfig, arrange_sids, build_catalog

COLOURS = ["red", "blue", "green", "white"]
THINGS = ["lamp", "chair", "table", "sofa", "shelf", "mirror"]
TEXTS = [f"{colour} {thing} for the {room}" for colour in COLOURS for thing in THINGS for room in ("hall", "kitchen")]
IDS = [f"item{i}" for i in range(len(TEXTS))]
FORMAT = PRESETS["minionerec"].with_shape(3, 8)


def fit(format=FORMAT, texts=TEXTS, **options):
    fit_options = {key: options.pop(key) for key in ("histories", "domains", "vectors") if key in options}
    embedder = TfidfEmbedder.fit(texts, dim=12)
    return ItemicTokenizer.fit(texts, format, embedder, config=TokenizerConfig(**options), **fit_options)


def histories(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, len(TEXTS) - 4, 10) for _ in range(30)]  # the last four items are never consumed


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_known_texts_encode_to_their_own_codes_after_saving(tmp_path, weight):
    tokenizer, items = fit(collaborative_weight=weight, histories=histories(), collision="keep")
    tokenizer.save(tmp_path / "t")
    loaded = ItemicTokenizer.load(tmp_path / "t")
    assert loaded.format == FORMAT
    assert loaded.config == tokenizer.config
    new = ["red sofa", "a wooden mirror", "nothing known"]
    np.testing.assert_array_equal(loaded.encode_items(new), tokenizer.encode_items(new))
    # With text alone an item is encoded as in the fit. With evidence, so are the items that never had any: their
    # collaborative block comes from the same text neighbours.
    chosen = slice(None) if weight == 0 else slice(len(TEXTS) - items.num_without_evidence, None)
    assert weight == 0 or items.num_without_evidence == 4
    np.testing.assert_array_equal(loaded.encode_items(TEXTS[chosen]), items.encoded.codes[chosen])
    expected = {"tokenizer.json", "codebooks.npz", "embedder"} | ({"collaborative.npz"} if weight else set())
    assert {p.name for p in (tmp_path / "t").iterdir()} == expected


def test_fitting_is_deterministic():
    runs = [fit(collaborative_weight=0.4, histories=histories(), seed=3)[1].codes for _ in range(2)]
    np.testing.assert_array_equal(*runs)


def test_evidence_moves_items_together():
    # Texts say nothing here (orthogonal vectors); two circles are consumed apart, so the first code is the circle.
    num_items = 12
    vectors = np.eye(num_items, dtype=np.float32)
    circles = [np.random.default_rng(s).permutation(6) + 6 * (s % 2) for s in range(40)]
    format = PRESETS["minionerec"].with_shape(2, 2)
    config = TokenizerConfig(collaborative_weight=0.9, collaborative_dim=2, collision="keep")
    _, items = ItemicTokenizer.fit(
        [""] * num_items, format, ArrayEmbedder(num_items), vectors=vectors, histories=circles, config=config
    )
    first = items.codes[:, 0].tolist()
    assert len(set(first[:6])) == len(set(first[6:])) == 1
    assert first[0] != first[6]


@pytest.mark.parametrize("policy", ["keep", "reassign", "extra_level"])
def test_policies_keep_their_promise_and_hold_for_added_items(policy):
    texts = [*TEXTS, *TEXTS[:5], TEXTS[0]]  # equal texts: certain collisions
    tokenizer, items = fit(texts=texts, collision=policy)
    ids = [f"i{n}" for n in range(len(texts))]
    catalog = build_catalog(items.format, ids, items.codes, captions=texts)
    unique = policy != "keep"
    assert (catalog.collisions()["num_items_in_collision"] == 0) is unique
    assert items.format.num_levels == (4 if policy == "extra_level" else 3)
    if policy == "extra_level":  # the default size is the largest bucket: room for one more needs a given size
        with pytest.raises(CatalogError, match=r"the extra level has .* codes, but the largest bucket holds"):
            tokenizer.add_items(catalog, ["new"], [TEXTS[0]])
        tokenizer, items = fit(texts=texts, collision=policy, extra_codes=32)
        catalog = build_catalog(items.format, ids, items.codes, captions=texts)
    grown = tokenizer.add_items(catalog, ["new1", "new2", "new3"], [TEXTS[0], TEXTS[0], "a green shelf"])
    np.testing.assert_array_equal(grown.codes[: len(ids)], catalog.codes)
    assert grown.item_ids[-3:] == ["new1", "new2", "new3"]
    assert grown.captions[-1] == "a green shelf"
    assert (grown.collisions()["num_items_in_collision"] == 0) is unique
    with pytest.raises(CatalogError, match="item 'i0' stands twice"):
        tokenizer.add_items(catalog, ["i0"], ["a lamp"])
    with pytest.raises(FormatError, match="the catalog uses format"):
        tokenizer.add_items(build_catalog(PRESETS["minionerec"], ["x"], [[1, 2, 3]]), ["y"], ["a lamp"])


def test_one_codebook_serves_all_domains_and_domains_do_not_collide():
    format = PRESETS["onereason"].with_shape(3, 8)
    domains = ["video", "prod"] * (len(TEXTS) // 2)
    texts = [TEXTS[i // 2] for i in range(len(TEXTS))]  # each text once a domain
    _, items = fit(format=format, texts=texts, domains=domains)
    # An item moves only where two *texts* share codes, never because of its twin in the other domain.
    np.testing.assert_array_equal(items.encoded.codes[0::2], items.encoded.codes[1::2])
    raw = bucket_ids(items.encoded.codes, items.groups)
    assert int((items.codes != items.encoded.codes).any(axis=1).sum()) == len(raw) - len(np.unique(raw))
    with pytest.raises(FormatError, match="domain 'shop' is not in format 'onereason'"):
        fit(format=format, domains=["shop"] * len(TEXTS))


def test_popularity_counts_training_histories():
    catalog = build_catalog(FORMAT, IDS[:4], np.zeros((4, 3), int), histories=[np.array([0, 1, 1]), np.array([1, 3])])
    assert catalog.popularity.tolist() == [1, 3, 0, 1]


def test_ready_ids_are_arranged_and_missing_ones_named():
    sids = {"b": (1, 2), "a": (3, 4), "unused": (5, 6)}
    assert arrange_sids(sids, ["a", "b"]).tolist() == [[3, 4], [1, 2]]
    with pytest.raises(CatalogError, match=r"ids.json lacks 2 of 3 item\(s\), e.g. 'c'"):
        arrange_sids(sids, ["a", "c", "d"], "ids.json")


def test_bad_settings_and_folders_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="collision policy 'drop' is not known; use one of keep, reassign"):
        TokenizerConfig(collision="drop")
    with pytest.raises(ConfigError, match="collaborative weight must lie between 0 and 1, got -1"):
        TokenizerConfig(collaborative_weight=-1)
    with pytest.raises(ConfigError, match="extra codes are given, but the collision policy is not 'extra_level'"):
        TokenizerConfig(extra_codes=5)
    with pytest.raises(ConfigError, match="iterations must be at least 1, got 0"):
        TokenizerConfig(iterations=0)
    with pytest.raises(CatalogError, match="holds no itemic tokenizer"):
        ItemicTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"config": {"colour": 1}}))
    with pytest.raises(CatalogError, match="holds a malformed itemic tokenizer"):
        ItemicTokenizer.load(tmp_path)
    with pytest.raises(DataError, match="2 texts, 3 vectors and 2 domains do not match"):
        ItemicTokenizer.fit(["a", "b"], FORMAT, ArrayEmbedder(2), vectors=np.ones((3, 2)))


# -- report -----------------------------------------------------------------------------------------------------------


def test_level_use_by_hand():
    # Level a: codes 0, 0, 1, 1 of 4: half used, entropy 1 bit of 2. Level b: one code of one. Level c: 4 of 4.
    use = compute_level_use(np.array([[0, 0, 0], [0, 0, 1], [1, 0, 2], [1, 0, 3]]), (4, 1, 4))
    assert use[0] == {
        "level": "a",
        "codes": 4,
        "used": 2,
        "utilisation": 0.5,
        "entropy_bits": 1.0,
        "entropy_normalised": 0.5,
    }
    assert (use[1]["utilisation"], use[1]["entropy_bits"], use[1]["entropy_normalised"]) == (1.0, 0.0, 1.0)
    assert (use[2]["utilisation"], use[2]["entropy_bits"], use[2]["entropy_normalised"]) == (1.0, 2.0, 1.0)


def test_collisions_by_hand():
    codes = np.array([[0, 0], [0, 0], [0, 0], [1, 1], [1, 1], [2, 2]])
    found = compute_collisions(codes, np.array([0, 0, 0, 0, 1, 0]))
    assert found == {
        "num_items": 6,
        "num_sids": 4,
        "num_items_in_collision": 3,
        "share_in_collision": 0.5,
        "largest_bucket": 3,
        "buckets": {"1": 3, "3": 1},
    }


def test_report_counts_what_fitting_left(tmp_path):
    # Unit vectors in the plane at 0, 90, 180 degrees and once more 0: two centroids at level a.
    vectors = np.array([[1, 0], [0, 1], [-1, 0], [1, 0]], dtype=np.float32)
    format = PRESETS["onereason"].with_shape(2, 8)
    domains = ["video", "video", "prod", "video"]
    tokenizer, items = ItemicTokenizer.fit(
        ["", "", "", ""], format, ArrayEmbedder(2), vectors=vectors, domains=domains, config=TokenizerConfig()
    )
    report = build_report(items.format, items.codes, domains, tokenizer=tokenizer, items=items)
    # Three distinct vectors for eight codes: level a leaves nothing, level b has one centroid (zero).
    assert [level["centroids"] for level in report["levels"]] == [3, 1]
    assert [level["relative_mse"] for level in report["levels"]] == [0.0, 0.0]
    assert report["collisions_before_policy"]["num_items_in_collision"] == 2
    assert report["collisions"]["num_items_in_collision"] == 0
    assert report["num_items_moved"] == 1
    assert report["domains"]["video"]["collisions"]["num_items"] == 3
    assert report["domains"]["prod"]["collisions"]["buckets"] == {"1": 1}
    (warning,) = report["warnings"]
    assert warning.startswith("more codes than the 4 items at level a (8), b (8): most stay unassigned")
    write_report(report, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    levels, buckets = render_tables(report)
    assert levels.row_count == 2
    assert buckets.row_count == 4  # before, after, two domains


def test_relative_error_by_hand():
    # Unit vectors at 0 and 60 degrees share the one code of a level: centroid (3/4, sqrt(3)/4). Each is 1/2 away from
    # it (half the chord of length 1), and the centroid is the mean: all of the variance is left at level a.
    # Level b has a code for each residual: nothing is left.
    vectors = np.array([[1, 0], [0.5, 3**0.5 / 2]])
    format = PRESETS["minionerec"].with_shape(2, 2)
    format = type(format)(format.name, (1, 2), format.code_token, format.domains)
    tokenizer, items = ItemicTokenizer.fit(["", ""], format, ArrayEmbedder(2), vectors=vectors)
    assert items.variance == pytest.approx(0.5, rel=1e-6)
    report = build_report(items.format, items.codes, ["*", "*"], tokenizer=tokenizer, items=items)
    assert report["levels"][0]["relative_mse"] == pytest.approx(1.0, rel=1e-6)
    assert report["levels"][1]["relative_mse"] == pytest.approx(0.0, abs=1e-6)
