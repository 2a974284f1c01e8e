"""General language rows: shapes of the input, the thinking switch, rejected lines."""

from __future__ import annotations

import json

import pytest

from data_builders.build_general import general_row, main
from onereason.data.chat import check_row
from onereason.io import read_json, read_jsonl

TRACE = "<think>\nso\n</think>\n\n4"


@pytest.mark.parametrize(
    ("record", "asked", "answer", "mode"),
    [
        ({"question": "2+2?", "answer": "4"}, "2+2? /no_think", "4", "no_think"),
        ({"prompt": " 2+2? ", "completion": " 4 "}, "2+2? /no_think", "4", "no_think"),
        ({"instruction": "Add.", "input": "2 2", "output": "4"}, "Add.\n\n2 2 /no_think", "4", "no_think"),
        ({"instruction": "Add.", "input": "", "output": TRACE}, "Add. /think", TRACE, "think"),
        ({"question": "2+2? /no_think", "answer": "4"}, "2+2? /no_think", "4", "no_think"),
        (
            {"prompt": [{"role": "user", "content": "2+2?"}], "completion": [{"role": "assistant", "content": "4"}]},
            "2+2? /no_think",
            "4",
            "no_think",
        ),
    ],
)
def test_shapes(record, asked, answer, mode):
    row = general_row(record, "x")
    check_row(row)
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    assert row == {"id": "x", "task": "general", "loss": "assistant", "mode": mode, "messages": messages}


def test_only_the_last_question_gets_the_switch():
    turns = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    record = {"messages": [{"role": role, "content": content, "extra": 1} for role, content in turns]}
    messages = general_row(record, "x")["messages"]
    assert [m["content"] for m in messages] == ["s", "a", "b", "c /no_think", "d"]
    assert all(set(m) == {"role", "content"} for m in messages)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ([], "not_an_object"),
        ({"text": "a"}, "unknown_shape"),
        ({"question": "a"}, "unknown_shape"),
        ({"question": "a", "answer": 4}, "content_not_text"),
        ({"question": "a", "answer": " "}, "no_answer"),
        ({"question": "", "answer": "b"}, "no_question"),
        ({"messages": []}, "no_messages"),
        ({"messages": [{"role": "bot", "content": "a"}]}, "unknown_role"),
        ({"messages": [{"role": "user", "content": None}]}, "content_not_text"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no_answer"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "no_question"),
        ({"question": "a<|im_end|>", "answer": "b"}, "control_tokens"),
        ({"question": "<think>a</think>", "answer": "b"}, "control_tokens"),
        ({"question": "a", "answer": "b</think>c"}, "control_tokens"),
        ({"question": "a", "answer": TRACE + "<think>"}, "control_tokens"),
    ],
)
def test_rejected_records(record, reason):
    assert general_row(record, "x") == reason


def test_corpus_of_a_file(tmp_path):
    lines = [
        json.dumps({"question": "a", "answer": "b"}),
        "{broken",
        "",
        json.dumps({"question": "a"}),
        json.dumps([1]),
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    assert main(["--input", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out")]) == 0
    assert [row["id"] for row in read_jsonl(tmp_path / "out/rows.jsonl")] == ["in:1"]
    manifest = read_json(tmp_path / "out/manifest.json")
    assert manifest["rejected"] == {"not_json": 1, "unknown_shape": 1, "not_an_object": 1}
    assert set(manifest["inputs"]) == {"in.jsonl"}
    assert read_jsonl(tmp_path / "out/rejected.jsonl") == [
        {"id": "in:2", "reason": "not_json", "detail": "{broken"},
        {"id": "in:4", "reason": "unknown_shape", "detail": '{"question": "a"}'},
        {"id": "in:5", "reason": "not_an_object", "detail": "[1]"},
    ]


def test_files_of_one_name_are_told_apart(tmp_path):
    """Blank lines count; the last line of the first file has no end."""
    for name, lines in (("a", ["", "q1", "q2"]), ("b", ["q3", " ", "", "q4"]), ("c", ["q5"])):
        (tmp_path / name).mkdir()
        text = "\n".join(json.dumps({"question": line, "answer": "ü"}) if line.strip() else line for line in lines)
        (tmp_path / name / ("train.jsonl" if name != "c" else "other.jsonl")).write_text(text)
    paths = [str(tmp_path / name) for name in ("a/train.jsonl", "b/train.jsonl", "c/other.jsonl")]
    for size in ("1", "2", "100"):
        assert main(["--input", *paths, "--shard-size", size, "--out", str(tmp_path / size)]) == 0
        rows = {row["id"]: row["messages"][0]["content"] for row in read_jsonl(tmp_path / size / "rows.jsonl")}
        assert list(rows) == ["train.1:2", "train.1:3", "train.2:1", "train.2:4", "other:1"]
        assert list(rows.values()) == [f"q{i} /no_think" for i in range(1, 6)]


def test_half_an_emoji_in_the_input(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"question": "a \\ud83d", "answer": "b"}\n')
    assert main(["--input", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out")]) == 0
    assert read_jsonl(tmp_path / "out/rows.jsonl")[0]["messages"][0]["content"] == "a \ufffd /no_think"


def test_synthetic_rows_follow_the_seed(tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["--synthetic", "20", "--seed", seed, "--out", str(tmp_path / name)]) == 0
    a, b, c = ((tmp_path / name / "rows.jsonl").read_bytes() for name in "abc")
    assert a == b != c
    rows = read_jsonl(tmp_path / "a/rows.jsonl")
    assert len(rows) == 20
    for row in rows:
        check_row(row)


def test_a_sample_keeps_the_order(tmp_path):
    lines = [json.dumps({"question": f"q{i}", "answer": "b"}) for i in range(30)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    assert main(["--input", str(tmp_path / "in.jsonl"), "--max-rows", "10", "--out", str(tmp_path / "out")]) == 0
    numbers = [int(row["id"].partition(":")[2]) for row in read_jsonl(tmp_path / "out/rows.jsonl")]
    assert len(numbers) == 10 and numbers == sorted(set(numbers))


def test_gsm8k(shared_dir, tmp_path):
    path = shared_dir / "data/gsm8k/gsm8k_train.jsonl"
    assert main(["--input", str(path), "--out", str(tmp_path / "out")]) == 0
    assert read_json(tmp_path / "out/manifest.json")["counts"] == {
        "rows": 7473,
        "mode_no_think": 7473,
        "task_general": 7473,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either --input FILE ... or --synthetic N"),
        (["--synthetic", "5", "--input", "x"], "give either"),
        (["--synthetic", "0"], "--synthetic must be at least 1, got 0"),
        (["--synthetic", "5", "--max-rows", "0"], "--max-rows must be at least 1, got 0"),
        (["--input", "nowhere.jsonl"], "general data not found"),
    ],
)
def test_mistakes(tmp_path, capsys, options, message):
    assert main([*options, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []
