"""Exact constrained beams behind one prefill against `generate`, and how the search grows.

    python benchmarks/decoding.py            # 8 prompts x 400 tokens x 32 beams, and growth over K, T and the catalogue
    python benchmarks/decoding.py --quick    # 4 prompts x 100 tokens x 8 beams, shorter growth

Four systems decode the same prompts with the same random Qwen3: `beam_search` (ours), one prefill of the prompts (no
search: the least anyone can take), `generate` with a prefix function over a dictionary of prefixes (what LLM
recommenders commonly run), and `generate` with the vectorised `TrieLogitsProcessor`. Each case runs in a process of its
own, so its peak memory is its own; ours and the prefill alternate in one process, so that their ratio is fair. The last
line is one JSON object; a speed-up above 1 means that the other takes longer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cases import measure_case, peak_mebibytes

FIRST_CODE = 512
SYSTEMS = ("beam_search", "prefix_fn", "processor")


def build_model(shape: dict[str, int]):
    """A random Qwen3 whose vocabulary holds 512 words and the codes."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    hidden, heads = shape["hidden"], max(1, shape["hidden"] // 64)
    config = Qwen3Config(
        vocab_size=FIRST_CODE + shape["levels"] * shape["codes"],
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=shape["layers"],
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=64,
        initializer_range=0.1,
        max_position_embeddings=1 << 16,
    )
    model = Qwen3ForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def make_items(shape: dict[str, int]):
    """Random code tokens int `[N, L]`."""
    import numpy as np

    codes = np.random.default_rng(0).integers(0, shape["codes"], (shape["items"], shape["levels"]), dtype=np.int32)
    return codes + (FIRST_CODE + shape["codes"] * np.arange(shape["levels"], dtype=np.int32))


def prefix_function(items, prompt_tokens: int) -> Callable[[int, Any], list[int]]:
    """A dictionary from prefix to the tokens that may follow."""
    following: dict[tuple[int, ...], set[int]] = {}
    for item in items.tolist():
        for depth, token in enumerate(item):
            following.setdefault(tuple(item[:depth]), set()).add(token)
    lists = {prefix: sorted(tokens) for prefix, tokens in following.items()}
    return lambda _, ids: lists.get(tuple(ids[prompt_tokens:].tolist()), [0])


def run_case(system: str, shape: dict[str, int], repeats: int) -> dict[str, Any]:
    """Decodes in this process: median seconds, peak memory, sequences and scores."""
    import numpy as np
    import torch

    from onereason.decoding.beam import beam_search
    from onereason.decoding.processor import TrieLogitsProcessor
    from onereason.itemic.trie import build_trie

    model, items = build_model(shape), make_items(shape)
    start = time.perf_counter()
    trie = build_trie(items)
    trie_seconds = time.perf_counter() - start
    batch, width, beams, levels = shape["prompts"], shape["tokens"], shape["beams"], shape["levels"]
    input_ids = torch.from_numpy(np.random.default_rng(1).integers(1, FIRST_CODE, (batch, width)))
    mask = torch.ones_like(input_ids)
    roots = torch.zeros(batch, dtype=torch.long)

    @torch.no_grad()
    def prefill():
        model.get_decoder()(input_ids=input_ids, attention_mask=mask, use_cache=True)

    def ours():
        return beam_search(model, trie, roots, input_ids, mask, beams)

    figures: dict[str, Any] = {"trie_build_seconds": trie_seconds}
    if system == "beam_search":
        figures["trie_bytes_an_item"] = trie.nbytes / shape["items"]
        prefill(), ours()
        seconds: dict[str, list[float]] = {"prefill": [], "ours": []}
        for _ in range(repeats):
            for name, call in (("prefill", prefill), ("ours", ours)):
                start = time.perf_counter()
                found = call()
                seconds[name].append(time.perf_counter() - start)
        figures["seconds"] = statistics.median(seconds["ours"])
        figures["prefill_seconds"] = statistics.median(seconds["prefill"])
        ratios = [o / p for o, p in zip(seconds["ours"], seconds["prefill"], strict=True)]
        figures["prefill_ratio"] = statistics.median(ratios)
        figures["sequences"], figures["scores"] = found.sequences.tolist(), found.scores.tolist()
    else:
        constraint: dict[str, Any]
        if system == "prefix_fn":
            constraint = {"prefix_allowed_tokens_fn": prefix_function(items, width)}
        else:
            constraint = {"logits_processor": [TrieLogitsProcessor(trie, prompt_length=width)]}
        start = time.perf_counter()
        out = model.generate(
            input_ids,
            attention_mask=mask,
            max_new_tokens=levels,
            num_beams=beams,
            num_return_sequences=beams,
            do_sample=False,
            length_penalty=0.0,
            return_dict_in_generate=True,
            output_scores=True,
            **constraint,
        )
        figures["seconds"] = time.perf_counter() - start
        figures["sequences"] = out.sequences[:, width:].view(batch, beams, levels).tolist()
        figures["scores"] = out.sequences_scores.view(batch, beams).tolist()
    figures["peak_mib"] = peak_mebibytes()
    return figures


def measure(system: str, shape: dict[str, int], args: argparse.Namespace) -> dict[str, Any]:
    """Runs one case in its own process, or says how long it was waited for."""
    print(f"{system}: {shape} ...", file=sys.stderr, flush=True)
    case = {"system": system, "shape": shape, "repeats": args.repeats}
    return measure_case(__file__, case, args.threads, args.time_limit)


def compare(shape: dict[str, int], args: argparse.Namespace) -> dict[str, Any]:
    """All systems on one shape: seconds, speed-ups, and how far `generate`'s scores are from ours."""
    import numpy as np

    figures = {system: measure(system, shape, args) for system in SYSTEMS}
    ours = figures["beam_search"]
    row: dict[str, Any] = {"shape": shape, "systems": figures}
    differences = []
    for system in SYSTEMS[1:]:
        theirs = figures[system]
        if "seconds" not in theirs:
            continue
        row[f"speedup_{system}"] = theirs["seconds"] / ours["seconds"]
        row[f"memory_ratio_{system}"] = theirs["peak_mib"] / ours["peak_mib"]
        row[f"same_sequences_{system}"] = theirs["sequences"] == ours["sequences"]
        differences.append(float(np.abs(np.array(theirs["scores"]) - np.array(ours["scores"])).max()))
    row["prefill_ratio"] = ours["prefill_ratio"]
    row["trie_build_seconds"] = ours["trie_build_seconds"]
    if differences:
        row["max_score_difference"] = max(differences)
    for figure in figures.values():
        figure.pop("sequences", None), figure.pop("scores", None)
    return row


def grow(base: dict[str, int], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Ours alone, one size changed at a time."""
    rows = []
    for name, values in (("beams", args.grow_beams), ("tokens", args.grow_tokens), ("items", args.grow_items)):
        for value in values:
            figures = measure("beam_search", base | {name: value}, args)
            figures.pop("sequences", None), figures.pop("scores", None)
            rows.append({"grown": name, "value": value, **figures})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="4 prompts x 100 tokens x 8 beams")
    for name, value in (("prompts", 8), ("tokens", 400), ("beams", 32), ("levels", 4), ("codes", 256)):
        parser.add_argument(f"--{name}", type=int, default=value, help="default: %(default)s")
    parser.add_argument("--items", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--hidden", type=int, default=256, help="a multiple of 64 (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--grow-beams", type=int, nargs="*", default=[1, 8, 32, 128])
    parser.add_argument("--grow-tokens", type=int, nargs="*", default=[100, 400, 1600])
    parser.add_argument("--grow-items", type=int, nargs="*", default=[10**3, 10**4, 10**5, 10**6, 10**7])
    parser.add_argument("--repeats", type=int, default=5, help="of ours and the prefill (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--time-limit", type=float, default=900.0, metavar="SECONDS", help="for one case")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(run_case(**json.loads(args.case))))
        return
    if args.quick:
        args.prompts, args.tokens, args.beams, args.items, args.repeats = 4, 100, 8, 10_000, 3
        args.grow_beams, args.grow_tokens, args.grow_items = [16], [], [10**5]
        args.time_limit = min(args.time_limit, 30.0)
    if args.hidden % 64 or args.hidden < 64:
        parser.error(f"--hidden {args.hidden} is not a multiple of 64, the size of a head.")
    keys = ("prompts", "tokens", "beams", "levels", "codes", "items", "hidden", "layers")
    base = {key: getattr(args, key) for key in keys}
    comparison = compare(base, args)
    growth = grow(base, args)
    print_tables(comparison, growth, args)
    headline = {key: value for key, value in comparison.items() if key not in ("shape", "systems")}
    print(
        json.dumps(
            {"benchmark": "decoding", "threads": args.threads, **headline, "comparison": comparison, "growth": growth}
        )
    )


def print_tables(comparison: dict[str, Any], growth: list[dict[str, Any]], args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 110)
    shape = comparison["shape"]
    table = Table(
        title=f"{shape['prompts']} prompts x {shape['tokens']} tokens x {shape['beams']} beams, {shape['levels']} x "
        f"{shape['codes']} codes, {shape['items']:,} items, {args.threads} thread(s)"
    )
    for name in ("system", "seconds", "slower than ours", "peak (MiB)", "same sequences"):
        table.add_column(name, justify="left" if name == "system" else "right")
    ours = comparison["systems"]["beam_search"]
    table.add_row("one prefill", f"{ours['prefill_seconds']:.3f}", f"{1 / ours['prefill_ratio']:.2f}", "", "")
    for system in SYSTEMS:
        figures = comparison["systems"][system]
        if "seconds" not in figures:
            table.add_row(system, f"not done in {figures['did_not_finish_seconds']:g}", "", "", "")
            continue
        same = comparison.get(f"same_sequences_{system}")
        table.add_row(
            system,
            f"{figures['seconds']:.3f}",
            f"{figures['seconds'] / ours['seconds']:.2f}",
            f"{figures['peak_mib']:,.0f}",
            "" if same is None else "yes" if same else "no",
        )
    console.print(table)
    table = Table(title="how ours grows, all else as above")
    names = ("grown", "to", "seconds", "prefills", "peak (MiB)", "trie build (s)", "trie bytes / item")
    for name in names:
        table.add_column(name, justify="left" if name == "grown" else "right")
    for row in growth:
        if "seconds" not in row:
            table.add_row(row["grown"], f"{row['value']:,}", f"not done in {row['did_not_finish_seconds']:g}")
            continue
        table.add_row(
            row["grown"],
            f"{row['value']:,}",
            f"{row['seconds']:.3f}",
            f"{row['prefill_ratio']:.2f}",
            f"{row['peak_mib']:,.0f}",
            f"{row['trie_build_seconds']:.2f}",
            f"{row['trie_bytes_an_item']:.1f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
