"""A two-stage rollout, and the training pass over its rows, against what is commonly run.

    python benchmarks/rl_step.py            # 4 prompts, N = 8 traces of 128 tokens, K = 32 items under each
    python benchmarks/rl_step.py --quick    # 1 prompt of 20 items, traces of 32 tokens

Three systems roll the same random Qwen3 out, with the same numbers of traces, trace tokens and items: `ours`
(`onereason.rl.rollout`), `independent` (`generate` samples N x K rollouts, each with a trace of its own), `beams`
(`generate` samples N traces, then searches K beams behind each prompt and trace). Then one pass, forward and backward,
over the rollouts: `rows` (ours: a trace once, its items as branches under a 4D mask) against `copies` (N x K rows, as a
trainer without shared prefixes has them). Each case runs in a process of its own, so its peak memory is its own. The
last line is one JSON object; `speedup` is ours against the better of the two others, in candidates a second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cases import measure_case, peak_mebibytes

ROLLOUTS = ("ours", "beams", "independent")
PASSES = ("rows", "copies")
COPIES_AT_ONCE = 16
"""Rows of a micro-step."""


def build_world(shape: dict[str, int]):
    """A recommender over random items with a random model, and histories."""
    import numpy as np
    import torch

    from onereason.data.prompts import RecommendationPrompt
    from onereason.decoding.recommender import Recommender
    from onereason.itemic.catalog import Catalog
    from onereason.itemic.format import load_format
    from onereason.itemic.trie import build_catalog_trie
    from onereason.model.extend import extend_model
    from onereason.model.tiny import build_tiny_model, build_tiny_tokenizer

    rng = np.random.default_rng(0)
    format = load_format("onereason", shape["levels"], shape["codes"])
    codes = rng.integers(0, shape["codes"], (shape["items"], shape["levels"]))
    names = [f"i{n}" for n in range(shape["items"])]
    catalog = Catalog(format, names, codes, ["video"] * len(names), ["an item"] * len(names))
    tokenizer = build_tiny_tokenizer(["what might this user like next, and why"] * 8, vocab_size=512)
    torch.manual_seed(0)
    model = build_tiny_model(
        tokenizer,
        hidden_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=max(1, shape["hidden"] // 64),
        seed=0,
    )
    model, tokenizer, vocabulary = extend_model(model, tokenizer, format, init="mean_noise", seed=0)
    model.requires_grad_(True).eval()
    if torch.cuda.is_available():
        model.cuda()
    recommender = Recommender(
        vocabulary,
        catalog,
        build_catalog_trie(catalog, vocabulary),
        RecommendationPrompt(tokenizer, vocabulary),
        shape["history"],
        model,
    )
    histories = [rng.integers(0, len(names), shape["history"]) for _ in range(shape["prompts"])]
    return recommender, histories


def roll_out_ours(recommender: Any, histories: list[Any], shape: dict[str, int]):
    from onereason.rl.rollout import RolloutConfig, RolloutSampling, roll_out

    config = RolloutConfig(
        num_traces=shape["traces"],
        num_items=shape["candidates"],
        sampling=RolloutSampling(max_new_tokens=shape["trace_tokens"]),
    )
    domains = ["video"] * len(histories)
    return roll_out(recommender, histories, domains, [(0, n) for n in range(len(histories))], config)


def roll_out_theirs(system: str, recommender: Any, histories: list[Any], shape: dict[str, int]) -> int:
    """Through `generate`, prompt by prompt (their batch is a prompt's N x K rows); gives the number of candidates."""
    import torch

    from onereason.decoding.processor import TrieLogitsProcessor

    model, levels = recommender.model, shape["levels"]
    candidates = 0
    for history in histories:
        prompt = torch.tensor([recommender.render(history, "video", "think")], device=model.device)
        sampled = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "pad_token_id": 0}
        traces, length = shape["traces"], shape["trace_tokens"]
        if system == "independent":
            copies, length = traces * shape["candidates"], length + levels
        else:
            copies = traces
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            num_return_sequences=copies,
            min_new_tokens=length,
            max_new_tokens=length,
            **sampled,
        )
        if system == "beams":
            between = torch.tensor([recommender.between("video")], device=model.device).expand(len(out), -1)
            behind = torch.cat([out, between], 1)
            roots = recommender.roots(["video"] * len(out))
            out = model.generate(
                behind,
                attention_mask=torch.ones_like(behind),
                max_new_tokens=levels,
                num_beams=shape["candidates"],
                num_return_sequences=shape["candidates"],
                do_sample=False,
                length_penalty=0.0,
                pad_token_id=0,
                eos_token_id=None,
                logits_processor=[TrieLogitsProcessor(recommender.trie, prompt_length=behind.shape[1], roots=roots)],
            )
        candidates += len(out)
    return candidates


def train_pass(system: str, recommender: Any, histories: list[Any], shape: dict[str, int]) -> dict[str, float]:
    """Forward and backward over the rollouts, in micro-steps; seconds and tokens."""
    import torch

    from onereason.rl.rows import attention_bias, build_rows

    model = recommender.model
    rollouts = roll_out_ours(recommender, histories, shape)
    tokens, seconds = 0, 0.0
    num_traces, num_items = shape["traces"], shape["candidates"]
    rows = build_rows(rollouts)
    for start in range(0, len(rows["labels"]), num_traces):
        part = {name: value[start : start + num_traces] for name, value in rows.items()}
        if system == "rows":
            inputs = {"input_ids": part["input_ids"], "position_ids": part["position_ids"]}
            inputs["attention_mask"] = attention_bias(part["base_mask"], num_items, shape["levels"], torch.float32)
        else:
            width = part["base_mask"].shape[1]
            base = part["input_ids"][:, None, :width].expand(-1, num_items, -1)
            branch = part["input_ids"][:, width:].reshape(num_traces, num_items, -1)[..., 1:]
            ids = torch.cat([base, branch.new_full((num_traces, num_items, 1), 0), branch], -1).flatten(0, 1)
            mask = part["base_mask"][:, None].expand(-1, num_items, -1).flatten(0, 1)
            mask = torch.cat([mask, mask.new_ones(len(mask), shape["levels"])], 1)
            inputs = {"input_ids": ids, "attention_mask": mask.long()}
        scored = shape["levels"] * (num_items if system == "rows" else 1)
        began = time.perf_counter()
        model.zero_grad()
        for first in range(0, len(inputs["input_ids"]), COPIES_AT_ONCE):
            some = {name: value[first : first + COPIES_AT_ONCE] for name, value in inputs.items()}
            hidden = model.get_decoder()(**some, use_cache=False).last_hidden_state
            model.lm_head(hidden[:, -scored:]).logsumexp(-1).sum().backward()
        seconds += time.perf_counter() - began
        tokens += inputs["input_ids"].numel()
    return {"seconds": seconds, "tokens": tokens, "candidates": len(histories) * num_traces * num_items}


def run_case(system: str, shape: dict[str, int], repeats: int) -> dict[str, Any]:
    """Runs in this process: median seconds, candidates a second, peak memory."""
    import torch

    recommender, histories = build_world(shape)
    found: list[dict[str, float]] = []
    for _ in range(repeats + 1):  # the first warms up
        if system in PASSES:
            found.append(train_pass(system, recommender, histories, shape))
            continue
        began = time.perf_counter()
        if system == "ours":
            candidates = int(roll_out_ours(recommender, histories, shape).valid.sum())
        else:
            candidates = roll_out_theirs(system, recommender, histories, shape)
        found.append({"seconds": time.perf_counter() - began, "candidates": candidates})
    figures: dict[str, Any] = dict(found[-1])
    figures["seconds"] = statistics.median(each["seconds"] for each in found[1:])
    figures["candidates_per_second"] = figures["candidates"] / figures["seconds"]
    figures["peak_mib"] = peak_mebibytes()
    if torch.cuda.is_available():
        figures["peak_device_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return figures


def measure(system: str, shape: dict[str, int], args: argparse.Namespace) -> dict[str, Any]:
    """Runs one case in its own process, or says how long it was waited for."""
    print(f"{system} ...", file=sys.stderr, flush=True)
    case = {"system": system, "shape": shape, "repeats": args.repeats}
    return measure_case(__file__, case, args.threads, args.time_limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="1 prompt of 20 items, traces of 32 tokens")
    parser.add_argument("--prompts", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--traces", type=int, default=8, help="N (default: %(default)s)")
    parser.add_argument("--candidates", type=int, default=32, help="K (default: %(default)s)")
    parser.add_argument("--trace-tokens", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--history", type=int, default=50, help="items in a prompt (default: %(default)s)")
    parser.add_argument("--items", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--levels", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--codes", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--hidden", type=int, default=256, help="a multiple of 64 (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=2, help="after one to warm up (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--time-limit", type=float, default=900.0, metavar="SECONDS", help="for one case")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(run_case(**json.loads(args.case))))
        return
    if args.quick:
        args.prompts, args.trace_tokens, args.items, args.hidden, args.layers, args.repeats = 1, 32, 2000, 64, 2, 1
        args.history = 20
        args.time_limit = min(args.time_limit, 30.0)
    if args.hidden % 64 or args.hidden < 64:
        parser.error(f"--hidden {args.hidden} is not a multiple of 64, the size of a head.")
    keys = (
        "prompts",
        "traces",
        "candidates",
        "trace_tokens",
        "history",
        "items",
        "levels",
        "codes",
        "hidden",
        "layers",
    )
    shape = {key: getattr(args, key) for key in keys}
    figures = {system: measure(system, shape, args) for system in (*ROLLOUTS, *PASSES)}
    print_table(figures, shape, args.threads)
    rates = {name: figures[name].get("candidates_per_second", 0.0) for name in figures}
    best = max(("beams", "independent"), key=lambda name: rates[name])
    headline = {
        "speedup": rates["ours"] / rates[best] if rates[best] else None,
        "better_alternative": best,
        "training_speedup": rates["rows"] / rates["copies"] if rates["copies"] else None,
    }
    for name in ("beams", "independent"):
        if "peak_mib" in figures[name]:
            headline[f"memory_ratio_{name}"] = figures[name]["peak_mib"] / figures["ours"]["peak_mib"]
    if "peak_mib" in figures["copies"]:
        headline["memory_ratio_copies"] = figures["copies"]["peak_mib"] / figures["rows"]["peak_mib"]
    print(json.dumps({"benchmark": "rl_step", "threads": args.threads, **headline, "shape": shape, "systems": figures}))


def print_table(figures: dict[str, dict[str, Any]], shape: dict[str, int], threads: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{shape['prompts']} prompts, N = {shape['traces']} traces of {shape['trace_tokens']} tokens, K = "
        f"{shape['candidates']} items, {threads} thread(s)"
    )
    for name in ("", "system", "seconds", "candidates / s", "ours is faster by", "peak (MiB)"):
        table.add_column(name, justify="left" if name in ("", "system") else "right")
    for kind, systems in (("rollout", ROLLOUTS), ("training pass", PASSES)):
        for system in systems:
            found = figures[system]
            if "seconds" not in found:
                table.add_row(kind, system, f"not done in {found['did_not_finish_seconds']:g}", "", "", "")
                continue
            faster = figures[systems[0]]["candidates_per_second"] / found["candidates_per_second"]
            table.add_row(
                kind,
                system,
                f"{found['seconds']:.2f}",
                f"{found['candidates_per_second']:,.0f}",
                f"{faster:.2f}",
                f"{found['peak_mib']:,.0f}",
            )
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    main()
