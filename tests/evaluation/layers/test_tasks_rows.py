"""Rows of a layered evaluation: what is accepted, and how what is not is named."""

from __future__ import annotations

import json

import pytest

from onereason.errors import DataError
from onereason.evaluation.layers.rows import bind_format, choose_rows, load_rows
from onereason.itemic.format import load_format

FORMAT = load_format("onereason", 2, 8)
ASK = [{"role": "user", "content": "?"}]


def record(task: str = "caption", **more) -> dict:
    references = {
        "caption": {"caption": "red tea"},
        "grounding": {"pattern": "<|prod_begin|><s_a_1><s_b_2>"},
        "item_qa": {"answer": "B", "choices": ["low", "high"]},
        "action_selection": {"actions": []},
        "topic": {"logic_chain": {"name": "tea", "events": []}},
        "gsm8k": {"answer": "18"},
        "choice": {"answer": "AC"},
    }
    return {"id": task, "task": task, "messages": ASK, "reference": references[task]} | more


def write(path, *records) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def test_a_file_may_mix_tasks(tmp_path):
    tasks = ("caption", "grounding", "item_qa", "action_selection", "topic", "gsm8k", "choice")
    rows = load_rows(write(tmp_path / "rows.jsonl", *map(record, tasks), record(id="x", mode="think")))
    assert [(row.id, row.task, row.mode) for row in rows[-2:]] == [
        ("choice", "choice", None),
        ("x", "caption", "think"),
    ]
    assert all(row.format == FORMAT for row in bind_format(rows, FORMAT))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"task": "captions"}, "row 2: task 'captions' is not known; did you mean caption?"),
        ({"messages": None}, "row 2: 'messages' must be a non-empty list, is None"),
        ({"messages": [{"role": "bot", "content": "?"}]}, "row 2: 'messages': each needs a role out of system, user"),
        ({"messages": [{"role": "user", "content": 1}]}, "row 2: 'messages': each content must be a string, got 1"),
        ({"messages": [*ASK, {"role": "assistant", "content": "!"}]}, "must end with a user turn, ends with the assis"),
        ({"messages": [{"role": "user", "content": "? /think"}]}, "ends with '/think'; leave the switch out"),
        ({"mode": "both"}, "row 2: 'mode' is 'both'; use no_think or think, or leave it out to ask in both"),
        ({"reference": []}, r"row 2: 'reference' must be an object, is \[\]"),
        ({"reference": {}}, "row 2: 'reference.caption' is missing; task 'caption' needs a non-empty string"),
        ({"reference": {"caption": " "}}, "row 2: 'reference.caption' must be a non-empty string, is ' '"),
        ({"id": ""}, "row 2: 'id' must be a non-empty string, is ''"),
        ({"id": "caption"}, "row 2: id 'caption' stands in row 1 too; give every row its own id"),
        ({"answer": "x"}, "row 2: key 'answer' is not known; a row has id, task, messages, reference, mode"),
    ],
)
def test_a_malformed_row_is_named_with_its_number_and_key(tmp_path, bad, message):
    with pytest.raises(DataError, match=message):
        load_rows(write(tmp_path / "rows.jsonl", record(), record(id="second") | bad))


def test_a_missing_key_is_named(tmp_path):
    for key in ("id", "task", "messages", "reference"):
        broken = {k: v for k, v in record().items() if k != key}
        with pytest.raises(DataError, match=f"row 1: key '{key}' is missing; a row needs id, task, messages, refer"):
            load_rows(write(tmp_path / "rows.jsonl", broken))


def test_a_file_without_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no row; make some with `python -m data_builders.build_layers`"):
        load_rows(write(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize(
    ("task", "reference", "message"),
    [
        ("item_qa", {"answer": "?", "choices": ["a", "b"]}, "must be one or several of the letters A to J, is '?'"),
        ("item_qa", {"answer": "A", "choices": ["a", "a"]}, "must be a list of 2 to 10 distinct strings"),
        ("action_selection", {"actions": "a"}, "must be a list of non-empty strings, is 'a'"),
        ("topic", {"logic_chain": {"name": "tea"}}, "must be a logic chain"),
    ],
)
def test_references_of_another_shape_are_refused(tmp_path, task, reference, message):
    with pytest.raises(DataError, match=message):
        load_rows(write(tmp_path / "rows.jsonl", record(task, reference=reference)))


@pytest.mark.parametrize(
    ("task", "reference", "message"),
    [
        ("item_qa", {"answer": "C", "choices": ["a", "b"]}, "reference.answer 'C' is not among the 2 choices"),
        ("choice", {"answer": "A", "choices": "ab"}, "reference.choices must be a list of 2 to 10 distinct strings"),
        ("gsm8k", {"answer": "none"}, "reference.answer 'none' holds no number"),
        ("grounding", {"pattern": "<|prod_begin|><s_a_1>"}, "is not one item of the model's format 'onereason'"),
        ("grounding", {"pattern": "<|prod_begin|><s_a_9><s_b_1>"}, "is not one item of the model's format"),
    ],
)
def test_references_that_do_not_fit_the_model_are_refused(tmp_path, task, reference, message):
    rows = load_rows(write(tmp_path / "rows.jsonl", record(task, reference=reference)))
    with pytest.raises(DataError, match=f"row '{task}' .*{message}"):
        bind_format(rows, FORMAT)


def test_rows_are_drawn_by_task_with_the_seed(tmp_path):
    records = [record(id=f"c{i}") for i in range(20)] + [record("gsm8k", id=f"g{i}") for i in range(2)]
    rows = load_rows(write(tmp_path / "rows.jsonl", *records))
    drawn = [row.id for row in choose_rows(rows, 5, 0)]
    assert len(drawn) == 7 and drawn[-2:] == ["g0", "g1"]  # all there are
    assert drawn[:5] == sorted(drawn[:5], key=lambda i: int(i[1:]))
    assert drawn == [row.id for row in choose_rows(rows, 5, 0)] != [row.id for row in choose_rows(rows, 5, 1)]
    assert choose_rows(rows, None, 0) == rows
