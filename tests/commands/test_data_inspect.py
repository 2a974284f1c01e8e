"""`onereason data inspect`: tables, rows and the page, from a model folder, a catalog, or nothing but the rows."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from onereason.cli import main

THINK = "<think>\nA trace.\n</think>\n\n"


@pytest.fixture(scope="module")
def corpus(world, tmp_path_factory) -> Path:
    """Two tasks in both modes, on the world's items."""
    patterns = [world.catalog.render(i) for i in range(24)]
    rows = []
    for i in range(24):
        mode = "think" if i % 4 == 0 else "no_think"
        question = {"role": "user", "content": f"What is {patterns[i]}? /{mode}"}
        answer = {"role": "assistant", "content": (THINK if mode == "think" else "") + f"caption of i{i:02d}"}
        task = "caption" if i < 16 else "quiz"
        row = {"id": f"r{i}", "task": task, "loss": "assistant", "mode": mode, "domain": world.catalog.domains[i]}
        rows.append({**row, "user": f"u{i % 5}", "messages": [question, answer]})
    folder = tmp_path_factory.mktemp("corpora") / "captions"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    manifest = {"config": {"language": "en", "prompt_version": "1"}, "seed": 7, "rejected": {"leak": 3}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    rejected = [{"id": f"u{i}", "reason": "leak", "detail": "names the target"} for i in range(3)]
    (folder / "rejected.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rejected))
    return folder


def run(capsys, *args: object) -> tuple[int, str, str]:
    code = main(["data", "inspect", *map(str, args)])
    out, err = capsys.readouterr()
    return code, out, err


def lines_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_tables(world, corpus, capsys):
    code, out, _ = run(capsys, corpus, "--model", world.model)
    assert code == 0
    lines = lines_of(out)
    # 24 rows, every fourth thinks: 4 of the 16 captions, 2 of the 8 quiz rows
    assert ["rows", "24"] in lines
    assert ["malformed", "lines", "1"] in lines
    assert ["users", "5"] in lines
    assert ["caption", "16", "4", "12", "25.0", "%"] in lines
    assert ["quiz", "8", "2", "6", "25.0", "%"] in lines
    assert ["all", "24", "6", "18", "25.0", "%"] in lines
    domains = {name: world.catalog.domains.count(name) for name in ("video", "prod")}
    assert ["video", str(domains["video"]), f"{100 * domains['video'] / 24:.1f}", "%"] in lines
    assert ["leak", "u0:", "names", "the", "target", "3"] in lines
    assert ["language", "en"] in lines
    assert ["seed", "7"] in lines
    assert any(line[:3] == ["not_json", "line", "25:"] for line in lines)
    assert f"Over all rows. Tokens of the tokenizer of {world.model}." in out
    assert "\x1b" not in out


def test_the_rows_as_the_model_sees_them(world, corpus, capsys):
    _, out, _ = run(capsys, corpus, "--model", world.model, "--task", "quiz", "--mode", "think", "--rows", 5)
    # rows 16 and 20 are the think rows of the quiz; they have neighbours under no sid but i01 and i04
    shown = re.findall(r"^line (\d+) \| (r\d+) \| quiz \| think", out, re.MULTILINE)
    assert shown == [("17", "r16"), ("21", "r20")]
    item = world.catalog.render(16)
    caption = f"caption of i{world.catalog.find(world.catalog.codes[16], world.catalog.domains[16])[0]:02d} [bold]"
    assert f"<|im_start|>user\nWhat is {item} (= {caption}" in out
    assert f"<|im_start|>assistant\n[[{THINK}caption of i16<|im_end|>]]\n" in out
    assert "Only rows of task quiz and mode think." in out


def test_token_counts_are_those_of_the_models_tokenizer(world, corpus, capsys):
    from transformers import AutoTokenizer

    from onereason.data.chat import encode_row

    tokenizer = AutoTokenizer.from_pretrained(world.model)
    rows = [json.loads(line) for line in (corpus / "rows.jsonl").read_text().splitlines()[:24]]
    encoded = [encode_row(row, tokenizer, world.vocabulary) for row in rows if row["task"] == "quiz"]
    mean = sum(len(row["input_ids"]) for row in encoded) / 8
    longest = max(sum(row["loss_mask"]) for row in encoded)
    _, out, _ = run(capsys, corpus, "--model", world.model, "--task", "quiz", "--rows", 0)
    whole, supervised = ([x for x in lines_of(out) if x[:1] == [kind]][-1] for kind in ("whole", "supervised"))
    assert whole[1] == f"{mean:,.1f}"
    assert supervised[-1] == str(longest)


@pytest.mark.parametrize("which", ["catalog", "format", "tokenizer"])
def test_other_tokenizers(world, corpus, capsys, tmp_path, which):
    note = "a stand-in tokenizer trained on this corpus: counts of a real one differ"
    if which == "catalog":
        args, captions = ["--catalog", world.model], True
    elif which == "format":
        path = tmp_path / "world.yaml"
        path.write_text(json.dumps(world.catalog.format.to_dict()))
        args, captions = ["--format", path], False
    else:
        folder = tmp_path / "tokenizer"
        folder.mkdir()
        for file in Path(world.model).glob("*token*"):
            shutil.copy(file, folder)
        args, captions = ["--tokenizer", folder, "--catalog", world.model], True
        note = f"Tokens of the tokenizer of {folder}."
    code, out, _ = run(capsys, corpus, *args, "--rows", 1)
    assert code == 0
    assert note in out
    assert ("(= caption of i" in out) == captions
    assert ("no catalog is known" in out) != captions


def test_the_format_is_found_in_the_rows(tmp_path, capsys):
    row = {"id": "a", "task": "t", "loss": "next_items", "mode": "no_think", "text": "<a_1><b_2><c_3><a_4><b_5><c_6>"}
    path = tmp_path / "some.jsonl"
    path.write_text(json.dumps(row) + "\n")
    _, out, _ = run(capsys, path)
    assert "The patterns are read as format minionerec." in out
    assert "<a_1><b_2><c_3>[[<a_4><b_5><c_6>]]" in out
    assert ["t", "no_think", "1", "prompt", "0.0", "0", "0", "0"] in lines_of(out)
    assert ["whole", "6.0", "6", "6", "6"] in lines_of(out)


def test_a_large_file_is_sampled_and_says_so(world, corpus, capsys):
    _, out, _ = run(capsys, corpus, "--model", world.model, "--max-rows", 10, "--rows", 2)
    assert "Over a random sample of 10 of 24 rows." in out
    assert ["all", "24", "6", "18", "25.0", "%"] in lines_of(out)  # counts stay those of all rows
    again = run(capsys, corpus, "--model", world.model, "--max-rows", 10, "--rows", 2)[1]
    other = run(capsys, corpus, "--model", world.model, "--max-rows", 10, "--rows", 2, "--seed", 1)[1]
    assert out == again != other


class _Articles(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.rows: list[tuple[str, str]] = []
        self.captions: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "article":
            self.rows.append((given["data-task"], given["data-mode"]))
        if given.get("class") == "item":
            self.captions.append(given["data-caption"])


def test_the_page(world, corpus, capsys, tmp_path):
    page = tmp_path / "out" / "page.html"
    code, out, _ = run(capsys, corpus, "--model", world.model, "--rows", 1, "--html", page, "--html-rows", 8)
    assert code == 0
    assert f"page: {page}" in out
    found = _Articles(page.read_text("utf-8"))
    # 8 rows, one of each task and mode in turn: two of each of the four
    assert sorted(found.rows) == sorted([(t, m) for t in ("caption", "quiz") for m in ("think", "no_think")] * 2)
    assert len(found.captions) == 8
    assert len(re.findall(r"^line \d+ \|", out, re.MULTILINE)) == 1
    before = page.read_bytes()
    run(capsys, corpus, "--model", world.model, "--rows", 1, "--html", page, "--html-rows", 8)
    assert page.read_bytes() == before


def test_mistakes_are_one_line(world, corpus, capsys, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    rows = corpus / "rows.jsonl"
    for args, words in (
        ((empty,), "is empty: it holds no row"),
        ((tmp_path,), "holds no rows.jsonl"),
        ((corpus, "--task", "none"), "none of task 'none'"),
        ((corpus, "--rows", "-1"), "--rows must be at least 0, got -1"),
        ((corpus, "--max-rows", "0"), "--max-rows must be at least 1, got 0"),
        ((corpus, "--model", tmp_path / "none"), "does not exist"),
        ((corpus, "--model", world.model, "--format", "onereason"), "--model brings its own format"),
        ((corpus, "--catalog", world.model, "--format", "onereason"), "--catalog brings its own format"),
        ((corpus, "--tokenizer", tmp_path / "none"), "tokenizer folder"),
        ((corpus, "--html", tmp_path), "is a folder; name a file"),
        ((rows, "--html", rows), "is the corpus itself"),
    ):
        code, out, err = run(capsys, *args)
        assert (code, out, err.count("\n")) == (2, "", 1), args
        assert words in err
