"""A tiny model folder and corpora for the recipes' tests, made in process: 24 items, 2 levels x 8 codes, 12 users."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import torch

from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, Dataset, save_dataset
from onereason.io import write_jsonl
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format
from onereason.model.extend import extend_model
from onereason.model.folder import save_model_folder
from onereason.model.tiny import build_tiny_model, build_tiny_tokenizer

CAPTIONS = ["red apple pie", "green tea set", "blue trail shoe", "warm wool hat", "quiet desk fan", "small garden lamp"]
NUM_ITEMS, NUM_USERS, HISTORY = 24, 12, 7


def catalog() -> Catalog:
    rng = np.random.default_rng(0)
    cells = rng.permutation(64)[:NUM_ITEMS]
    return Catalog(
        load_format("onereason", 2, 8),
        [f"i{n}" for n in range(NUM_ITEMS)],
        np.stack([cells // 8, cells % 8], 1),
        ["video" if n % 2 else "prod" for n in range(NUM_ITEMS)],
        [f"{CAPTIONS[n % len(CAPTIONS)]} {n}" for n in range(NUM_ITEMS)],
    )


def decisions(items: Catalog, histories: list[np.ndarray]) -> list[dict]:
    """What comes next, once with a trace and once without, from known[:-1] to known[-1]."""
    rows = []
    for user, history in enumerate(histories):
        *before, target = history[:-2]
        question = f"{''.join(items.render(i) for i in before)}\nWhich comes next?"
        trace = f"The user likes {items.captions[before[-1]]}."
        common = {"loss": "assistant", "domain": items.domains[target], "user": f"u{user}", "teacher": "template"}
        for mode, answer in (("no_think", ""), ("think", f"<think>\n{trace}\n</think>\n\n")):
            messages = [
                {"role": "user", "content": f"{question} /{mode}"},
                {"role": "assistant", "content": answer + items.render(target)},
            ]
            rows.append({"id": f"d{user}:{mode}", "task": "r3", "mode": mode, "messages": messages, **common})
    return rows


def balance(rows: list[dict]) -> list[dict]:
    """The same texts without loss."""
    return [row | {"id": f"b{row['id']}", "task": "balance", "loss": "none"} for row in rows]


def write_world(root: Path, tie: bool = True) -> None:
    """`root/model`, `root/data`, and the corpora `persona`, `sequential`, `caption`, `decision` and `balance`."""
    items = catalog()
    rng = np.random.default_rng(1)
    histories = [rng.permutation(NUM_ITEMS)[:HISTORY] for _ in range(NUM_USERS)]
    item_table = pl.DataFrame(
        {
            "item_id": items.item_ids,
            "domain": items.domains,
            "title": items.captions,
            "text": items.captions,
            "attributes": ["{}"] * NUM_ITEMS,
        },
        schema=ITEM_SCHEMA,
    )
    rows = [
        (f"u{u}", items.item_ids[i], t, "click", items.domains[i])
        for u, h in enumerate(histories)
        for t, i in enumerate(h)
    ]
    save_dataset(Dataset(item_table, pl.DataFrame(rows, schema=INTERACTION_SCHEMA, orient="row")), root / "data")

    sequential, persona = [], []
    for user, history in enumerate(histories):
        known = history[:-2]
        patterns = [items.render(i) for i in known]
        sequential.append(
            {
                "id": f"s{user}",
                "task": "sequential",
                "loss": "next_items",
                "mode": "no_think",
                "text": "".join(patterns),
            }
        )
        told = " ".join(f"liked {p}, captioned {items.captions[i]}." for i, p in zip(known, patterns, strict=True))
        persona.append({"id": f"p{user}", "task": "persona", "loss": "all", "mode": "no_think", "text": told})
    caption = [
        {
            "id": f"c{n}",
            "task": "caption",
            "loss": "assistant",
            "mode": "no_think",
            "messages": [
                {"role": "user", "content": f"Describe {items.render(n)} /no_think"},
                {"role": "assistant", "content": items.captions[n]},
            ],
        }
        for n in range(NUM_ITEMS)
    ]
    corpora = {"sequential": sequential, "persona": persona, "caption": caption}
    corpora |= {"decision": decisions(items, histories), "balance": balance(persona)}
    for name, corpus in corpora.items():
        (root / name).mkdir(parents=True)
        write_jsonl(root / name / "rows.jsonl", corpus)

    texts = [json.dumps(r.get("text") or r["messages"]) for r in persona + caption]
    tokenizer = build_tiny_tokenizer(texts, vocab_size=320)
    torch.manual_seed(0)
    model = build_tiny_model(tokenizer, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, tie=tie, seed=0)
    model, tokenizer, vocabulary = extend_model(model, tokenizer, items.format, init="mean_noise", seed=0)
    save_model_folder(model, tokenizer, vocabulary, items, root / "model", {"kind": "test"})
