"""The tiny world with a teacher that thinks: it names an item of the history in words and as a pattern."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from data_builders.think_rows import RecommendationRows
from onereason.io import write_jsonl
from onereason.model.extend import extend_model
from onereason.model.folder import load_model_folder, save_model_folder
from onereason.model.tiny import BASE_TEXTS, build_tiny_model, build_tiny_tokenizer
from tests.recipes.conftest import overrides, run_in_process
from tests.recipes.tiny_world import HISTORY, NUM_ITEMS, NUM_USERS, catalog, write_world


def histories() -> list[np.ndarray]:
    """The tiny world's timelines, item indices."""
    rng = np.random.default_rng(1)
    return [rng.permutation(NUM_ITEMS)[:HISTORY] for _ in range(NUM_USERS)]


def write_rft_world(root: Path) -> None:
    """`root/data`, `root/base/model` and two teachers, `root/ours/model` and `root/theirs/model`."""
    write_world(root)
    shutil.rmtree(root / "model")
    items = catalog()
    rng = np.random.default_rng(2)
    make = RecommendationRows("r3", items.format)
    rows = []
    for user, history in enumerate(histories()):
        for place in range(1, HISTORY - 2):
            for copy in range(3):
                cited = int(rng.choice(history[:place]))
                target = int(history[place] if copy else rng.integers(NUM_ITEMS))
                trace = f"{items.captions[cited]} {items.render(cited)}"
                shown = "".join(items.render(i) for i in history[:place])
                said = (f"u{user}", shown, items.domains[target], items.render(target))
                rows += [make.row(f"{user}:{place}:{copy}:{bool(t)}", *said, t, "x") for t in (trace, None)]
    words = [message["content"] for row in rows[:60] for message in row["messages"]]
    tokenizer = build_tiny_tokenizer([*items.captions, *BASE_TEXTS * 4, *words], vocab_size=700)
    torch.manual_seed(0)
    model = build_tiny_model(tokenizer, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, tie=True, seed=0)
    model, tokenizer, vocabulary = extend_model(model, tokenizer, items.format, init="mean_noise", seed=0)
    save_model_folder(model, tokenizer, vocabulary, items, root / "base" / "model", {"kind": "test"})
    (root / "taught").mkdir()
    write_jsonl(root / "taught" / "rows.jsonl", rows)
    changes = {"model": root / "base" / "model", "data.passes": 50.0, "data.max_length": 512}
    changes |= {"training.max_steps": 200, "training.per_device_train_batch_size": 16}
    arguments = [a for a in overrides("sft", root, root / "ours", **changes) if not a.startswith(("data.c", "data.s"))]
    run_in_process("sft", [*arguments, f"data.corpora.taught={root / 'taught'}", "data.shares.taught=1.0"])
    folder = load_model_folder(root / "ours" / "model")
    torch.manual_seed(3)
    with torch.no_grad():
        for value in folder.model.parameters():
            value.add_(torch.randn_like(value), alpha=0.01)
    theirs = root / "theirs" / "model"
    save_model_folder(folder.model, folder.tokenizer, folder.vocabulary, items, theirs, {"kind": "test"})
