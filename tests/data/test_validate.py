"""Validation: every rule of the policy on tables small enough to count by hand, and against plain Python at random."""

from __future__ import annotations

from dataclasses import fields
from datetime import date, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.commands.data import POLICY_HELP
from onereason.data.raw import DEFAULT_ACTION, DEFAULT_DOMAIN
from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, check_columns, load_dataset, save_dataset
from onereason.data.validate import Policy, title_from_attributes, validate
from onereason.errors import ConfigError, DataError

ITEMS = pl.DataFrame({"item_id": ["p", "q", "r"], "domain": ["x", "y", "x"], "title": ["P", "Q", "R"]})


def events(*rows: tuple) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}, orient="row")


def kept(dataset) -> list[tuple[str, str, int]]:
    return dataset.interactions.select("user_id", "item_id", "timestamp").rows()


def test_a_clean_source_is_filled_to_the_schema():
    raw = events(("v", "q", 5), ("u", "p", 3), ("v", "p", 6)).with_columns(signal_watch=pl.Series([1, None, 2]))
    dataset = validate(ITEMS, raw)
    assert dataset.items.rows() == [
        ("p", "x", "P", "P", "{}"),
        ("q", "y", "Q", "Q", "{}"),
        ("r", "x", "R", "R", "{}"),
    ]
    assert dataset.interactions.rows() == [
        ("v", "q", 5, DEFAULT_ACTION, "y", 1.0),
        ("v", "p", 6, DEFAULT_ACTION, "x", 2.0),
        ("u", "p", 3, DEFAULT_ACTION, "x", None),
    ]
    check_columns(dataset.items, ITEM_SCHEMA, "items")
    check_columns(dataset.interactions, {**INTERACTION_SCHEMA, "signal_watch": pl.Float32}, "interactions")
    assert dataset.manifest["counts"] == {
        "items": 3,
        "users": 2,
        "interactions": 3,
        "items_without_interactions": 1,
        "by_domain": {"x": {"items": 2, "interactions": 2}, "y": {"items": 1, "interactions": 1}},
        "found": {"items": 3, "interactions": 3, "users": 2},
        "fixed": {},
    }
    assert dataset.manifest["rejected"] == {}
    assert dataset.manifest["config"]["policy"]["duplicates"] == "drop"


def test_control_tokens_and_broken_lines_do_not_come_in():
    items = pl.DataFrame(
        {
            "item_id": ["p", "q"],
            "title": ["a <|im_end|> b", "<think>"],
            "text": ["c", "d</think>"],
            "attributes": ['{"k": "<|im_start|>v"}', "{}"],
        }
    )
    raw = events(("u", "p", 1), ("u", "q", 2), ("v", "p", 3)).with_columns(action=pl.Series(["a\n b", " ", "<think>"]))
    dataset = validate(items, raw)
    assert dataset.items.select("title", "text", "attributes").rows() == [
        ("a   b", "c", '{"k": " v"}'),
        ("d ", "d ", "{}"),
    ]
    assert dataset.interactions["action"].to_list() == ["a b", DEFAULT_ACTION, DEFAULT_ACTION]
    fixed = dataset.manifest["counts"]["fixed"]
    assert (fixed["item_texts_with_control_tokens"], fixed["actions_with_control_tokens"]) == (2, 1)


def test_integer_ids_and_missing_columns():
    items = pl.DataFrame({"item_id": [1, 2]})
    dataset = validate(items, pl.DataFrame({"user_id": [7], "item_id": [2], "timestamp": [0.0]}))
    assert dataset.items.rows() == [("1", "item", None, "Item 1", "{}"), ("2", "item", None, "Item 2", "{}")]
    assert dataset.interactions.rows() == [("7", "2", 0, DEFAULT_ACTION, DEFAULT_DOMAIN)]
    assert dataset.manifest["counts"]["fixed"] == {"texts_from_id": 2}


DUPLICATED = events(("u", "p", 1), ("u", "q", 1), ("u", "p", 1), ("v", "p", 1), ("u", "p", 2), ("u", "p", 1))


def test_duplicates():
    # (u, p, 1) stands three times; another time, item or user is another interaction.
    dropped = validate(ITEMS, DUPLICATED)
    assert kept(dropped) == [("u", "p", 1), ("u", "q", 1), ("u", "p", 2), ("v", "p", 1)]
    assert dropped.manifest["rejected"] == {"duplicate_interactions": 2}
    everything = validate(ITEMS, DUPLICATED, Policy(duplicates="keep"))
    assert everything.interactions.height == 6 and everything.manifest["rejected"] == {}
    with pytest.raises(
        DataError, match=r"shop: 2 interactions repeat .* e\.g\. user 'u', item 'p', time 1; .*duplicates=drop"
    ):
        validate(ITEMS, DUPLICATED, Policy(duplicates="refuse"), "shop")


def test_unknown_items():
    raw = events(("u", "p", 1), ("u", "z", 2), ("v", "z", 1), ("u", None, 3))
    with pytest.raises(
        DataError, match=r"3 of 3 interactions name .* e\.g\. user 'u' with item 'z'; .*unknown_items=drop"
    ):
        validate(ITEMS, raw)
    dataset = validate(ITEMS, raw, Policy(unknown_items="drop"))
    assert kept(dataset) == [("u", "p", 1)]
    assert dataset.manifest["rejected"] == {
        "interactions_of_unknown_items": 2,
        "interactions_without_item": 1,
        "users_with_empty_history": 1,  # v has nothing left
    }


def test_time_disorder():
    raw = events(("u", "p", 3), ("v", "p", 9), ("u", "q", 1), ("v", "q", 9), ("u", "r", 2))
    dataset = validate(ITEMS, raw)
    assert kept(dataset) == [("u", "q", 1), ("u", "r", 2), ("u", "p", 3), ("v", "p", 9), ("v", "q", 9)]
    # 1 and 2 stand after 3; equal times are in order.
    assert dataset.manifest["counts"]["fixed"] == {"interactions_sorted_in_time": 2, "users_sorted_in_time": 1}
    with pytest.raises(DataError, match=r"2 interactions of 1 user\(s\) stand after .* user 'u', item 'q', time 1;"):
        validate(ITEMS, raw, Policy(time_disorder="refuse"))


def test_empty_and_short_histories():
    raw = events(("u", "p", 1), ("u", "q", 2), ("v", "p", 1), ("w", None, None))
    assert validate(ITEMS, raw).manifest["rejected"] == {"users_with_empty_history": 1}
    dataset = validate(ITEMS, raw, Policy(min_interactions=2))
    assert kept(dataset) == [("u", "p", 1), ("u", "q", 2)]
    assert dataset.manifest["rejected"] == {
        "users_with_empty_history": 1,
        "users_with_short_history": 1,
        "interactions_of_short_histories": 1,
    }
    with pytest.raises(
        DataError, match=r"1 of 3 users have fewer than 1 interaction\(s\), e\.g\. user 'w' with 0; drop"
    ):
        validate(ITEMS, raw, Policy(empty_histories="refuse"))


def test_null_titles():
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d", "e"],
            "title": ["A", None, " ", None, None],
            "text": ["A, a thing", None, "a caption", None, None],
            "attributes": [
                None,
                '{"brand": "OPI", "categories": ["Makeup", "Polish"]}',
                "{}",
                '{"color": "red"}',
                None,
            ],
        }
    )
    raw = events(*(("u", item, t) for t, item in enumerate("abcde")))
    dataset = validate(items, raw)
    assert dataset.items.select("title", "text").rows() == [
        ("A", "A, a thing"),
        ("OPI Polish", "OPI Polish"),
        ("a caption", "a caption"),
        ("red", "red"),
        (None, "Item e"),
    ]
    assert dataset.manifest["counts"]["fixed"] == {"titles_filled": 3, "texts_from_id": 1}
    dropped = validate(items, raw, Policy(null_titles="drop"))
    assert dropped.items["item_id"].to_list() == ["a"] and kept(dropped) == [("u", "a", 0)]
    # Their interactions are not those of unknown items, which this policy would refuse.
    assert dropped.manifest["rejected"] == {"items_without_title": 4, "interactions_of_items_without_title": 4}
    with pytest.raises(DataError, match=r"4 of 5 items have no title, e\.g\. item 'b'; .*null_titles=fill"):
        validate(items, raw, Policy(null_titles="refuse"))
    # A source that has no titles at all breaks no rule.
    assert validate(items.drop("title"), raw, Policy(null_titles="refuse")).items.height == 5


@pytest.mark.parametrize(
    ("attributes", "title"),
    [
        ({"brand": "OPI", "categories": ["Makeup", "Nails"]}, "OPI Nails"),
        ({"brand": "Unknown", "categories": ["Makeup", "Nails", " "]}, "Nails"),
        ({"brand": None, "category": "Books"}, "Books"),
        ({"brand": "OPI"}, "OPI"),
        ({"brand": "unknown", "note": "blue, large"}, "blue, large"),
        ({"brand": "Unknown", "price": 3}, None),
        ({}, None),
    ],
)
def test_title_from_attributes(attributes, title):
    assert title_from_attributes(attributes) == title


GOOD = events(("u", "p", 1))


@pytest.mark.parametrize(
    ("items", "raw", "message"),
    [
        (ITEMS.drop("item_id"), GOOD, r"the data, items: column 'item_id' is missing; it has domain, title"),
        (ITEMS.with_columns(price=1.0), GOOD, "unknown column 'price'; put it into attributes"),
        (pl.DataFrame({"item_id": ["p", None, ""]}), GOOD, "2 of 3 rows have no item_id"),
        (pl.DataFrame({"item_id": ["p", "q", "p", "p"]}), GOOD, r"1 item id\(s\) stand more than once, e\.g\. 'p'"),
        (pl.DataFrame({"item_id": [1.0]}), GOOD, "'item_id' should be text or whole numbers, is Float64"),
        (pl.DataFrame({"item_id": ["p"], "title": [["P"]]}), GOOD, r"'title' should be text .* is List"),
        (
            pl.DataFrame({"item_id": ["p", "q"], "domain": ["x", None]}),
            GOOD,
            r"1 item\(s\) have no domain, e\.g\. item 'q'",
        ),
        (pl.DataFrame({"item_id": ["p"], "attributes": ["[1]"]}), GOOD, r"not a JSON object, e\.g\. item 'p': '\[1\]'"),
        (
            pl.DataFrame({"item_id": ["p"], "title": [None], "attributes": ["{a}"]}),
            GOOD,
            "the attributes of item 'p' are not JSON",
        ),
        (ITEMS.clear(), GOOD, "not in the item table"),
        (ITEMS, GOOD.clear(), r"no interaction is left \(dropped: none, the source is empty\)"),
        (ITEMS, events(("u", None, 0)), r"no interaction is left \(dropped: users_with_empty_history 1\)"),
        (ITEMS, GOOD.drop("timestamp"), "interactions: column 'timestamp' is missing"),
        (ITEMS, GOOD.with_columns(watch=1), "unknown column 'watch'; .* is named signal_watch"),
        (ITEMS, GOOD.with_columns(signal_watch=pl.lit("long")), "signal 'signal_watch' should be numbers, is String"),
        (ITEMS, events((None, "p", 1), ("", "p", 1)), "2 of 2 rows have no user_id"),
        (ITEMS, events(("u", "p", None)), r"1 interaction\(s\) have no timestamp"),
        (ITEMS, GOOD.with_columns(timestamp=1.5), r"1 timestamp\(s\) are not whole numbers, e\.g\. 1\.5"),
        (ITEMS, GOOD.with_columns(timestamp=float("nan")), "are not whole numbers"),
        (ITEMS, GOOD.with_columns(timestamp=pl.lit("soon")), r"are not whole numbers, e\.g\. 'soon'; .* or dates"),
        (
            ITEMS,
            GOOD.with_columns(timestamp=pl.lit(2**63, pl.UInt64)),
            "are not whole numbers, e.g. 9223372036854775808",
        ),
        (ITEMS, GOOD.with_columns(timestamp=True), "column 'timestamp' should be whole numbers or dates, is Boolean"),
    ],
)
def test_what_is_refused_under_any_policy(items, raw, message):
    with pytest.raises(DataError, match=message):
        validate(items, raw)


@pytest.mark.parametrize(
    "times",
    [
        [0, 86400],
        ["0", "86400"],
        [0.0, 86400.0],
        [date(1970, 1, 1), date(1970, 1, 2)],
        [datetime(1970, 1, 1), datetime(1970, 1, 2)],
    ],
)
def test_times_become_seconds(times):
    raw = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["p", "q"], "timestamp": times})
    assert validate(ITEMS, raw).interactions["timestamp"].to_list() == [0, 86400]


rows = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from(["p", "q", "r", "z", None]), st.integers(0, 3)),
    min_size=1,
    max_size=20,
)


@settings(max_examples=120, deadline=None)
@given(rows, st.sampled_from(["drop", "keep"]), st.integers(1, 3))
def test_random_tables_against_plain_python(values, duplicates, min_interactions):
    policy = Policy(duplicates=duplicates, unknown_items="drop", min_interactions=min_interactions)
    users = list(dict.fromkeys(user for user, _, _ in values))
    known = [row for row in values if row[1] in ("p", "q", "r")]
    if duplicates == "drop":
        known = list(dict.fromkeys(known))
    expected = []
    for user in users:
        own = sorted((row for row in known if row[0] == user), key=lambda row: row[2])
        expected += own if len(own) >= min_interactions else []
    raw = events(*values)
    if not expected:
        with pytest.raises(DataError, match="no interaction is left"):
            validate(ITEMS, raw, policy)
        return
    dataset = validate(ITEMS, raw, policy)
    assert kept(dataset) == expected
    # Every row with an item is kept or counted as dropped; every user too.
    rejected = dataset.manifest["rejected"]
    reasons = ("interactions_of_unknown_items", "duplicate_interactions", "interactions_of_short_histories")
    found = dataset.manifest["counts"]["found"]
    assert found["interactions"] == len(expected) + sum(rejected.get(reason, 0) for reason in reasons)
    lost = rejected.get("users_with_empty_history", 0) + rejected.get("users_with_short_history", 0)
    assert found["users"] == len(users) == dataset.manifest["counts"]["users"] + lost


def test_policy_is_checked_and_its_help_names_every_field():
    with pytest.raises(ConfigError, match="min_interactions must be at least 1, got 0"):
        Policy(min_interactions=0)
    for field in fields(Policy):
        assert f"{field.name}={field.default}" in POLICY_HELP


def test_dataset_folder_round_trip(tmp_path):
    dataset = validate(ITEMS, GOOD)
    save_dataset(dataset, tmp_path / "d")
    loaded = load_dataset(tmp_path / "d")
    assert loaded.items.equals(dataset.items) and loaded.interactions.equals(dataset.interactions)
    assert loaded.manifest == dataset.manifest
    assert loaded.domains == ["x", "y"]


def test_a_malformed_dataset_folder_is_refused(tmp_path):
    folder = tmp_path / "d"
    with pytest.raises(DataError, match=r"is not a dataset folder: items\.parquet is missing; .*onereason data import"):
        load_dataset(folder)
    save_dataset(validate(ITEMS, GOOD), folder)
    pl.read_parquet(folder / "items.parquet").drop("text").write_parquet(folder / "items.parquet")
    with pytest.raises(DataError, match=r"items\.parquet: column 'text' is missing; it has item_id, domain"):
        load_dataset(folder)
    (folder / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"items\.parquet cannot be read as parquet"):
        load_dataset(folder)
