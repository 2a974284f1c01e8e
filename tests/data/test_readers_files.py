"""What readers share: lines split on LF, gz, Python literals, captions, and errors that name the line."""

from __future__ import annotations

import gzip

import pytest

from onereason.data.readers import READERS, import_dataset
from onereason.data.readers.files import build_caption, clean_text, iter_lines, list_files, parse_object, pick_file
from onereason.errors import ConfigError, DataError


def test_lines_end_at_lf_only(tmp_path):
    content = "a\rb\n\n  \nc\u2028d\u0085e\r\nlast".encode()
    (tmp_path / "t.txt").write_bytes(content)
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(content))
    expected = [(1, "a\rb"), (4, "c\u2028d\u0085e"), (5, "last")]
    assert list(iter_lines(tmp_path / "t.txt", "text")) == expected
    assert list(iter_lines(tmp_path / "t.txt.gz", "text")) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"one\ntw\xff\n", r"text .*a\.txt, line 2: not UTF-8"),
        ("a.gz", b"plain text", r"text .*a\.gz, after line 0: broken gz file"),
        ("b.gz", gzip.compress(b"x\n" * 100_000)[:-20], r"text .*b\.gz, after line \d+: broken gz file"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(iter_lines(tmp_path / name, "text"))


def test_objects_in_json_or_as_python_literals():
    assert parse_object('{"a": null, "b": true}', "x") == {"a": None, "b": True}
    assert parse_object("{'a': None, 'b': \"it's\"}", "x", python_literal=True) == {"a": None, "b": "it's"}
    with pytest.raises(DataError, match="file, line 3: not valid JSON"):
        parse_object("{'a': 1}", "file, line 3")
    for text in ("{'a': open('x')}", "{'a': ", "{" * 5000, "[" * 100_000):
        with pytest.raises(DataError, match=r"file, line 3: neither JSON .* nor a Python literal"):
            parse_object(text, "file, line 3", python_literal=True)
    with pytest.raises(DataError, match="line 3: expected an object, got list"):
        parse_object("[1]", "line 3")


def test_files_are_found_or_missing_by_name(tmp_path):
    for name in ("b.json", "a.json", "c.txt"):
        (tmp_path / name).write_text("{}")
    assert [p.name for p in list_files([tmp_path], "file")] == ["a.json", "b.json", "c.txt"]
    assert pick_file(list_files([tmp_path], "file"), (".txt",), "notes").name == "c.txt"
    with pytest.raises(DataError, match=r"items: expected one file \*\.json, found 2 \(there is a\.json, b\.json\)"):
        pick_file(list_files([tmp_path], "file"), (".json",), "items")
    with pytest.raises(
        DataError, match=r"items: expected one file x\*\.csv or x\*\.tsv, found 0 \(there is a\.json, b"
    ):
        pick_file(list_files([tmp_path], "file"), (".csv", ".tsv"), "items", prefix="x")
    with pytest.raises(DataError, match="reviews not found"):
        list_files([tmp_path / "absent"], "reviews")


@pytest.mark.parametrize(
    ("title", "brand", "categories", "caption"),
    [
        ("Red Polish", "OPI", ["Makeup", "Nails"], "Red Polish, by OPI. Category: Makeup, Nails."),
        ("opi Red Polish", "OPI", [], "opi Red Polish."),  # the title names the brand
        ("Red Polish", "Unknown", ["Nails"], "Red Polish. Category: Nails."),
        (None, "OPI", ["Nails"], "OPI. Category: Nails."),
        (None, None, ["Nails"], "Category: Nails."),
        ("Soap by Acme Inc.", None, ["Bath"], "Soap by Acme Inc. Category: Bath."),
        (None, "unknown", [], None),
    ],
)
def test_captions(title, brand, categories, caption):
    assert build_caption(title, brand, categories) == caption


def test_clean_text():
    assert [clean_text(t) for t in (None, "  ", " Tom &amp; Jerry&#39;s ")] == [None, None, "Tom & Jerry's"]


def test_readers_and_options_are_checked_by_name(tmp_path):
    with pytest.raises(ConfigError, match="reader 'amazon' is not known; use one of beauty, amazon2014"):
        import_dataset("amazon", tmp_path)
    with pytest.raises(ConfigError, match="reader 'beauty' has no option 'k_core'; it has domain"):
        import_dataset("beauty", tmp_path, k_core=5)
    for spec in READERS.values():
        assert callable(spec.function) and spec.help and spec.expects
