"""The Explorer's SFT lines -> rows."""

from __future__ import annotations

import json

import pytest

from onereason.data.chat import check_row
from onereason.data.exports import export_row
from onereason.data.readers.sft_lines import BadLine, find_domain, find_switch, read_sft_lines
from onereason.errors import DataError
from onereason.itemic.format import PRESETS

FORMAT = PRESETS["onereason"]
VIDEO, AD = "<|video_begin|><s_a_1><s_b_2><s_c_3>", "<|ad_begin|><s_a_1><s_b_2><s_c_3>"
THINK, NO_THINK = "<think>\nPies.\n</think>\n\n", "<think>\n\n</think>\n\n"


def line(prompt: str, response: str, system: str | None = "Be brief.") -> list[dict]:
    return [{"system": system, "prompt": prompt, "response": response}]


def read(tmp_path, *lines: object, **options) -> list:
    path = tmp_path / "part.jsonl"
    raw = [text if isinstance(text, bytes) else json.dumps(text, ensure_ascii=False).encode() for text in lines]
    path.write_bytes(b"\n".join(raw))
    return list(read_sft_lines([path], FORMAT, **options))


def test_lines_become_rows(tmp_path):
    found = read(
        tmp_path,
        line("Next? /think", THINK + VIDEO),
        line("Caption? /no_think", NO_THINK + "A pie.", system=None),
        {"prompt": "What is 2 + 2?", "response": "Four."},
        task="recommendation",
        teacher="endpoint:big",
    )
    user, answer = "user", "assistant"
    assert found == [
        {
            "id": "part.jsonl:1",
            "task": "recommendation",
            "loss": "assistant",
            "mode": "think",
            "domain": "video",
            "teacher": "endpoint:big",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": user, "content": "Next? /think"},
                {"role": answer, "content": THINK + VIDEO},
            ],
        },
        {
            "id": "part.jsonl:2",
            "task": "recommendation",
            "loss": "assistant",
            "mode": "no_think",
            "teacher": "endpoint:big",
            "messages": [{"role": user, "content": "Caption? /no_think"}, {"role": answer, "content": "A pie."}],
        },
        {
            "id": "part.jsonl:3",
            "task": "recommendation",
            "loss": "assistant",
            "mode": "no_think",
            "teacher": "endpoint:big",
            "messages": [{"role": user, "content": "What is 2 + 2?"}, {"role": answer, "content": "Four."}],
        },
    ]
    for row in found:
        check_row(row)


@pytest.mark.parametrize(
    ("bad", "reason", "words"),
    [
        (b"{broken", "not_json", "not valid JSON"),
        (b'{"prompt": "\xff", "response": "a"}', "not_json", "not valid JSON"),
        ([], "not_one_object", "expected an array of length 1, got length 0"),
        (line("a", "b") * 2, "not_one_object", "expected an array of length 1, got length 2"),
        (["text"], "not_one_object", "expected an object, got str"),
        ([{"prompt": "a"}], "missing_field", "'response' is missing; the object has prompt"),
        ([{"prompt": ["a"], "response": "b"}], "bad_field", "'prompt' should be a string, is list"),
        ([{"system": 3, "prompt": "a", "response": "b"}], "bad_field", "'system' should be a string, is int"),
        (line(" \n", "b"), "empty_field", "'prompt' is empty"),
        (line("a", ""), "empty_field", "'response' is empty"),
        (line("a", "b<|im_end|>c"), "chat_token_in_text", "'response' holds <|im_end|>"),
        (line("a", "<think>\nPies."), "think_not_closed", "does not close it"),
        (line("a", "<think>x</think>b</think>"), "several_think_blocks", "more than one think block"),
        (line("a", THINK), "empty_answer", "nothing follows the think block"),
        (line("a /no_think", THINK + "b"), "switch_contradicts_answer", "asks for no_think, the response has a trace"),
        (line("a /think\n", "b"), "switch_contradicts_answer", "asks for think, the response has no trace"),
    ],
)
def test_bad_lines_are_named_with_line_and_reason(tmp_path, bad, reason, words):
    first, found, last = read(tmp_path, line("a", "b"), bad, line("c", "d"))
    assert (first["id"], last["id"]) == ("part.jsonl:1", "part.jsonl:3")
    assert isinstance(found, BadLine)
    assert (found.id, found.reason) == ("part.jsonl:2", reason)
    assert words in found.detail


def test_blank_lines_count_as_lines_and_give_nothing(tmp_path):
    assert [row["id"] for row in read(tmp_path, b"", line("a", "b"), b"  ", line("c", "d"))] == [
        "part.jsonl:2",
        "part.jsonl:4",
    ]


def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path):
    (row,) = read(tmp_path, line("a\u2028b\rc", "d"))
    assert row["messages"][1]["content"] == "a\u2028b\rc"


@pytest.mark.parametrize(
    ("prompt", "mode"),
    [("Next? /think", "think"), ("Next? /no_think \n", "no_think"), ("Next?", None), ("Use /think or not.", None)],
)
def test_the_switch_closes_the_prompt(prompt, mode):
    assert find_switch(prompt) == mode


@pytest.mark.parametrize(
    ("answer", "domain"),
    [
        (VIDEO, "video"),
        (f"It is {AD}.", "ad"),
        (VIDEO + VIDEO, "video"),
        (VIDEO + AD, None),
        ("A pie.", None),
        ("<|video_begin|><s_a_1>", None),
    ],
)
def test_the_domain_is_that_of_the_answers_items(answer, domain):
    assert find_domain(answer, FORMAT) == domain


def test_a_format_without_domains_names_none():
    assert find_domain("<|sid_begin|><s_a_1><s_b_2><s_c_3><|sid_end|>", PRESETS["openonerec"]) is None


def test_the_domain_is_not_read_from_the_trace(tmp_path):
    (row,) = read(tmp_path, line("Next? /think", f"<think>\n{AD} before\n</think>\n\n{VIDEO}"))
    assert row["domain"] == "video"


def test_lines_come_back_unchanged(tmp_path):
    lines = [
        line("Next? /think", THINK + VIDEO),
        line("Caption? /no_think", NO_THINK + "一个派", system=""),
        line("列出兴趣 /think", "<think>\n第一\n\n第二\n</think>\n\n[]"),
    ]
    rows = read(tmp_path, *lines)
    assert [export_row(row, "explorer") for row in rows] == lines
    assert read(tmp_path, *[export_row(row, "explorer") for row in rows]) == rows


def test_other_spellings_of_the_think_block_become_the_one_of_rows(tmp_path):
    rows = read(tmp_path, line("a", "<think>x</think>b"), line("a", "x\n</think> b\n"), line("a", "<think> </think>b"))
    assert [row["messages"][-1]["content"] for row in rows] == ["<think>\nx\n</think>\n\nb"] * 2 + ["b"]
    assert [row["mode"] for row in rows] == ["think", "think", "no_think"]


def test_files_are_told_apart_by_their_names(tmp_path):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        path.write_text(json.dumps(line("a", "b")))
    assert [row["id"] for row in read_sft_lines(paths, FORMAT)] == ["a.jsonl:1", "b.jsonl:1"]
    with pytest.raises(DataError, match=r"two files are called a\.jsonl"):
        list(read_sft_lines([paths[0], tmp_path / "x" / "a.jsonl"], FORMAT))
    with pytest.raises(DataError, match="SFT lines not found"):
        list(read_sft_lines([tmp_path / "none"], FORMAT))
