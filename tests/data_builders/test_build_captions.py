"""Caption rows."""

from __future__ import annotations

from data_builders.build_captions import main
from onereason.data.chat import check_row
from onereason.data.prompt_sets import load_prompt_set
from onereason.io import read_json, read_jsonl


def test_corpus(world, tmp_path):
    assert main(["--catalog", str(world.root / "catalog"), "--out", str(tmp_path / "out")]) == 0
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    assert [row["id"] for row in rows] == [f"i{i}" for i in range(13) if i != 2]
    assert rows[1] == {
        "id": "i1",
        "task": "caption",
        "loss": "assistant",
        "mode": "no_think",
        "messages": [
            {"role": "system", "content": load_prompt_set("perception").text("caption.system")},
            {"role": "user", "content": f"Describe this product: {world.patterns[1]} /no_think"},
            {"role": "assistant", "content": "thing number 1."},
        ],
    }
    for row in rows:
        check_row(row)
    assert read_json(tmp_path / "out/manifest.json")["rejected"] == {"empty_caption": 1}


def test_a_catalog_without_captions_is_refused(world, tmp_path, capsys):
    from onereason.itemic.catalog import Catalog

    bare = Catalog(world.catalog.format, ["x"], world.catalog.codes[:1], ["video"])
    bare.save(tmp_path / "bare")
    assert main(["--catalog", str(tmp_path / "bare"), "--out", str(tmp_path / "out")]) == 2
    assert "no row is left" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare"]
