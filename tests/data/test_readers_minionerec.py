"""MiniOneRec, LC-Rec and RecBole files: windows in any order join into the timeline they were cut from."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.data.readers import import_dataset
from onereason.data.readers.minionerec import join_window
from onereason.errors import DataError
from onereason.itemic.sids import read_sids

HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
ITEMS = {
    str(i): {"title": f"Item {i}", "description": "", "brand": "Acme", "categories": "Office,Pens"} for i in range(6)
}


def write(folder, files: dict[str, str], items=ITEMS):
    (folder / "Office.item.json").write_text(json.dumps(items))
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def timelines(dataset) -> dict[str, list[str]]:
    grouped = dataset.interactions.group_by("user_id", maintain_order=True).agg("item_id")
    return dict(grouped.rows())


def test_windows_of_three_files_by_hand(tmp_path):
    files = {
        # Read in the order train, valid, test whatever the order of names.
        "Office.test.inter": HEADER + "u\t0 1 2 3\t4\n",
        "Office.train.inter": HEADER + "u\t0\t1\nv\t5\t5\nu\t0 1\t2\nv\t5 5\t5\n",
        "Office.valid.inter": HEADER + "u\t0 1 2\t3\n",
        "Office.index.json": json.dumps({str(i): [f"<a_{i}>", "<b_0>", "<c_1>"] for i in range(6)}),
    }
    dataset = import_dataset("minionerec", write(tmp_path, files), domain="prod")
    assert timelines(dataset) == {"u": ["0", "1", "2", "3", "4"], "v": ["5", "5", "5"]}
    assert dataset.interactions["timestamp"].to_list() == [0, 1, 2, 3, 4, 0, 1, 2]
    item = dataset.items.row(2, named=True)
    assert (item["item_id"], item["domain"], item["title"]) == ("2", "prod", "Item 2")
    assert item["text"] == "Item 2, by Acme. Category: Office, Pens."
    assert json.loads(item["attributes"]) == {"brand": "Acme", "categories": "Office,Pens"}
    assert list(dataset.manifest["inputs"]) == [
        "Office.train.inter",
        "Office.valid.inter",
        "Office.test.inter",
        "Office.item.json",
    ]
    assert read_sids(tmp_path / "Office.index.json")["4"] == (4, 0, 1)


def test_one_list_a_user_and_one_interaction_a_row(tmp_path):
    expected = {"u": ["0", "1", "2"], "v": ["3"]}
    lists = {"Office.inter": "user_id:token\titem_id:token_seq\nu\t0 1 2\nv\t3\nw\t\n"}
    dataset = import_dataset("minionerec", write(tmp_path, lists))
    assert timelines(dataset) == expected
    assert dataset.manifest["rejected"] == {"users_with_empty_history": 1}

    single = {"Office.inter": "user_id:token\titem_id:token\nu\t0\nv\t3\nu\t1\nu\t2\n"}
    assert timelines(import_dataset("minionerec", write(tmp_path, single))) == expected

    timed = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    timed += "u\t2\t4.5\t30.0\nv\t3\t1\t5\nu\t0\t2\t10\nu\t1\t3\t20\n"
    dataset = import_dataset("minionerec", write(tmp_path, {"Office.inter": timed}))
    assert timelines(dataset) == expected
    assert dataset.interactions["signal_rating"].to_list() == [2.0, 3.0, 4.5, 1.0]
    assert dataset.interactions["timestamp"].to_list() == [10, 20, 30, 5]


def test_lc_rec_json(tmp_path):
    folder = write(tmp_path, {"Office.inter.json": json.dumps({"u": [0, "1", 2], "v": [3], "w": []})})
    dataset = import_dataset("minionerec", folder)
    assert timelines(dataset) == {"u": ["0", "1", "2"], "v": ["3"]}
    assert dataset.manifest["rejected"] == {"users_with_empty_history": 1}


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 30), st.integers(1, 8), st.sampled_from(["forward", "backward", "targets last"]), st.booleans())
def test_windows_join_into_the_timeline_they_were_cut_from(length, longest, order, twice):
    """Distinct items: windows determine the timeline, cut to `longest` items or not, in either order."""
    sequence = [str(i) for i in range(length)]
    windows = [(sequence[max(0, i - longest) : i], sequence[i : i + 1]) for i in range(1, length)]
    if order == "backward":
        windows.reverse()
    if order == "targets last":  # leave-one-out files: train rows newest first, then validation, then test
        windows = [*windows[:-2][::-1], *windows[-2:]]
    joined: list[str] = []
    for history, target in windows * (2 if twice else 1):
        joined = join_window(joined, history, target, "row")
    assert joined == sequence


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("pq"), min_size=2, max_size=20), st.booleans())
def test_whole_windows_join_where_items_repeat(sequence, backward):
    windows = [(sequence[:i], sequence[i : i + 1]) for i in range(1, len(sequence))]
    joined: list[str] = []
    for history, target in reversed(windows) if backward else windows:
        joined = join_window(joined, history, target, "row")
    assert joined == sequence


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"O.inter": "user item\n1 2\n"}, r"O\.inter, line 1: the header should be tab-separated with user_id:token"),
        ({"O.inter": ""}, r"O\.inter, line 1: the header should be"),
        ({"O.inter": HEADER + "u\t0\t1\n\nu\t1\n"}, r"O\.inter, line 4: 2 tab-separated fields, the header has 3"),
        ({"O.inter": HEADER + "\t0\t1\n"}, r"line 2: user_id is empty"),
        ({"O.inter": HEADER + "u\t0\t1\nu\t3\t4\n"}, r"line 3: user 'u': the row's items do not continue"),
        ({"O.inter": HEADER + "u\t0\t9\n"}, r"not in the item table, e\.g\. user 'u' with item '9'"),
        (
            {"O.inter": "user_id:token\titem_id:token\ttimestamp:float\nu\t0\tnoon\n"},
            r"line 2: timestamp should be a number, is 'noon'",
        ),
        ({"O.inter.json": "[]"}, r'expected an object \{"user": \[item, \.\.\.\]\}, got list'),
        ({"O.inter.json": '{"u": [1, null]}'}, r"user 'u': expected a list of item ids, got \[1, None\]"),
        ({}, r"interactions: expected one file \*\.inter or \*\.inter\.json, found 0 \(there is Office\.item\.json\)"),
    ],
)
def test_malformed_interactions_are_named(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        import_dataset("minionerec", write(tmp_path, files))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], r'items .*expected an object \{"item": \{"title": \.\.\.\}\}, got list'),
        ({"0": "pen"}, r"item '0': expected an object with a title, got str"),
        ({"0": {"title": 5}}, r"item '0': 'title' should be str, is int 5"),
    ],
)
def test_malformed_items_are_named(tmp_path, items, message):
    with pytest.raises(DataError, match=message):
        import_dataset("minionerec", write(tmp_path, {"O.inter": HEADER + "u\t0\t1\n"}, items))
