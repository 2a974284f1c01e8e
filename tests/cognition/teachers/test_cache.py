"""The cache of answers on disk: found again by any process, small in memory, whole after a kill."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from onereason.cognition.teachers.cache import ANSWERS_FILE, AnswerCache, answer_key
from onereason.errors import StorageError

KEYS = [answer_key({"n": n}) for n in range(4)]


def test_keys_depend_on_what_is_sent_and_not_on_the_order_of_names():
    payload = {"model": "m", "messages": [{"role": "user", "content": "é\ud800"}], "temperature": 0}
    assert answer_key(payload) == answer_key(dict(reversed(payload.items()))) and len(answer_key(payload)) == 32
    others = [
        payload | {"model": "n"},
        payload | {"temperature": 0.5},
        payload | {"seed": 1},
        payload | {"messages": []},
    ]
    assert len({answer_key(other) for other in [payload, *others]}) == 5


def test_records_are_found_again(tmp_path):
    cache = AnswerCache(tmp_path / "new" / "folder")
    assert cache.get(KEYS[0]) is None
    cache.put(KEYS[0], {"text": "é\n\u2028"})
    cache.put(KEYS[1], {"text": "b"})
    for again in (cache, AnswerCache(tmp_path / "new" / "folder")):
        assert [again.get(key) for key in KEYS[:3]] == [{"text": "é\n\u2028"}, {"text": "b"}, None] and len(again) == 2


def test_without_a_folder_nothing_is_kept():
    cache = AnswerCache(None)
    cache.put(KEYS[0], {"text": "a"})
    cache.refresh()
    assert cache.get(KEYS[0]) is None and len(cache) == 0


def test_processes_see_each_other_s_answers_and_the_last_one_counts(tmp_path):
    one, other = AnswerCache(tmp_path), AnswerCache(tmp_path)
    one.put(KEYS[0], {"text": "one"})
    assert other.get(KEYS[0]) is None
    other.refresh()
    assert other.get(KEYS[0]) == {"text": "one"}
    other.put(KEYS[0], {"text": "other"})
    one.refresh()
    assert one.get(KEYS[0]) == other.get(KEYS[0]) == AnswerCache(tmp_path).get(KEYS[0]) == {"text": "other"}
    assert len(one) == len(other) == 1


def test_lines_that_cannot_be_read_are_asked_again(tmp_path):
    cache = AnswerCache(tmp_path)
    for n, key in enumerate(KEYS):
        cache.put(key, {"n": n})
    path = tmp_path / ANSWERS_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1][:-5] + b"\xff\xff\xff\xff\n"  # a broken value
    lines[2] = b'{"key":"zz' + lines[2][10:]  # a broken key
    path.write_bytes(b"".join(lines) + b'[1]\n\n{"key":"' + KEYS[0].encode())  # not ours, and an unfinished line
    again = AnswerCache(tmp_path)
    assert [again.get(key) for key in KEYS] == [{"n": 0}, None, None, {"n": 3}]
    again.put(KEYS[1], {"n": 1})
    assert AnswerCache(tmp_path).get(KEYS[1]) == {"n": 1}
    assert path.read_bytes().count(b"\n") == 7  # the unfinished line is gone


def test_only_keys_are_held_in_memory(tmp_path):
    long = json.dumps({"content": "x" * 20_000})
    with (tmp_path / ANSWERS_FILE).open("w") as handle:
        for n in range(2000):  # 40 MB
            handle.write(f'{{"key":"{answer_key({"n": n})}",{long[1:]}\n')
    tracemalloc.start()
    cache = AnswerCache(tmp_path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(cache) == 2000 and held < 2000 * 300 and peak < 2_000_000
    assert cache.get(answer_key({"n": 1999})) == {"content": "x" * 20_000}


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/cache cannot be written: Not a directory; choose another path"):
        AnswerCache(tmp_path / "file" / "cache")
