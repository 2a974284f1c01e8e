"""Prompt sets: what a file may hold, and that both languages say the same things."""

from __future__ import annotations

from pathlib import Path

import pytest

from onereason import prompt_sets
from onereason.data.prompt_sets import LANGUAGES, load_prompt_set, placeholders
from onereason.errors import ConfigError

FOLDER = Path(prompt_sets.__file__).parent
NAMES = sorted({path.stem for path in FOLDER.glob("*/*.yaml")})


def write(folder: Path, text: str) -> str:
    (folder / "mine.yaml").write_text(text, "utf-8")
    return str(folder)


def test_groups_become_dotted_names_and_variants_go_round(tmp_path):
    prompts = load_prompt_set("mine", write(tmp_path, "version: 3\na: {b: one, c: ['x {n}', 'y {n}']}\n"))
    assert prompts.texts == {"a.b": ("one",), "a.c": ("x {n}", "y {n}")}
    assert [prompts.text("a.c", v) for v in range(3)] == ["x {n}", "y {n}", "x {n}"]
    assert prompts.describe() == f"mine/{tmp_path.name}/3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "mapping with a `version`"),
        ("a: b\n", "mapping with a `version`"),
        ("version: 1\na: 7\n", "'a' should be a text"),
        ("version: 1\na: []\n", "'a' should be a text"),
        ("version: 1\na: 'x {}'\n", "plain name"),
        ("version: 1\na: 'x {0}'\n", "plain name"),
        ("version: 1\na: 'x {'\n", "write a literal brace twice"),
        ("version: 1\na: [\n", "not valid YAML"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        load_prompt_set("mine", write(tmp_path, text))


def test_an_unknown_set_or_text_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not found; use en or zh"):
        load_prompt_set("no_such_set", "en")
    with pytest.raises(ConfigError, match="has no text 'b'"):
        load_prompt_set("mine", write(tmp_path, "version: 1\na: x\n")).text("b")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{history}", "{histroy}", "unknown placeholder 'histroy'; use history, noun"),
        ("{history}", "", "lacks the placeholder 'history'"),
    ],
)
def test_a_set_of_ones_own_holds_what_builders_fill_in(tmp_path, old, new, said):
    text = (FOLDER / "en" / "recommendation.yaml").read_text("utf-8")
    own = tmp_path / "recommendation.yaml"
    own.write_text(text, "utf-8")
    assert load_prompt_set("recommendation", str(tmp_path)).texts == load_prompt_set("recommendation").texts
    own.write_text(text.replace(old, new), "utf-8")
    load_prompt_set.cache_clear()
    with pytest.raises(ConfigError, match=said):
        load_prompt_set("recommendation", str(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_hold_the_same(name):
    english, chinese = (load_prompt_set(name, language) for language in LANGUAGES)
    assert english.version == chinese.version
    assert list(english.texts) == list(chinese.texts)
    for key, variants in english.texts.items():
        assert [placeholders(text) for text in variants] == [placeholders(text) for text in chinese.texts[key]], key
