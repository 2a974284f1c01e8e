"""`onereason data export` and `onereason data import-rows`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from onereason.cli import main
from onereason.data.chat import check_row

ITEM = "<|video_begin|><s_a_1><s_b_2><s_c_3>"
THINK, NO_THINK = "<think>\nPies.\n</think>\n\n", "<think>\n\n</think>\n\n"


def chat(row_id: str, question: str, answer: str, mode: str = "no_think", loss: str = "assistant") -> dict:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": row_id, "task": "t", "loss": loss, "mode": mode, "messages": messages}


ROWS = [
    chat("a", "What? /no_think", "一个派"),
    chat("b", "Next? /think", THINK + ITEM, "think"),
    chat("c", "Next? /no_think", ITEM, loss="target_items"),
    chat("d", "What? /no_think", "not trained", loss="none"),
    {"id": "e", "task": "t", "loss": "all", "mode": "no_think", "text": "liked it"},
]


@pytest.fixture
def corpus(tmp_path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    text = "".join(json.dumps(row) + "\n" for row in ROWS) + "{broken\n"
    (folder / "rows.jsonl").write_text(text)
    return folder


def run(capsys, *args: object) -> tuple[int, str, str]:
    code = main(["data", *map(str, args)])
    out, err = capsys.readouterr()
    return code, out, err


def read_lines(path: Path) -> list:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_what_cannot_be_exported_is_counted_and_named(corpus, capsys, tmp_path):
    out_path = tmp_path / "train.jsonl"
    code, out, _ = run(capsys, "export", corpus, "--to", "trl_messages", "--out", out_path)
    assert code == 0
    assert [record["messages"] for record in read_lines(out_path)] == [row["messages"] for row in ROWS[:3]]
    lines = [line.split() for line in out.splitlines()]
    assert f"wrote {out_path}: 3 records of trl_messages" in out
    assert ["text_row", "line", "5:", "e", "1"] in lines
    assert ["loss_none", "line", "4:", "d", "1"] in lines
    assert any(line[:3] == ["not_json", "line", "6:"] and line[-1] == "1" for line in lines)
    assert "note: 1 row(s) of loss target_items take the format's loss" in out
    assert "assistant_only_loss=True" in out
    manifest = json.loads((tmp_path / "train.jsonl.manifest.json").read_text())
    assert manifest["counts"] == {"records": 3, "other_loss_target_items": 1}
    assert manifest["rejected"] == {"loss_none": 1, "text_row": 1, "not_json": 1}
    assert manifest["inputs"] == {"rows.jsonl": hashlib.sha256((corpus / "rows.jsonl").read_bytes()).hexdigest()}


def test_an_array_holds_the_records_of_the_lines(corpus, capsys, tmp_path):
    for name in ("trl_prompt_completion", "alpaca", "sharegpt", "trl_text"):
        run(capsys, "export", corpus, "--to", name, "--out", tmp_path / f"{name}.jsonl")
        run(capsys, "export", corpus / "rows.jsonl", "--to", name, "--out", tmp_path / f"{name}.json", "--json")
        assert json.loads((tmp_path / f"{name}.json").read_text("utf-8")) == read_lines(tmp_path / f"{name}.jsonl")
    assert len(read_lines(tmp_path / "trl_text.jsonl")) == 1


@pytest.mark.parametrize("formatting", ["sharegpt", "alpaca"])
def test_llama_factory_gets_a_folder(corpus, capsys, tmp_path, formatting):
    args = ("export", corpus, "--to", "llama_factory", "--formatting", formatting, "--out", tmp_path / "lf")
    code, _, _ = run(capsys, *args, "--name", "pies", "--empty-think")
    assert code == 0
    info = json.loads((tmp_path / "lf" / "dataset_info.json").read_text())["pies"]
    assert (info["file_name"], info["formatting"]) == ("pies.jsonl", formatting)
    first = read_lines(tmp_path / "lf" / info["file_name"])[0]
    columns = info["columns"]
    if formatting == "alpaca":
        assert first[columns["response"]] == NO_THINK + "一个派"
    else:
        assert first[columns["messages"]][1] == {"from": info["tags"]["assistant_tag"], "value": NO_THINK + "一个派"}
    code, _, err = run(capsys, *args)
    assert code == 2 and "exists and is not empty" in err
    assert run(capsys, *args, "--overwrite", "--json")[0] == 0
    assert sorted(path.name for path in (tmp_path / "lf").iterdir()) == [
        "corpus.json",
        "dataset_info.json",
        "manifest.json",
    ]


def test_explorer_lines_come_back_as_the_same_corpus(corpus, capsys, tmp_path):
    lines, again = tmp_path / "lines.jsonl", tmp_path / "again.jsonl"
    assert run(capsys, "export", corpus, "--to", "explorer", "--out", lines)[0] == 0
    assert [value[0]["response"] for value in read_lines(lines)] == [NO_THINK + "一个派", THINK + ITEM, NO_THINK + ITEM]
    assert run(capsys, "import-rows", "--in", lines, "--out", tmp_path / "rows")[0] == 0
    rows = read_lines(tmp_path / "rows" / "rows.jsonl")
    assert [row["messages"] for row in rows] == [row["messages"] for row in ROWS[:3]]
    assert [row.get("domain") for row in rows] == [None, "video", "video"]
    assert run(capsys, "export", tmp_path / "rows", "--to", "explorer", "--out", again)[0] == 0
    assert again.read_bytes() == lines.read_bytes()


def test_import_rows_writes_a_corpus_folder(capsys, tmp_path):
    good = [{"system": "", "prompt": "Next? /think", "response": THINK + ITEM}]
    bad = [{"system": "", "prompt": "Next? /no_think", "response": THINK + ITEM}]
    path = tmp_path / "part.jsonl"
    path.write_text("\n".join(map(json.dumps, (good, bad, {"prompt": "a"}, good))))
    args = ("import-rows", "--in", path, "--out", tmp_path / "corpus", "--task", "recommendation", "--teacher", "big")
    code, out, _ = run(capsys, *args)
    assert code == 0
    assert "4 rows" not in out and "2 rows" in out
    folder = tmp_path / "corpus"
    assert sorted(p.name for p in folder.iterdir()) == ["CARD.md", "manifest.json", "rejected.jsonl", "rows.jsonl"]
    rows = read_lines(folder / "rows.jsonl")
    assert [(row["id"], row["task"], row["teacher"]) for row in rows] == [
        ("part.jsonl:1", "recommendation", "big"),
        ("part.jsonl:4", "recommendation", "big"),
    ]
    for row in rows:
        check_row(row)
    rejected = [(line["id"], line["reason"]) for line in read_lines(folder / "rejected.jsonl")]
    assert rejected == [("part.jsonl:2", "switch_contradicts_answer"), ("part.jsonl:3", "missing_field")]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"] == {"rows": 2, "mode_think": 2, "domain_video": 2}
    assert manifest["rejected"] == {"switch_contradicts_answer": 1, "missing_field": 1}
    assert "| switch_contradicts_answer | 1 |" in (folder / "CARD.md").read_text()
    code, out, _ = run(capsys, "inspect", folder, "--rows", 0)
    assert code == 0 and "switch_contradicts_answer" in out


def test_mistakes_are_one_line_and_leave_nothing(corpus, capsys, tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text(json.dumps(ROWS[4]) + "\n")
    out = tmp_path / "out.jsonl"
    bad = tmp_path / "bad.jsonl"
    bad.write_text("[]\n")
    before = sorted(tmp_path.iterdir())
    export = ("export", corpus, "--to")
    for args, words in (
        ((*export, "explorer", "--out", out, "--json"), "explorer is a format of lines"),
        ((*export, "alpaca", "--out", out, "--name", "x"), "belong to --to llama_factory"),
        ((*export, "alpaca", "--out", tmp_path), "is a folder; name a file"),
        ((*export, "alpaca", "--out", text), "exists; choose another path or pass --overwrite"),
        ((*export, "alpaca", "--out", corpus / "rows.jsonl", "--overwrite"), "is the corpus itself"),
        ((*export, "llama_factory", "--out", tmp_path / "lf", "--name", "a/b"), "is not the name of a data set"),
        (("export", text, "--to", "alpaca", "--out", out), "holds no row that alpaca can express"),
        (("export", text, "--to", "llama_factory", "--out", tmp_path / "lf"), "holds no row that llama_factory"),
        (("import-rows", "--in", bad, "--out", tmp_path / "c"), "no row is left"),
        (("import-rows", "--in", tmp_path / "none", "--out", tmp_path / "c"), "SFT lines not found"),
        (("import-rows", "--in", bad, "--out", tmp_path / "c", "--task", "A b"), "is no task's name"),
        (("import-rows", "--in", bad, "--out", tmp_path / "c", "--format", "none"), "neither a preset"),
    ):
        code, printed, err = run(capsys, *args)
        assert (code, printed, err.count("\n")) == (2, "", 1), (args, err)
        assert words in err
    assert sorted(tmp_path.iterdir()) == before
