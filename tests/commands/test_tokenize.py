"""`onereason tokenize` from a dataset folder to a catalog folder, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from onereason.cli import main
from onereason.data.readers import beauty
from onereason.data.schema import Dataset, save_dataset
from onereason.itemic.catalog import Catalog
from onereason.itemic.embed import load_precomputed
from onereason.itemic.quantize import encode, reconstruct
from onereason.itemic.tokenizer import ItemicTokenizer

NUM_ITEMS = 40
THINGS = ["lamp", "chair", "table", "sofa", "shelf"]
SHAPE = ["--format", "onereason", "--levels", "2", "--codes", "8"]


def write_data(folder: Path, last_two: int = 0, domain: str = "prod") -> Path:
    """40 items in two domains, 20 users of five items; `last_two` changes nothing but each user's last two items."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(20):
        known = rng.integers(0, 20, 3)
        held_out = np.random.default_rng(last_two * 1000 + user).integers(20, NUM_ITEMS, 2)
        rows += [(f"u{user}", f"i{item}", time) for time, item in enumerate([*known, *held_out])]
    items = pl.DataFrame(
        {
            "item_id": [f"i{i}" for i in range(NUM_ITEMS)],
            "domain": [domain if i % 2 else "video" for i in range(NUM_ITEMS)],
            "title": ["t"] * NUM_ITEMS,
            "text": [f"{THINGS[i % 5]} of kind{i % 8}" for i in range(NUM_ITEMS)],
            "attributes": ["{}"] * NUM_ITEMS,
        }
    )
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").with_columns(
        action=pl.lit("click"), domain=pl.lit(domain)
    )
    save_dataset(Dataset(items, interactions), folder, overwrite=True)
    return folder


def refused(capsys, *arguments: str | Path) -> str:
    """The one line that `tokenize` answers with; nothing may be left in the output's folder."""
    out = Path(arguments[arguments.index("--out") + 1])
    before = sorted(out.parent.iterdir())
    assert main(["tokenize", *map(str, arguments)]) == 2
    line = capsys.readouterr().err
    assert line.startswith("onereason tokenize: ")
    assert line.count("\n") == 1
    assert sorted(out.parent.iterdir()) == before
    return line


def test_catalog_folder_is_complete_and_has_no_collision(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    assert main(["tokenize", "--data", str(data), "--out", str(tmp_path / "out"), *SHAPE]) == 0
    shown = capsys.readouterr().out
    assert "codes of format onereason" in shown
    assert "collisions" in shown
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {
        *("catalog.parquet", "catalog.json", "tokenizer.json", "codebooks.npz", "embedder", "report.json", "report.png")
    }
    catalog = Catalog.load(tmp_path / "out")
    assert catalog.item_ids == [f"i{i}" for i in range(NUM_ITEMS)]
    assert catalog.format.codes_per_level == (8, 8)
    assert catalog.captions[7] == "table of kind7"
    assert catalog.collisions()["num_items_in_collision"] == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["domains"].keys() == {"prod", "video"}
    assert report["collisions"]["num_sids"] == NUM_ITEMS
    manifest = json.loads((tmp_path / "out" / "catalog.json").read_text())["manifest"]
    assert manifest["inputs"].keys() == {"items.parquet", "interactions.parquet"}
    assert manifest["config"]["embedder"]["kind"] == "tfidf"
    assert str(tmp_path) not in json.dumps(manifest)
    assert ItemicTokenizer.load(tmp_path / "out").encode_items(["a new lamp"]).shape == (1, 2)


def test_nothing_of_validation_or_test_reaches_the_catalog(tmp_path):
    # The last two items of every user differ between the two datasets, and nothing else does.
    tables = []
    for name, last_two in (("a", 1), ("b", 2)):
        data = write_data(tmp_path / f"data_{name}", last_two)
        arguments = ["--data", str(data), "--out", str(tmp_path / name), *SHAPE, "--collaborative-weight", "0.5"]
        assert main(["tokenize", *arguments]) == 0
        tables.append(tmp_path / name)
    for file in ("catalog.parquet", "codebooks.npz", "collaborative.npz", "report.json", "report.png"):
        assert (tables[0] / file).read_bytes() == (tables[1] / file).read_bytes()
    catalog = Catalog.load(tables[0])
    assert catalog.popularity.sum() == 20 * 3
    assert not catalog.popularity[20:].any()


def test_a_temporal_cut_bounds_the_training_part(tmp_path):
    data = write_data(tmp_path / "data")
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), *SHAPE, "--validation-start", "1"]
    assert main(["tokenize", *arguments]) == 0
    assert Catalog.load(tmp_path / "out").popularity.sum() == 20  # one interaction a user lies before moment 1


def test_given_vectors_and_extra_level(tmp_path):
    data = write_data(tmp_path / "data")
    # Four distinct vectors: buckets of ten items, five a domain, numbered 0 to 4.
    np.save(tmp_path / "v.npy", np.eye(4, dtype=np.float32)[np.arange(NUM_ITEMS) // 2 % 4])
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), *SHAPE]
    arguments += ["--embedder", f"array:{tmp_path / 'v.npy'}", "--collision", "extra_level"]
    assert main(["tokenize", *arguments]) == 0
    catalog = Catalog.load(tmp_path / "out")
    assert catalog.format.codes_per_level == (8, 8, 5)
    assert catalog.codes[:, 2].tolist() == [i // 8 for i in range(NUM_ITEMS)]
    assert catalog.collisions()["largest_bucket"] == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["collisions_before_policy"]["buckets"] == {"5": 8}
    assert "relative_mse" not in report["levels"][2]


def test_ready_ids(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    ids = {f"i{i}": [f"<a_{i % 8}>", f"<b_{i // 8}>"] for i in range(NUM_ITEMS)}
    (tmp_path / "ids.json").write_text(json.dumps({**ids, "gone": ["<a_0>", "<b_0>"]}))
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--ids", str(tmp_path / "ids.json")]
    assert main(["tokenize", *arguments, *SHAPE]) == 0
    assert "1 id(s) of ids.json belong to no item" in capsys.readouterr().out
    assert Catalog.load(tmp_path / "out").codes.tolist() == [[i % 8, i // 8] for i in range(NUM_ITEMS)]
    assert not (tmp_path / "out" / "tokenizer.json").exists()

    other = ["--data", data, "--out", tmp_path / "new", "--ids", tmp_path / "ids.json"]
    assert "have 2 levels, format 'onereason' has 3" in refused(capsys, *other)
    assert "code 4 at level a is outside format 'onereason' (0 to 3)" in refused(
        capsys, *other, "--levels", "2", "--codes", "4"
    )
    del ids["i3"], ids["i9"]
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    assert "ids.json lacks 2 of 40 item(s), e.g. 'i3'" in refused(capsys, *other, *SHAPE)
    assert "--embedder says only what --save-vectors keeps" in refused(capsys, *other, *SHAPE, "--embedder", "foo")
    ids["i3"] = ids["i9"] = [10**30, 0]
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    assert "item 'i3': code 1000000000" in refused(capsys, *other, *SHAPE)
    assert "ready ids (--ids) are taken as they are" in refused(capsys, *other, *SHAPE, "--collision", "reassign")


def test_saved_vectors_are_what_was_quantized_also_beside_ready_ids(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    fitted, ready = tmp_path / "fitted", tmp_path / "ready"
    settings = ["--data", data, *SHAPE, "--dim", "6", "--collaborative-weight", "0.5", "--save-vectors"]
    assert main(["tokenize", *map(str, settings), "--out", str(fitted)]) == 0
    ids = {f"i{i}": [f"<a_{i % 8}>", f"<b_{i // 8}>"] for i in range(NUM_ITEMS)}
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    settings += ["--ids", tmp_path / "ids.json"]
    assert main(["tokenize", *map(str, settings), "--out", str(ready)]) == 0

    kept = load_precomputed(fitted / "vectors.npz", [f"i{i}" for i in range(NUM_ITEMS)])
    np.testing.assert_array_equal(kept, load_precomputed(ready / "vectors.npz", [f"i{i}" for i in range(NUM_ITEMS)]))
    # text and collaborative block, each of squared length 1/2
    np.testing.assert_allclose((kept[:, :6] ** 2).sum(1), 0.5, rtol=1e-5)
    np.testing.assert_allclose((kept[:, 6:] ** 2).sum(1), 0.5, rtol=1e-5)
    codebooks = ItemicTokenizer.load(fitted).codebooks
    rest = kept - reconstruct(codebooks, encode(codebooks, kept).codes)
    left = (rest**2).sum() / ((kept - kept.mean(0)) ** 2).sum()
    report = json.loads((fitted / "report.json").read_text())
    assert report["levels"][1]["relative_mse"] == pytest.approx(left, rel=1e-4)

    without = [a for a in settings if a != "--save-vectors"]
    assert "--collaborative-weight says only what --save-vectors keeps" in refused(
        capsys, *without, "--out", tmp_path / "new"
    )


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    out = tmp_path / "out"
    base = ["--data", data, "--out", out, *SHAPE]
    assert "is not a dataset folder" in refused(capsys, "--data", tmp_path / "nowhere", "--out", out, *SHAPE)
    assert "itemic format 'mine' is neither a preset" in refused(
        capsys, "--data", data, "--out", out, "--format", "mine"
    )
    assert "embedder 'bert' is not known; use tfidf" in refused(capsys, *base, "--embedder", "bert")
    assert "precomputed vectors not found" in refused(capsys, *base, "--embedder", f"array:{tmp_path / 'v.npy'}")
    np.save(tmp_path / "v.npy", np.ones((3, 2), np.float32))
    assert "holds 3 vectors for 40 items" in refused(capsys, *base, "--embedder", f"array:{tmp_path / 'v.npy'}")
    (tmp_path / "v.npy").write_bytes(b"")
    assert "cannot be read as precomputed vectors" in refused(
        capsys, *base, "--embedder", f"array:{tmp_path / 'v.npy'}"
    )
    assert "seed must lie in 0 .. 4294967295, got -1" in refused(capsys, *base, "--seed", "-1")
    assert "between 0 and 1, got 2.0" in refused(capsys, *base, "--collaborative-weight", "2")
    assert "20 items of one domain cannot have 16 distinct sids (4 x 4)" in refused(
        capsys, "--data", data, "--out", out, "--levels", "2", "--codes", "4"
    )
    assert "domain 'shop' is not in format 'onereason'" in refused(
        capsys, "--data", write_data(tmp_path / "shop", domain="shop"), "--out", out, *SHAPE
    )
    out.mkdir()
    (out / "mine.txt").write_text("keep me")
    assert "is not empty; choose another path or pass --overwrite" in refused(capsys, *base)
    assert (out / "mine.txt").read_text() == "keep me"
    assert "was not written by onereason; choose another path or remove it yourself" in refused(
        capsys, *base, "--overwrite"
    )
    assert (out / "mine.txt").read_text() == "keep me"
    (out / "mine.txt").unlink()
    assert main(["tokenize", *map(str, base)]) == 0
    assert main(["tokenize", *map(str, base), "--overwrite"]) == 0
    assert "it is or holds" in refused(capsys, "--data", data, "--out", data, *SHAPE, "--overwrite")
    assert (data / "items.parquet").is_file()


@pytest.mark.parametrize(("name", "num_sids", "in_collision"), [("rqvae", 11_499, 1_031), ("letter", 12_015, 130)])
def test_beauty_with_ready_ids_has_the_published_collisions(tmp_path, shared_dir, name, num_sids, in_collision):
    tables = beauty.read([shared_dir / "data" / "beauty"])
    items = tables.items.with_columns(domain=pl.lit("prod"))
    interactions = tables.interactions.select(
        "user_id", "item_id", "timestamp", action=pl.lit("buy"), domain=pl.lit("prod")
    )
    save_dataset(Dataset(items, interactions), tmp_path / "data")
    ids = shared_dir / "data" / "beauty" / f"sid_{name}.json"
    arguments = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--ids", str(ids)]
    assert main(["tokenize", *arguments, "--format", "minionerec", "--levels", "4"]) == 0
    catalog = Catalog.load(tmp_path / "out")
    assert catalog.collisions()["num_sids"] == num_sids
    assert catalog.collisions()["num_items_in_collision"] == in_collision
    assert catalog.popularity.sum() == 198_502 - 2 * 22_363
