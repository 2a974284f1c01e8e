"""The simulated world against its own truth, recomputed here step by step from the written files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, check_columns, load_dataset
from onereason.data.simulate import WorldConfig, measure_learnability, simulate_world, write_world
from onereason.data.simulate.users import live_interest
from onereason.data.simulate.write import World
from onereason.data.timelines import build_timelines, split_leave_one_out

DOMAINS = {
    "video": {"play", "like"},
    "prod": {"click", "buy"},
    "ad": {"click", "convert"},
    "living": {"watch", "follow"},
}


@pytest.fixture(scope="module")
def world() -> World:
    return simulate_world(WorldConfig(users=300, items=800, seed=5, chain_length=4, shared_device_share=0.3))


@pytest.fixture(scope="module")
def folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "w"
    write_world(world, out)
    return out


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_world(simulate_world(WorldConfig(users=40, items=400, seed=seed)), tmp_path / name)
    a, b, c = (read_bytes(tmp_path / n) for n in "abc")
    assert a == b
    assert sorted(a) == [
        "interactions.parquet",
        "items.parquet",
        "manifest.json",
        "truth/chains.parquet",
        "truth/interactions.parquet",
        "truth/item_relations.parquet",
        "truth/items.parquet",
        "truth/users.parquet",
        "truth/world.json",
    ]
    assert all(a[name] != c[name] for name in a)


def test_written_dataset_follows_the_schema_and_splits(world: World, folder: Path) -> None:
    dataset = load_dataset(folder)
    check_columns(dataset.items, ITEM_SCHEMA, "items")
    check_columns(dataset.interactions, INTERACTION_SCHEMA, "interactions")
    assert dataset.items.height == 800 and dataset.items["item_id"].n_unique() == 800
    assert dataset.items["item_id"].is_sorted()
    assert set(dataset.domains) == set(DOMAINS)
    assert dataset.interactions.equals(dataset.interactions.sort("user_id", "timestamp", maintain_order=True))
    gaps = dataset.interactions.select(pl.col("timestamp").diff().over("user_id").alias("gap"))["gap"].drop_nulls()
    assert gaps.min() > 0
    assert dataset.interactions["timestamp"].min() >= 1735689600  # 2025-01-01 00:00 UTC
    joined = dataset.interactions.join(dataset.items, on="item_id", how="left")
    assert (joined["domain"] == joined["domain_right"]).all()
    for domain, actions in DOMAINS.items():
        assert set(dataset.interactions.filter(domain=domain)["action"]) == actions
    signals = [c for c in dataset.interactions.columns if c.startswith("signal_")]
    assert len(signals) == 8 and all(dataset.interactions.schema[c] == pl.Float32 for c in signals)
    assert dataset.manifest["counts"]["interactions"] == dataset.interactions.height
    assert dataset.manifest["config"]["chain_length"] == 4

    index = {item: i for i, item in enumerate(dataset.items["item_id"])}
    split = split_leave_one_out(build_timelines(dataset.interactions, index))
    assert len(split.test) == 300
    ids = dataset.items["item_id"].to_list()
    assert [ids[t[0]] for t in split.test.targets] == world.truth["users"]["test_item_id"].to_list()
    assert [ids[t[0]] for t in split.validation.targets] == world.truth["users"]["validation_item_id"].to_list()


def test_signals_are_null_exactly_where_a_domain_does_not_log_them(world: World) -> None:
    logged = {
        "signal_watch_seconds": {"video", "living"},
        "signal_duration_seconds": {"video", "living"},
        "signal_play_done": {"video"},
        "signal_like": {"video"},
        "signal_follow": {"living"},
        "signal_buy": {"prod"},
        "signal_convert": {"ad"},
    }
    table = world.dataset.interactions
    for column, domains in logged.items():
        assert (table[column].is_not_null() == table["domain"].is_in(list(domains))).all(), column
    assert (table["signal_rating"].is_not_null() == (table["action"] == "buy")).all()
    assert set(table["signal_rating"].drop_nulls()) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    timed = table.filter(pl.col("signal_watch_seconds").is_not_null())
    assert (timed["signal_watch_seconds"] <= timed["signal_duration_seconds"]).all()


def test_truth_is_aligned_with_the_interactions(world: World, folder: Path) -> None:
    data = pl.read_parquet(folder / "interactions.parquet")
    truth = pl.read_parquet(folder / "truth" / "interactions.parquet")
    for column in ("user_id", "item_id", "timestamp", "domain"):
        assert (data[column] == truth[column]).all()
    assert (truth["position"] == pl.int_range(data.height, eager=True) - _first_row(truth)).all()
    items = pl.read_parquet(folder / "truth" / "items.parquet")
    assert (items["item_id"] == world.dataset.items["item_id"]).all()
    joined = truth.join(items, on="item_id", how="left", suffix="_item")
    for column in ("domain", "topic", "subject", "facet"):
        assert (joined[column] == joined[f"{column}_item"]).all()


def _first_row(truth: pl.DataFrame) -> pl.Series:
    return truth.with_row_index("row").select(pl.col("row").first().over("user_id").cast(pl.Int64))["row"]


def _recompute(folder: Path):
    """Each event with what follows from the history before it: (row, live, count, cue, relations, path, evidence).

    Plain Python over the written files: the rule of `truth/world.json`, no code of the simulator.
    """
    world = json.loads((folder / "truth" / "world.json").read_text())
    rule, interest = world["rule"], {d: {s: t for t, s in m.items()} for d, m in world["express"].items()}
    items = {r["item_id"]: r for r in pl.read_parquet(folder / "truth" / "items.parquet").iter_rows(named=True)}
    captions = dict(pl.read_parquet(folder / "items.parquet").select("item_id", "attributes").iter_rows())
    histories: dict[tuple[str, int], list[tuple[int, str, str]]] = {}
    for row in pl.read_parquet(folder / "truth" / "interactions.parquet").iter_rows(named=True):
        history = histories.setdefault((row["user_id"], row["person"]), [])
        window = history[-rule["window"] :]
        live, count, cue, relations, path, evidence = None, 0, None, [], [], []
        if window:
            counts = Counter(topic for _, topic, _ in window)
            live = max(reversed([t for _, t, _ in window]), key=lambda t: counts[t])  # most recent among equals
            count, cue = counts[live], history[-1][2]
            evidence = [p for p, t, _ in window if t == live]
            plan, facets, path = world["personas"][row["persona"]]["plan"], world["facets"], [live]
            for step in range(rule["num_moves"]):
                relations.append(plan[facets[(facets.index(cue) + step) % 3]])
                path.append(world["relations"][relations[-1]][path[-1]])
        yield world, row, live, count, cue, relations, path, evidence
        subject = json.loads(captions[row["item_id"]])["category"]
        history.append((row["position"], interest[row["domain"]][subject], items[row["item_id"]]["facet"]))


def test_every_move_follows_from_the_history(folder: Path) -> None:
    num_moved = 0
    last = {"neighbour": "widen", "complement": "echo", "successor": "saturate"}
    for world, row, live, count, cue, relations, path, evidence in _recompute(folder):
        assert (row["live_topic"], row["live_count"], row["cue_facet"]) == (live, count, cue)
        assert row["evidence"] == evidence
        if not row["moved"]:
            assert row["relations"] == [] and row["path"] == []
            assert row["kind"] in ("stay", "trigger", "narrow", "noise")
            if row["kind"] == "narrow":
                assert row["facet"] == cue
            assert row["cause_topic"] == (None if row["kind"] == "noise" else row["topic"])
            continue
        num_moved += 1
        assert count >= world["rule"]["saturation"]
        assert len(path) == 3  # chain length 4: live, two moves
        assert (row["relations"], row["path"], row["topic"]) == (relations, path, path[-1])
        assert row["subject"] == world["express"][row["domain"]][path[-1]]
        assert row["cause_topic"] == live
        assert row["kind"] == last[relations[-1]]
    total = pl.read_parquet(folder / "interactions.parquet").height
    assert 0.4 <= num_moved / total <= 0.6


def test_the_last_two_events_of_everyone_are_moves_of_one_person(folder: Path) -> None:
    truth = pl.read_parquet(folder / "truth" / "interactions.parquet")
    users = pl.read_parquet(folder / "truth" / "users.parquet")
    ends = truth.group_by("user_id", maintain_order=True).tail(2)
    assert ends["moved"].all()
    assert ends.group_by("user_id").agg(pl.col("person").n_unique())["person"].max() == 1
    for split, back in (("validation", 0), ("test", 1)):
        rows = ends.group_by("user_id", maintain_order=True).agg(pl.all().gather(back).first())
        for column in ("live_topic", "relations", "path", "domain", "subject", "evidence", "persona", "cue_facet"):
            assert rows[column].to_list() == users[f"{split}_{column}"].to_list()


def test_tables_are_permutations_and_express_is_not_the_identity_everywhere(world: World) -> None:
    tables, topics = world.tables, world.config.topics
    for table in (*tables.relations, *tables.express):
        assert sorted(table) == list(range(topics))
    everything = np.vstack([np.arange(topics), tables.relations])
    assert all(len(set(column)) == 4 for column in everything.T)  # each relation leads somewhere else
    identical = (tables.express == np.arange(topics)).all(axis=1)
    assert identical.tolist() == [True, False, False, True]  # video, prod, ad, living
    assert not (tables.express[1:3] == np.arange(topics)).any()
    assert len({tuple(p) for p in tables.plans}) == len(tables.plans)  # every persona moves in its own way


def test_noise_rate_is_the_knob() -> None:
    for noise in (0.0, 0.15, 0.3):
        config = WorldConfig(users=500, items=400, seed=1, noise=noise, min_length=12)
        truth = simulate_world(config).truth["interactions"]
        # Timelines end with two moves, a choice that favours events without noise; before the shortest aim every
        # event is an independent draw. 500 x 10 events, five standard deviations.
        early = truth.filter(pl.col("position") < 10)
        rate = (early["kind"] == "noise").mean()
        assert early.height == 5000
        assert abs(rate - noise) <= 5 * (noise * (1 - noise) / 5000) ** 0.5


def test_shared_devices(world: World) -> None:
    users, truth = world.truth["users"], world.truth["interactions"]
    # 300 draws at 0.3: mean 90, standard deviation 7.9.
    assert 50 <= users["shared_device"].sum() <= 130
    assert (users["personas"].list.len() == 1 + users["shared_device"].cast(pl.Int64)).all()
    assert all(len(set(p)) == len(p) for p in users["personas"])
    acting = truth.group_by("user_id", maintain_order=True).agg(pl.col("person").n_unique())["person"]
    assert (acting <= 1 + users["shared_device"].cast(pl.Int64)).all()
    assert ((acting == 2) & users["shared_device"]).sum() > 0.8 * users["shared_device"].sum()
    everyone = simulate_world(WorldConfig(users=50, items=400, shared_device_share=0.0)).truth["users"]
    assert not everyone["shared_device"].any()


def test_persona_shows_in_the_style_of_items(world: World) -> None:
    styles = {name: persona["style"] for name, persona in world.description["personas"].items()}
    joined = world.truth["interactions"].join(world.truth["items"].select("item_id", "style"), on="item_id")
    chosen = joined.filter(pl.col("kind") != "noise")
    own = np.mean([styles[p] == s for p, s in chosen.select("persona", "style").iter_rows()])
    noise = joined.filter(pl.col("kind") == "noise")
    other = np.mean([styles[p] == s for p, s in noise.select("persona", "style").iter_rows()])
    assert own > 0.3 and 0.1 < other < 0.25  # one style in six by chance


def test_item_relations_and_chains(world: World) -> None:
    items = {r["item_id"]: r for r in world.truth["items"].iter_rows(named=True)}
    relations = world.description["relations"]
    kinds = Counter()
    for source, kind, target in world.truth["item_relations"].iter_rows():
        a, b = items[source], items[target]
        kinds[kind] += 1
        if kind == "substitute":
            assert (a["domain"], a["subject"], a["facet"]) == (b["domain"], b["subject"], b["facet"]) and a != b
        elif kind == "echo":
            assert a["topic"] == b["topic"] and a["domain"] != b["domain"]
        else:
            assert b["topic"] == relations[kind][a["topic"]]
    assert kinds["neighbour"] == kinds["complement"] == kinds["successor"] == kinds["echo"] == 800
    truth = {(r["user_id"], r["position"]): r for r in world.truth["interactions"].iter_rows(named=True)}
    covered = 0
    for chain in world.truth["chains"].iter_rows(named=True):
        topics = [truth[chain["user_id"], p]["topic"] for p in chain["positions"]]
        assert chain["positions"] == sorted(chain["positions"])
        assert chain["path"] == list(dict.fromkeys(topics)) and chain["topic"] == topics[0]
        covered += len(topics)
    assert covered == sum(r["kind"] != "noise" for r in truth.values())


def test_captions_say_subject_facet_and_style(world: World) -> None:
    description = world.description
    text = dict(world.dataset.items.select("item_id", "text").iter_rows())
    assert world.dataset.items["text"].n_unique() > 0.95 * 800
    from onereason.data.simulate.names import STYLE_WORDS

    for row in world.truth["items"].iter_rows(named=True):
        words = text[row["item_id"]].lower()
        assert row["subject"] in words
        assert any(p in words for p in description["topics"][row["subject"]]["facets"][row["facet"]])
        assert any(w in words for w in STYLE_WORDS[row["style"]])


def test_live_interest_counts_and_breaks_ties_by_recency() -> None:
    window = np.array(
        [
            [-1, -1, -1, -1],  # no evidence
            [-1, 4, 4, 2],  # 4 twice
            [4, 2, 4, 2],  # a tie: 2 is more recent
            [1, 2, 3, 5],  # all once: the most recent
        ]
    )
    live, count = live_interest(window)
    assert live.tolist() == [-1, 4, 2, 5]
    assert count.tolist() == [0, 2, 2, 1]


def test_learnability_has_its_shape() -> None:
    found = measure_learnability(simulate_world(WorldConfig(users=600, items=1000, seed=2)))
    assert found["popularity"] < 0.15
    assert found["markov"] > found["popularity"]
    assert found["oracle"] > 3 * found["markov"]
    for step in ("oracle_without_persona", "oracle_without_move", "oracle_without_carry", "oracle_last_topic"):
        assert found[step] < 0.7 * found["oracle"], step
