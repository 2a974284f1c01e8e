"""What becomes of kept rollouts: a corpus of verified hits, and pairs of a hit and a miss."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from data_builders.cards import CARD_FILE, REJECTED_FILE, ROWS_FILE, Row, Tally, no_row_left, render_card
from data_builders.formats import FORMAT_KEY
from data_builders.rft_selection import HitTable, Limits, difficulty_bin, select_hits
from data_builders.shards import Reject, hash_id
from data_builders.think_rows import think_answer
from onereason.errors import DataError
from onereason.io import (
    MANIFEST_NAME,
    atomic_dir,
    build_manifest,
    iter_jsonl,
    read_json,
    to_json_line,
    write_json,
    write_text,
)

PAIRS_FILE, PAIRS_KIND = "pairs.jsonl", "preference_pairs"

CARD = """
Which item comes next, answered as specialists answered it where they were right: rejection sampling. A row that thinks
holds a trace that a specialist sampled and an item of the user's positive set that it found behind it; a row that
answers at once holds such an item found without a trace. The loss falls on the trace and the answer.

The trace closed by itself, cites items that exist, and does not give the answer away; nearly equal traces of one prompt
stand here once. `difficulty` is the share of a prompt's traces that missed (at once: the share of items that the
specialist found likelier than the right one). `asked`, `hit` and `traces` count prompts, prompts with a verified hit
and traces by mode and domain; `bin` counts rows by mode and bin of difficulty, 0 the easiest.

Only the training part of the split is read.
"""

PAIRS_CARD = """
A verified hit against a miss of the same prompt, as TRL's `DPOTrainer` reads them (`prompt`, `chosen`, `rejected`, all
conversations). Both hold a trace in a think block and an item; both passed the same checks and differ in whether the
item is right. No trace stands in two pairs.
"""


def is_made_of(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether a finished folder holds what `manifest` describes: kind, inputs, seed and configuration."""
    path = folder / MANIFEST_NAME
    return path.is_file() and not _differences(read_json(path, "manifest"), manifest)


def describe_difference(folder: Path, manifest: Mapping[str, Any]) -> str:
    """The settings and inputs in which a finished folder differs from `manifest`, e.g. `num_traces, inputs`."""
    return ", ".join(_differences(read_json(folder / MANIFEST_NAME, "manifest"), manifest))


def _differences(found: Any, wanted: Mapping[str, Any]) -> list[str]:
    if not isinstance(found, dict):
        return ["kind"]
    keys = [key for key in ("kind", "inputs", "seed") if found.get(key) != wanted[key]]
    config = found.get("config") or {}
    return keys + sorted(n for n in {*config, *wanted["config"]} if config.get(n) != wanted["config"].get(n))


def make_manifest(kind: str, rollouts: Path, own: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of something made of kept rollouts: theirs, and the settings `own` on top."""
    source = read_json(rollouts / MANIFEST_NAME, "manifest of rollouts")
    made = build_manifest(kind, inputs=[rollouts / ROWS_FILE], config={**source["config"], **own}, seed=source["seed"])
    return {**made, "inputs": source["inputs"] | made["inputs"], FORMAT_KEY: source[FORMAT_KEY]}


# -- the corpus -----------------------------------------------------------------------------------------------------


def write_corpus(
    rollouts: Path, out: Path, overwrite: bool, manifest: Mapping[str, Any], limits: Limits
) -> dict[str, Any]:
    """Writes the rows that `limits` leave of the verified hits; returns the manifest with its counts.

    Raises:
        DataError: no row is left.
    """
    source = read_json(rollouts / MANIFEST_NAME, "manifest of rollouts")
    reasons = iter(select_hits(read_hits(rollouts, manifest["seed"]), limits))
    tally = Tally(Counter(_of_prompts(source["counts"])), Counter(source["rejected"]))
    tally.rejected_examples = dict(source.get("rejected_examples", {}))
    with atomic_dir(out, overwrite) as folder:
        if (rollouts / REJECTED_FILE).is_file():
            shutil.copyfile(rollouts / REJECTED_FILE, folder / REJECTED_FILE)
        with (folder / ROWS_FILE).open("wb") as kept, (folder / REJECTED_FILE).open("ab") as left_out:
            for prompt, rollout in _iter_hits(rollouts):
                row, reason = _make_row(prompt, rollout), next(reasons)
                if reason:
                    reject = Reject(row["id"], reason, f"difficulty {row['difficulty']:.3g}")
                    tally.reject([(reject.id, reject.reason, reject.detail)])
                    left_out.write(to_json_line(asdict(reject)))
                    continue
                tally.add([row])
                number = int(difficulty_bin(row["difficulty"], limits.difficulty_bins))
                tally.counts[f"bin_{row['mode']}_{number}"] += 1
                kept.write(to_json_line(row))
        if not tally.counts["rows"]:
            raise no_row_left(out, tally.rejected)
        if not tally.rejected:
            (folder / REJECTED_FILE).unlink()
        finished = {**manifest, **tally.to_manifest()}
        write_json(folder / MANIFEST_NAME, finished)
        card = render_card("Verified hits of specialists", CARD, finished, *tally.first_rows.values())
        write_text(folder / CARD_FILE, card)
    return finished


def _of_prompts(counts: Mapping[str, int]) -> dict[str, int]:
    """What is counted of prompts and traces; counts of rows are those of prompts with a hit, and stay behind."""
    return {n: c for n, c in counts.items() if n.partition("_")[0] in ("asked", "hit", "traces", "generated")}


def read_hits(rollouts: Path, seed: int) -> HitTable:
    """A few numbers of every verified hit, in the order of the file."""
    domains: dict[str, int] = {}
    thinks, domain, difficulty, place, keys = [], [], [], [], []
    before, count = "", 0
    for prompt, rollout in _iter_hits(rollouts):
        count = count + 1 if prompt["id"] == before else 0
        before = prompt["id"]
        thinks.append(prompt["mode"] == "think")
        domain.append(domains.setdefault(prompt["domain"], len(domains)))
        difficulty.append(prompt["difficulty"])
        place.append(count)
        keys.append(int.from_bytes(hash_id(f"{seed} {prompt['id']}:{rollout['number']}"), "little"))
    return HitTable(
        np.array(thinks, bool),
        np.array(domain, np.int64),
        np.array(difficulty, float),
        np.array(place, np.int64),
        np.array(keys, np.uint64),
    )


def _iter_hits(rollouts: Path) -> Iterator[tuple[Row, dict[str, Any]]]:
    for prompt in iter_jsonl(rollouts / ROWS_FILE, "rollouts"):
        for rollout in prompt["rollouts"]:
            if rollout["hit"]:
                yield prompt, rollout


def _make_row(prompt: Row, rollout: Mapping[str, Any]) -> Row:
    messages = [*prompt["messages"], {"role": "assistant", "content": _say(rollout)}]
    kept = {key: value for key, value in prompt.items() if key != "rollouts"}
    return {**kept, "id": f"{prompt['id']}:{rollout['number']}", "messages": messages}


def _say(rollout: Mapping[str, Any]) -> str:
    trace, answer = rollout["trace"], rollout["answer"]
    return answer if trace is None else think_answer(trace, answer)


# -- pairs ----------------------------------------------------------------------------------------------------------


def write_pairs(
    rollouts: Path, out: Path, overwrite: bool, manifest: Mapping[str, Any], per_prompt: int
) -> dict[str, Any]:
    """Writes pairs of a hit and a miss, at most `per_prompt` a prompt; returns the manifest with its counts.

    Raises:
        DataError: no prompt has both.
    """
    tally = Tally()
    first: list[Row] = []
    with atomic_dir(out, overwrite) as folder:
        with (folder / PAIRS_FILE).open("wb") as handle:
            for prompt in iter_jsonl(rollouts / ROWS_FILE, "rollouts"):
                if prompt["mode"] != "think":
                    continue
                pairs = make_pairs(prompt, per_prompt)
                if not pairs:
                    tally.reject([(prompt["id"], "no_verified_miss", "")])
                first = first or pairs[:1]
                tally.counts["pairs"] += len(pairs)
                tally.counts[f"pairs_{prompt['domain']}"] += len(pairs)
                handle.writelines(map(to_json_line, pairs))
        if not tally.counts["pairs"]:
            raise DataError(
                f"no pair is left for {out}: no prompt has both a verified hit and a verified miss "
                f"({tally.rejected['no_verified_miss']} prompts with hits have no miss); ask more prompts, or raise "
                "--num-traces."
            )
        finished = {**manifest, **tally.to_manifest()}
        write_json(folder / MANIFEST_NAME, finished)
        write_text(folder / CARD_FILE, render_card("Preference pairs", PAIRS_CARD, finished, *first))
    return finished


def make_pairs(prompt: Row, per_prompt: int) -> list[Row]:
    """A prompt's pairs: the first hit with the first miss, the second with the second, ..."""
    hits = [rollout for rollout in prompt["rollouts"] if rollout["hit"]][:per_prompt]
    misses = [rollout for rollout in prompt["rollouts"] if not rollout["hit"]]
    return [
        {
            "id": f"{prompt['id']}:{hit['number']}-{miss['number']}",
            "domain": prompt["domain"],
            "user": prompt["user"],
            "prompt": prompt["messages"],
            "chosen": [{"role": "assistant", "content": _say(hit)}],
            "rejected": [{"role": "assistant", "content": _say(miss)}],
        }
        for hit, miss in zip(hits, misses, strict=False)
    ]
