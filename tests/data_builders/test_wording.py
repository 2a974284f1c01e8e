"""The language of corpora: shortened names, what a manifest records, rows in English, Chinese and own words."""

# ruff: noqa: RUF001

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders import build_captions, build_persona, build_sequential
from data_builders.cards import prompt_settings
from data_builders.common import add_language_argument, add_theme_argument, shorten
from onereason import prompt_sets
from onereason.data.chat import check_row
from onereason.errors import ConfigError
from onereason.io import read_json, read_jsonl

ENGLISH = Path(prompt_sets.__file__).parent / "en"

# -- names on one line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "max_chars", "short"),
    [
        ("A pie.\nWith  apples. ", 100, "A pie. With apples"),
        ("one two three", 9, "one two"),
        ("one two three", 7, "one two"),
        ("onetwothree", 4, "onet"),
        ("one, two", 4, "one"),
        ("", 3, ""),
        # 12 characters; a clause ends behind the fifth
        ("今天去公园，看樱花和湖水。", 20, "今天去公园，看樱花和湖水"),
        ("今天去公园，看樱花和湖水。", 12, "今天去公园，看樱花和湖水"),
        ("今天去公园，看樱花和湖水。", 9, "今天去公园"),
        ("今天去公园，看樱花和湖水。", 10, "今天去公园"),  # 5 of 10 are half
        ("今天去公园，看樱花和湖水。", 11, "今天去公园，看樱花和湖"),  # 5 of 11 are less
        ("今天去公园，看樱花和湖水。", 5, "今天去公园"),  # the clause ends right there
        ("今天 去公园看樱花", 4, "今天"),
        ("今天去公园看樱花", 4, "今天去公"),
        # Latin words in Chinese are kept whole
        ("我爱iPhone手机", 5, "我爱"),
        ("我爱iPhone手机", 8, "我爱iPhone"),
        ("用iPhone 拍照", 8, "用iPhone"),
    ],
)
def test_a_name_is_one_short_line(text, max_chars, short):
    assert shorten(text, max_chars) == short


@given(st.text(st.sampled_from("ab .,中文，。"), max_size=30), st.integers(1, 12))
def test_a_short_name_is_the_front_of_the_text(text, max_chars):
    line = " ".join(text.split())
    short = shorten(text, max_chars)
    assert line.startswith(short) and len(short) <= max_chars and shorten(short, max_chars) == short
    if line.isascii() and len(line) > max_chars:  # as words of English have always been cut
        assert short == (line[: max_chars + 1].rpartition(" ")[0] or line[:max_chars]).rstrip(" .,;:")


# -- manifests ------------------------------------------------------------------------------------------------------


def test_arguments_by_default():
    parser = argparse.ArgumentParser()
    add_language_argument(parser)
    add_theme_argument(parser)
    assert vars(parser.parse_args([])) == {"language": "en", "theme_attribute": None}


def test_what_a_manifest_records(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "persona.yaml").write_text("version: 3\na: b\n")
    assert prompt_settings("zh", ("domains", "persona")) == {
        "language": "zh",
        "prompt_version": "domains/zh/1, persona/zh/1",
    }
    assert prompt_settings(str(folder), ("persona",)) == {"language": "mine", "prompt_version": "persona/mine/3"}
    with pytest.raises(ConfigError, match="prompt set 'domains' for language 'fr' not found; use en or zh"):
        prompt_settings("fr", ("domains",))


# -- rows -----------------------------------------------------------------------------------------------------------

BUILDERS = {"sequential": build_sequential, "persona": build_persona, "caption": build_captions}
SETS = {"sequential": "recommendation", "persona": "persona", "caption": "perception"}


@pytest.fixture
def build(world, tmp_path):
    def run(name: str, *more: str, out: str = "out") -> int:
        data = [] if name == "caption" else world.data
        where = ["--catalog", str(world.root / "catalog"), "--out", str(tmp_path / out)]
        return BUILDERS[name].main([*data, *where, *more])

    return run


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_row_is_in_the_language(build, tmp_path, name, language):
    more = ["--variants", "5"] if name == "persona" else []
    assert build(name, "--language", language, *more) == 0
    for row in read_jsonl(tmp_path / "out/rows.jsonl"):
        check_row(row)
        if row["id"].split(":")[1:2] == ["plain"]:
            continue
        told = row["messages"][:2] if "messages" in row else [{"content": row["text"]}]
        assert all((max(m["content"]) >= "一") == (language == "zh") for m in told)
    config = read_json(tmp_path / "out/manifest.json")["config"]
    assert config["language"] == language
    assert config["prompt_version"] == f"domains/{language}/1, {SETS[name]}/{language}/1"


def test_chinese_rows(build, world, tmp_path):
    p = world.patterns
    for name in BUILDERS:
        assert build(name, "--language", "zh", out=name) == 0
    rows = {name: {row["id"]: row for row in read_jsonl(tmp_path / name / "rows.jsonl")} for name in BUILDERS}
    asked = rows["sequential"]["dee:chat:3"]["messages"][1]["content"]
    assert asked == f"该用户的历史，按时间先后排列：\n{p[3]}{p[2]}\n接下来会是哪个商品？ /no_think"
    assert rows["sequential"]["dee:plain:3"]["text"] == p[3] + p[2] + p[9]
    assert rows["caption"]["i1"]["messages"][1]["content"].startswith(f"请描述这个商品：{p[1]}")
    assert build("persona", "--language", "zh", "--variants", "5", out="all") == 0
    texts = {row["id"]: row["text"] for row in read_jsonl(tmp_path / "all/rows.jsonl")}
    dee = [text for row_id, text in texts.items() if row_id.startswith("dee:")]
    lines = [f"商品{p[i]}，内容是thing number {i}。" for i in (3, 9)]
    assert "\n".join(["一位用户的画像。", "在商品中，该用户喜欢过：", *lines]) in dee  # item 2 has no caption
    profile = (
        f"用户档案。\n较早之前，该用户选择了：\n- thing number 3{p[3]}\n最近，该用户选择了：\n- thing number 9{p[9]}"
    )
    assert profile in dee


def test_english_is_the_default(build, tmp_path):
    for name in BUILDERS:
        assert build(name, out=f"{name}_a") == 0 and build(name, "--language", "en", out=f"{name}_b") == 0
        for file in ("rows.jsonl", "manifest.json", "CARD.md"):
            assert (tmp_path / f"{name}_a" / file).read_bytes() == (tmp_path / f"{name}_b" / file).read_bytes()


def test_wording_of_ones_own(build, world, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(ENGLISH, folder)
    (folder / "recommendation.yaml").write_text("version: 7\nsystem: Go on.\nuser: '{history} then {noun}?'\n")
    assert build("sequential", "--language", str(folder), "--styles", "chat") == 0
    system, user, _ = read_jsonl(tmp_path / "out/rows.jsonl")[1]["messages"]
    p = world.patterns
    assert (system["content"], user["content"]) == ("Go on.", f"{p[3]}{p[2]} then product? /no_think")
    text = (tmp_path / "out/manifest.json").read_text()
    config = read_json(tmp_path / "out/manifest.json")["config"]
    assert config["language"] == "mine" and str(tmp_path) not in text
    assert config["prompt_version"] == "domains/mine/1, recommendation/mine/7"


@pytest.mark.parametrize("name", BUILDERS)
def test_an_unknown_language_is_refused(build, tmp_path, capsys, name):
    assert build(name, "--language", "fr") == 2
    error = capsys.readouterr().err
    assert "prompt set 'domains' for language 'fr' not found; use en or zh" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
