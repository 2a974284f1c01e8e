"""Leaks planted in clean traces: how many of each kind are caught, how many clean traces are accused, how fast.

    python benchmarks/leaks.py                                  # a made catalogue
    python benchmarks/leaks.py --beauty shared/data/beauty      # and Beauty's titles, captions, brands and categories
    python benchmarks/leaks.py --quick

A clean trace is about the items before the target: it cites them, some with their titles, and names kinds. A planted
trace is a clean one with one leak put in. Kinds that a target does not have (a rare brand where its brand is common)
are not planted there. `false_alarm_rate` is over clean traces checked against what the prompt shows;
`false_alarm_rate_alone` without knowing it. The speed is that of one process on clean traces cut to 600 characters,
about targets that were asked about before. The last line is one JSON object with all figures.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.leak_items import Items, make_items, make_trace, plain_words
from benchmarks.leak_kinds import PLANTS, insert
from onereason.cognition.checks.leakage import LeakDetector
from onereason.itemic.format import ANY_DOMAIN, PRESETS

TRACE_LENGTH = 600


def load_beauty(folder: Path) -> tuple[Items, list[list[int]]]:
    """Amazon Beauty with the semantic ids of a public RQ-KMeans; and the users' histories."""
    from onereason.data.readers.files import build_caption

    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text("utf-8").splitlines()]
    tokens = json.loads((folder / "sid_rkmeans.json").read_text("utf-8"))
    format = PRESETS["onerec_think"]
    codes = [tuple(int(token[3:-1]) for token in tokens[str(row["item_id"])]) for row in rows]
    attributes = []
    for row in rows:
        values = {name: row.get(name) for name in ("brand", "categories", "asin")}
        several = {n: v if isinstance(v, list) else [v] for n, v in values.items() if v and v != "Unknown"}
        attributes.append({n: tuple(v) for n, v in several.items()})
    items = Items(
        [str(row["item_id"]) for row in rows],
        [ANY_DOMAIN] * len(rows),
        codes,
        [format.render(c) for c in codes],
        [row["title"] or "" for row in rows],
        [build_caption(row["title"], row["brand"], row["categories"] or []) or "" for row in rows],
        attributes,
        format,
        "categories",
    )
    lines = (folder / "interactions.jsonl").read_text("utf-8").splitlines()
    return items, [json.loads(line)["item_ids"] for line in lines]


def make_histories(items: Items, num_users: int, rng: random.Random) -> list[list[int]]:
    """Users who keep to few kinds, so that what they saw resembles what comes next."""
    by_kind: dict[str, list[int]] = {}
    for item in range(len(items.item_ids)):
        by_kind.setdefault(items.themes(item), []).append(item)
    found = []
    for _ in range(num_users):
        pool = [item for kind in rng.sample(sorted(by_kind), 2) for item in by_kind[kind]]
        found.append(rng.sample(pool, min(len(pool), rng.randint(5, 12))))
    return found


def measure(items: Items, histories: list[list[int]], num_planted: int, seed: int) -> dict[str, Any]:
    """Plants every kind in up to `num_planted` traces; checks all clean ones."""
    rng = random.Random(seed)
    detector = LeakDetector(items)
    cases = []
    for history in histories:
        *shown, target = history
        # An item under the target's semantic id cannot be cited without writing the answer.
        shown = [item for item in shown[-50:] if items.codes[item] != items.codes[target]]
        if len(shown) > 2:
            cases.append((make_trace(items, shown, target, rng, TRACE_LENGTH), target, shown))
    alarms: Counter[str] = Counter()
    examples = []
    accused = accused_alone = 0
    for trace, target, shown in cases:
        found = detector.find(trace, target, shown)
        accused += bool(found)
        accused_alone += bool(detector.find(trace, target))
        alarms.update({leak.kind for leak in found})
        examples += [{"kind": leak.kind, "excerpt": leak.excerpt, "title": items.titles[target]} for leak in found]
    kinds: dict[str, dict[str, Any]] = {}
    for kind, planted_by in PLANTS.items():
        planted, caught, missed = 0, 0, []
        called: Counter[str] = Counter()
        for trace, target, shown in cases:
            if planted == num_planted:
                break
            text = planted_by(items, target, rng)
            if text is None or is_shown(items, text, shown):
                continue
            planted += 1
            found = detector.find(insert(trace, text, rng), target, shown)
            caught += bool(found)
            called.update(leak.kind for leak in found[:1])
            if not found:
                missed.append({"text": text, "title": items.titles[target]})
        kinds[kind] = {"planted": planted, "caught": caught, "called": dict(called), "missed": missed[:3]}
    cut = [(trace[:TRACE_LENGTH], target, shown) for trace, target, shown in cases]
    return {
        "kinds": kinds,
        "planted": sum(one["planted"] for one in kinds.values()),
        "caught": sum(one["caught"] for one in kinds.values()),
        "clean": len(cases),
        "false_alarm_rate": accused / max(1, len(cases)),
        "false_alarm_rate_alone": accused_alone / max(1, len(cases)),
        "false_alarms": dict(alarms),
        "false_alarm_examples": examples[:10],
        **measure_speed(detector, cut),
    }


def is_shown(items: Items, text: str, shown: list[int]) -> bool:
    """Whether the prompt says the same words in a row: then they give nothing away."""
    words = f" {' '.join(plain_words(text))} "
    return any(words in f" {items.plain[item]} " for item in shown)


def measure_speed(detector: LeakDetector, cases: list[tuple[str, int, list[int]]]) -> dict[str, float]:
    """Traces a second of one core, the best of five rounds; and seconds to make ready what is asked about."""
    prepare = time.process_time()
    fresh = LeakDetector(detector.items)
    for trace, target, shown in cases:
        fresh.find(trace, target, shown)
    prepare = time.process_time() - prepare
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        for trace, target, shown in cases:
            detector.find(trace, target, shown)
        best = max(best, len(cases) / max(1e-9, time.process_time() - start))
    others = list(zip([c[0] for c in cases], [c[1] for c in cases[1:] + cases[:1]], strict=True))
    plain = [(trace, target) for trace, target in others if not detector.find(trace, target)]
    best_plain = 0.0
    for _ in range(5):
        start = time.process_time()
        for trace, target in plain:
            detector.find(trace, target)
        best_plain = max(best_plain, len(plain) / max(1e-9, time.process_time() - start))
    return {
        "traces_per_second": round(best),
        "unsuspicious_traces_per_second": round(best_plain),
        "first_pass_seconds": round(prepare, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="the made catalogue, 60 traces a kind")
    parser.add_argument("--beauty", type=Path, metavar="DIR", help="folder with Amazon Beauty (items.jsonl, ...)")
    parser.add_argument("--planted", type=int, default=300, metavar="N", help="traces a kind (default: %(default)s)")
    parser.add_argument("--users", type=int, default=4000, metavar="N", help="clean traces (default: %(default)s)")
    parser.add_argument("--items", type=int, default=240, metavar="N", help="of the made catalogue")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args()
    if args.beauty is not None and not (args.beauty / "items.jsonl").is_file():
        parser.error(f"--beauty {args.beauty} holds no items.jsonl.")
    if args.quick:
        args.planted, args.users = min(args.planted, 60), min(args.users, 600)
    made = make_items(args.items, args.seed)
    catalogues = {"made": (made, make_histories(made, args.users, random.Random(args.seed)))}
    if args.beauty is not None:
        items, histories = load_beauty(args.beauty)
        catalogues["beauty"] = (items, histories[: args.users])
    results = {name: measure(*of, args.planted, args.seed) for name, of in catalogues.items()}
    print_table(results)
    total: dict[str, Any] = {"benchmark": "leaks", "seed": args.seed, "catalogues": results}
    total["kinds"] = {
        kind: {what: sum(of["kinds"][kind][what] for of in results.values()) for what in ("planted", "caught")}
        for kind in PLANTS
    }
    total["planted"] = sum(of["planted"] for of in results.values())
    total["caught"] = sum(of["caught"] for of in results.values())
    clean = sum(of["clean"] for of in results.values())
    total["false_alarm_rate"] = sum(of["false_alarm_rate"] * of["clean"] for of in results.values()) / max(1, clean)
    total["traces_per_second"] = min(of["traces_per_second"] for of in results.values())
    print(json.dumps(total, ensure_ascii=False))


def print_table(results: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="leaks caught / planted")
    table.add_column("kind")
    for name in results:
        table.add_column(name, justify="right")
    for kind in PLANTS:
        cells = [of["kinds"][kind] for of in results.values()]
        table.add_row(kind, *(f"{one['caught']} / {one['planted']}" if one["planted"] else "-" for one in cells))
    table.add_section()
    table.add_row("all", *(f"{of['caught']} / {of['planted']}" for of in results.values()))
    table.add_row("clean traces", *(f"{of['clean']:,}" for of in results.values()))
    table.add_row("false alarms", *(f"{of['false_alarm_rate']:.3%}" for of in results.values()))
    table.add_row("  without what is shown", *(f"{of['false_alarm_rate_alone']:.3%}" for of in results.values()))
    table.add_row("traces a second", *(f"{of['traces_per_second']:,}" for of in results.values()))
    table.add_row("  nothing suspicious", *(f"{of['unsuspicious_traces_per_second']:,}" for of in results.values()))
    # A fixed width keeps the table whole where the output goes to a file.
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    main()
