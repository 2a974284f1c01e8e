"""Raw Amazon 2014 files as published: JSON reviews, metadata as Python literals, gz or plain, k-core by brute force."""

from __future__ import annotations

import gzip
import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.data.readers import import_dataset
from onereason.data.readers.amazon2014 import filter_k_core
from onereason.data.validate import Policy
from onereason.errors import ConfigError, DataError


def review(user: str, asin: str, time: int, rating: float = 5.0) -> str:
    return json.dumps({"reviewerID": user, "asin": asin, "overall": rating, "unixReviewTime": time, "summary": "ok"})


REVIEWS = (
    review("U2", "B1", 200, 4.0),
    review("U1", "B1", 300),
    review("U1", "B2", 100, 1.0),
    review("U2", "B2", 200),
    review("U3", "B3", 50),  # alone: falls out of the 2-core, and B3 with it
)
METADATA = (
    "{'asin': 'B1', 'title': \"Tom's &amp; Co Soap\", 'brand': 'Tom', 'price': 3.5, "
    "'categories': [['Beauty', 'Bath'], ['Beauty', 'Gifts']], 'description': 'A \\'good\\' soap', 'imUrl': 'http://x'}",
    '{"asin": "B2", "categories": [["Beauty", "Hair"]], "brand": "Unknown"}',
    "{'title': 'key in another place', 'asin': 'B3'}",
    "{'asin': 'B9', 'title': never read}",
)


def write(folder, reviews=REVIEWS, metadata=METADATA, zipped=True):
    for name, lines in (("reviews_Beauty.json", reviews), ("meta_Beauty.json", metadata)):
        content = "\n".join(lines).encode() + b"\n"
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


@pytest.mark.parametrize("zipped", [True, False])
def test_reviews_and_metadata_by_hand(tmp_path, zipped):
    dataset = import_dataset("amazon2014", write(tmp_path, zipped=zipped), domain="prod", k_core=2)
    assert dataset.items.rows() == [
        (
            "B1",
            "prod",
            "Tom's & Co Soap",
            "Tom's & Co Soap. Category: Beauty, Bath, Gifts.",
            '{"brand": "Tom", "categories": ["Beauty", "Bath", "Gifts"], "price": 3.5, '
            '"description": "A \'good\' soap"}',
        ),
        ("B2", "prod", "Hair", "Category: Beauty, Hair.", '{"brand": "Unknown", "categories": ["Beauty", "Hair"]}'),
    ]
    assert dataset.interactions.rows() == [
        ("U2", "B1", 200, "review", "prod", 4.0),
        ("U2", "B2", 200, "review", "prod", 5.0),
        ("U1", "B2", 100, "review", "prod", 1.0),
        ("U1", "B1", 300, "review", "prod", 5.0),
    ]
    assert dataset.manifest["counts"]["found"] == {"items": 3, "interactions": 5, "users": 3}
    assert dataset.manifest["rejected"] == {"k_core_items": 1, "k_core_users": 1, "k_core_interactions": 1}
    assert dataset.manifest["counts"]["fixed"] == {
        "titles_filled": 1,
        "interactions_sorted_in_time": 1,
        "users_sorted_in_time": 1,
    }


def test_no_k_core_keeps_all(tmp_path):
    files = sorted(write(tmp_path).iterdir())
    dataset = import_dataset("amazon2014", files, k_core=0)
    assert dataset.items["item_id"].to_list() == ["B1", "B2", "B3"]
    assert dataset.items["title"].to_list() == ["Tom's & Co Soap", "Hair", "key in another place"]
    assert dataset.manifest["rejected"] == {}


def test_items_without_metadata_are_unknown(tmp_path):
    write(tmp_path, metadata=METADATA[:2])
    with pytest.raises(DataError, match=r"e\.g\. user 'U3' with item 'B3'"):
        import_dataset("amazon2014", tmp_path, k_core=1)
    dataset = import_dataset("amazon2014", tmp_path, Policy(unknown_items="drop"), k_core=1)
    assert dataset.manifest["rejected"] == {"interactions_of_unknown_items": 1, "users_with_empty_history": 1}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"reviews": (*REVIEWS, "{'asin': 'B1'}")}, r"reviews .*reviews_Beauty\.json\.gz, line 6: not valid JSON"),
        ({"reviews": ('{"reviewerID": "U", "asin": "B1"}',)}, r"line 1: 'unixReviewTime' is missing"),
        (
            {"reviews": ('{"reviewerID": "U", "asin": "B1", "unixReviewTime": "1"}',)},
            r"line 1: 'unixReviewTime' should be int, is str '1'",
        ),
        ({"metadata": (METADATA[0], "{'asin': 'B2', 'title': bad}")}, r"metadata .*, line 2: neither JSON"),
        ({"metadata": ("{'title': 'no id'}",)}, r"metadata .*, line 1: 'asin' is missing"),
        (
            {"metadata": ("{'asin': 'B1', 'categories': ['Beauty']}",)},
            r"line 1: 'categories' should be a list of lists",
        ),
    ],
)
def test_malformed_lines_are_named(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        import_dataset("amazon2014", write(tmp_path, **files), k_core=1)


def test_missing_files_and_wrong_options_are_named(tmp_path):
    with pytest.raises(
        DataError, match=r"reviews: expected one file reviews\*\.json or .*found 0 \(there is no file\)"
    ):
        import_dataset("amazon2014", tmp_path)
    write(tmp_path)
    with pytest.raises(ConfigError, match="k_core must be at least 0, got -1"):
        import_dataset("amazon2014", tmp_path, k_core=-1)
    with pytest.raises(DataError, match="no user and item have 5 reviews each; lower k_core"):
        import_dataset("amazon2014", tmp_path)


def test_numbers_out_of_range_and_an_empty_file_are_named(tmp_path):
    write(tmp_path, zipped=False)
    reviews = next(p for p in tmp_path.iterdir() if p.name.startswith("reviews"))
    for line in (review("U", "B1", 10**30), review("U", "B1", 1, 10**400)):
        reviews.write_text(line)
        with pytest.raises(DataError, match=r"line 1: unixReviewTime .* is out of range"):
            import_dataset("amazon2014", tmp_path)
    reviews.write_text('{"overall": ' + "1" * 5000 + "}")
    with pytest.raises(DataError, match="line 1: not valid JSON"):
        import_dataset("amazon2014", tmp_path)
    reviews.write_text("")
    with pytest.raises(DataError, match="the file holds no review"):
        import_dataset("amazon2014", tmp_path)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("uvwx"), st.sampled_from("pqrs"), st.integers(0, 2)), max_size=30),
    st.integers(0, 4),
)
def test_k_core_equals_removing_one_at_a_time(rows, k):
    """The k-core is unique: taking out any one failing user or item at a time ends at the same rows."""
    expected = list(rows)
    while k > 1:
        distinct = set(expected)
        failing = next(
            ((c, v) for c in (0, 1) for v in {r[c] for r in distinct} if sum(r[c] == v for r in distinct) < k), None
        )
        if failing is None:
            break
        column, value = failing
        expected = [r for r in expected if r[column] != value]
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    assert filter_k_core(pl.DataFrame(rows, schema=schema, orient="row"), k).rows() == expected
