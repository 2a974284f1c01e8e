"""The readers of Beauty and of OneRec-Think's sequences: hand-made files, broken ones, and the real totals."""

from __future__ import annotations

import json

import pytest

from onereason.data.readers import import_dataset
from onereason.data.timelines import build_timelines, split_leave_one_out
from onereason.errors import DataError

ITEM_LINES = (
    '{"item_id": 0, "asin": "A0", "title": "Red\rPolish", "brand": "OPI", "categories": ["Makeup", "Nails"]}',
    '{"item_id": 1, "asin": "A1", "title": null, "brand": "Unknown", "categories": ["Hair", "Sprays"]}',
    '{"item_id": "2", "asin": "A2", "title": "Soap", "brand": null, "categories": []}',
)
USER_LINES = (
    '{"user_id": 5, "item_ids": [1, 0, 1]}',
    '{"user_id": 3, "item_ids": [2]}',
    '{"user_id": 4, "item_ids": []}',
    '{"user_id": 6, "item_ids": null}',
)


def write(folder, items=ITEM_LINES, users=USER_LINES):
    # A raw CR inside a string is no JSON; it is written as an escape, and as a blank between two fields.
    text = "\n".join(items).replace("Red\rPolish", "Red\\rPolish").replace(', "brand"', ',\r"brand"')
    (folder / "items.jsonl").write_bytes(text.encode())
    (folder / "interactions.jsonl").write_bytes("\n".join(users).encode())
    return folder


def test_beauty_by_hand(tmp_path):
    dataset = import_dataset("beauty", write(tmp_path), domain="prod")
    assert dataset.items.select("item_id", "domain", "title", "text").rows() == [
        ("0", "prod", "Red\rPolish", "Red\rPolish, by OPI. Category: Makeup, Nails."),
        ("1", "prod", "Sprays", "Category: Hair, Sprays."),
        ("2", "prod", "Soap", "Soap."),
    ]
    assert json.loads(dataset.items["attributes"][0]) == {
        "asin": "A0",
        "brand": "OPI",
        "categories": ["Makeup", "Nails"],
    }
    rows = [("5", "1", 0), ("5", "0", 1), ("5", "1", 2), ("3", "2", 0)]
    assert dataset.interactions.select("user_id", "item_id", "timestamp").rows() == rows
    assert dataset.manifest["counts"]["fixed"] == {"titles_filled": 1}
    assert dataset.manifest["counts"]["found"] == {"items": 3, "interactions": 4, "users": 4}
    assert dataset.manifest["rejected"] == {"users_with_empty_history": 2}
    assert set(dataset.manifest["inputs"]) == {"items.jsonl", "interactions.jsonl"}
    assert dataset.manifest["config"]["reader"] == "beauty" and dataset.manifest["config"]["domain"] == "prod"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"items": (*ITEM_LINES, "{")}, r"items .*items\.jsonl, line 4: not valid JSON"),
        ({"items": (*ITEM_LINES, '{"title": "x"}')}, r"line 4: 'item_id' is missing; the object has title"),
        ({"items": ('{"item_id": 0, "title": 7}',)}, r"line 1: 'title' should be str, is int 7"),
        ({"items": ('{"item_id": true}',)}, r"line 1: 'item_id' should be int or str, is bool True"),
        ({"items": ('{"item_id": 0, "categories": [1]}',)}, r"'categories' should be a list of text"),
        ({"items": (*ITEM_LINES, ITEM_LINES[0])}, r"1 item id\(s\) stand more than once, e\.g\. '0'"),
        (
            {"users": ("", '{"user_id": 1, "item_ids": 3}')},
            r"interactions .*, line 2: 'item_ids' should be list, is int 3",
        ),
        ({"users": ('{"user_id": 1, "item_ids": [1, null]}',)}, r"line 1: 'item_ids' should be a list of item ids"),
        ({"users": ('{"user_id": null, "item_ids": [1]}',)}, r"line 1: 'user_id' is missing"),
        ({"users": ('{"user_id": 1, "item_ids": [9]}',)}, r"not in the item table, e\.g\. user '1' with item '9'"),
    ],
)
def test_malformed_beauty_files_are_named(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        import_dataset("beauty", write(tmp_path, **files))


def test_missing_beauty_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"items not found: expected a file at .*items\.jsonl"):
        import_dataset("beauty", tmp_path)
    with pytest.raises(DataError, match=r"expected one folder with items\.jsonl and interactions\.jsonl, got 2 paths"):
        import_dataset("beauty", [tmp_path, tmp_path])


def test_real_beauty(shared_dir):
    dataset = import_dataset("beauty", shared_dir / "data" / "beauty")
    counts = dataset.manifest["counts"]
    assert (counts["items"], counts["users"], counts["interactions"]) == (12_101, 22_363, 198_502)
    assert counts["fixed"] == {"titles_filled": 7}
    assert dataset.manifest["rejected"] == {}
    assert dataset.items["title"].null_count() == 0
    lines = (shared_dir / "data" / "beauty" / "interactions.jsonl").read_bytes().split(b"\n")
    sequences = [json.loads(line)["item_ids"] for line in lines if line]
    # Item ids are the numbers 0 .. 12100 in file order, so an item index is its id.
    index = {item: i for i, item in enumerate(dataset.items["item_id"])}
    timelines = build_timelines(dataset.interactions, index)
    assert [timelines.of(u).tolist() for u in range(len(timelines))] == sequences
    split = split_leave_one_out(timelines)
    assert [t.tolist() for t in split.test.targets] == [s[-1:] for s in sequences]
    assert [h.tolist() for h in split.validation.histories] == [s[:-2] for s in sequences]


def test_onerec_think_by_hand(tmp_path):
    path = tmp_path / "seq.txt"
    path.write_bytes(b"7 3 1 3\n9 2\n\n8\r\n")
    dataset = import_dataset("onerec_think", path)
    rows = [("7", "3", 0), ("7", "1", 1), ("7", "3", 2), ("9", "2", 0)]
    assert dataset.interactions.select("user_id", "item_id", "timestamp").rows() == rows
    assert dataset.items.select("item_id", "title", "text").rows() == [
        ("3", None, "Item 3"),
        ("1", None, "Item 1"),
        ("2", None, "Item 2"),
    ]
    assert dataset.manifest["rejected"] == {"users_with_empty_history": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 2 3\n2 x 3\n", r"sequences .*seq\.txt, line 2: 'x' is not an id"),
        ("1 2 3\n\n1 4\n", r"line 3: user '1' stands on line 1 already"),
        ('{"user_id": 1}\n', r"line 1: '\{\"user_id\":' is not an id"),
        ("", "not in the item table|no item is left"),
    ],
)
def test_malformed_sequences_are_named(tmp_path, content, message):
    path = tmp_path / "seq.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        import_dataset("onerec_think", path)


def test_real_onerec_think_sequences(shared_dir):
    path = shared_dir / "data" / "beauty" / "onerec_think.sequential_data_processed.txt"
    dataset = import_dataset("onerec_think", path)
    words = [line.split() for line in path.read_bytes().split(b"\n") if line.strip()]
    assert dataset.interactions.height == sum(len(w) - 1 for w in words) == 194_687
    assert dataset.manifest["counts"]["users"] == len(words) == 22_363
    assert dataset.items.height == len({item for w in words for item in w[1:]}) == 12_101
