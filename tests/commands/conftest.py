"""A complete small world on disk for the verbs that read a model folder: two domains, collisions, a random Qwen3."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from onereason.data.schema import Dataset, save_dataset
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ItemicFormat, Marker
from onereason.itemic.vocabulary import ItemicVocabulary

WORLD_FORMAT = ItemicFormat(
    "world",
    (4, 4, 4),
    "<s_{level}_{code}>",
    {"video": Marker("<|video_begin|>", "<|video_end|>"), "prod": Marker("<|prod_begin|>", "<|prod_end|>")},
)


@dataclass(frozen=True)
class World:
    """Where the folders are, and what is in them."""

    data: Path
    model: Path
    sequences: dict[str, list[str]]
    catalog: Catalog
    vocabulary: ItemicVocabulary


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(7)
    items = [f"i{n:02d}" for n in range(24)]
    domains = ["video" if n % 3 else "prod" for n in range(24)]
    codes = rng.integers(0, 3, (24, 3))
    codes[4] = codes[1]  # i01 and i04 (both video) share a sid
    sequences = {f"u{n:02d}": rng.choice(items, size=int(rng.integers(3, 9))).tolist() for n in range(30)}
    sequences["short"] = ["i01", "i02"]  # too short for leave-one-out

    rows = [(user, item, time) for user, seq in sequences.items() for time, item in enumerate(seq)]
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").with_columns(
        action=pl.lit("click"), domain=pl.col("item_id").replace_strict(dict(zip(items, domains, strict=True)))
    )
    table = pl.DataFrame({"item_id": items, "domain": domains}).with_columns(
        title=pl.lit("t"), text=pl.lit("text"), attributes=pl.lit("{}")
    )
    save_dataset(Dataset(table, interactions, {}), folder / "data")

    train_items = [i for seq in sequences.values() for i in (seq[:-2] if len(seq) > 2 else seq)]
    popularity = np.array([train_items.count(i) for i in items])
    captions = [f"caption of {i} [bold]" for i in items]
    catalog = Catalog(WORLD_FORMAT, items, codes, domains, captions, popularity)
    vocabulary = write_model_folder(folder / "model", catalog)
    return World(folder / "data", folder / "model", sequences, catalog, vocabulary)


def write_model_folder(folder: Path, catalog: Catalog) -> ItemicVocabulary:
    """A random Qwen3 of 2 layers whose tokenizer knows the catalog's format."""
    from onereason.model.extend import extend_model
    from onereason.model.folder import save_model_folder
    from onereason.model.tiny import build_tiny_model, build_tiny_tokenizer

    tokenizer = build_tiny_tokenizer(catalog.captions, vocab_size=300)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = build_tiny_model(tokenizer, **sizes, initializer_range=0.4)  # wide enough that scores differ clearly
    model, tokenizer, vocabulary = extend_model(model, tokenizer, catalog.format, init="copy_default")
    save_model_folder(model, tokenizer, vocabulary, catalog, folder, {"kind": "test"})
    return vocabulary
