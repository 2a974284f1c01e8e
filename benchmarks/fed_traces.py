"""Is it the traces, or the student? A model's own traces against those of the template teacher, fed to it.

    python benchmarks/fed_traces.py --model runs/sft/model --data runs/world --catalog runs/catalog --users 500 \\
        --detail brief --max-history 20 --num-readings 8

Validation users are asked at once, after the model's own most likely trace, and after the trace that the template
teacher writes of the same history, without a look at the answer (by belief, only the domain is known). Options behind
`--detail` are those of `data_builders.build_recommendation`; give those of the corpus that the model learned from.
`conclusion_right` is how often a trace's concluded interest is the answer's, `same_conclusion` how often the model's
own last line is the teacher's, `copied` how many of the patterns the teacher's trace cites stand in the model's own.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

CUTOFFS = (1, 8, 64)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--users", type=int, default=500, help="validation users, drawn (default: %(default)s)")
    parser.add_argument("--think-budget", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    args, options = parser.parse_known_args(argv)
    figures = measure(args, options)
    print("| asked | Recall@1 | Recall@8 | Recall@64 |\n|---|---|---|---|")
    for name in ("at_once", "own_trace", "fed_trace"):
        print(f"| {name.replace('_', ' ')} | " + " | ".join(f"{figures[name][str(k)]:.4f}" for k in CUTOFFS) + " |")
    rest = {name: figures[name] for name in ("conclusion_right", "same_conclusion", "copied")}
    print("\n" + ", ".join(f"{name.replace('_', ' ')}: {value:.1%}" for name, value in rest.items()))
    print(json.dumps({"benchmark": "fed_traces", **figures}))
    return 0


def measure(args: argparse.Namespace, options: Sequence[str]) -> dict[str, Any]:
    from data_builders import build_recommendation
    from onereason.data.schema import load_dataset
    from onereason.data.timelines import build_timelines, split_leave_one_out
    from onereason.decoding.recommender import load_recommender
    from onereason.model.sampling import SamplingConfig

    own = ["--data", args.data, "--catalog", args.catalog, "--out", "unused", "--conclusion", "belief", *options]
    parsed = build_recommendation.make_parser().parse_args(own)
    source = build_recommendation.make_source(parsed)
    recommender = load_recommender(args.model, style="chat", max_history=parsed.max_history)
    catalog, tokenizer = recommender.catalog, recommender.prompt.tokenizer
    split = split_leave_one_out(build_timelines(load_dataset(args.data).interactions, catalog.index))
    cases = collect_cases(source, catalog, split.validation, args.users, parsed.max_history)
    domains = [case["domain"] for case in cases]
    targets = np.array([case["target"] for case in cases])

    def search(prompts: list[list[int]]) -> dict[str, float]:
        ranks = []
        wanted = recommender.vocabulary.code_ids(catalog.codes[targets])
        for start in range(0, len(prompts), args.batch_size):
            part = slice(start, start + args.batch_size)
            found = recommender.search(prompts[part], domains[part], max(CUTOFFS))
            same = (found.sequences.cpu().numpy() == wanted[part, None]).all(-1) & found.valid.cpu().numpy()
            ranks += np.where(same.any(1), same.argmax(1), max(CUTOFFS)).tolist()
        return {str(k): float((np.array(ranks) < k).mean()) for k in CUTOFFS}

    def behind(traces: Sequence[Sequence[int]]) -> list[list[int]]:
        return [
            [
                *recommender.render(case["history"], case["domain"], "think"),
                *trace,
                *recommender.between(case["domain"]),
            ]
            for case, trace in zip(cases, traces, strict=True)
        ]

    written: list[list[int]] = []
    for start in range(0, len(cases), args.batch_size):
        part = cases[start : start + args.batch_size]
        prompts = [recommender.render(case["history"], case["domain"], "think") for case in part]
        sampling = SamplingConfig(args.think_budget, temperature=0.0)
        traces, _ = recommender.think_stems(prompts, [case["domain"] for case in part], [[0]] * len(part), sampling)
        written += [row[0] for row in traces.lists()]
    texts = tokenizer.batch_decode(written)
    fed = [tokenizer(f"{case['trace']}\n", add_special_tokens=False)["input_ids"] for case in cases]
    cited = [catalog.format.parse(case["trace"]).items for case in cases]
    shares = [
        np.mean([catalog.format.render(item.codes, item.domain) in text for item in items])
        for text, items in zip(texts, cited, strict=True)
        if items
    ]
    last = [(text.strip().splitlines() or [""])[-1] for text in texts]
    return {
        "users": len(cases),
        "at_once": search([recommender.render(case["history"], case["domain"]) for case in cases]),
        "own_trace": search(behind(written)),
        "fed_trace": search(behind(fed)),
        "conclusion_right": float(np.mean([case["right"] for case in cases])),
        "same_conclusion": float(np.mean([a == c["trace"].splitlines()[-1] for a, c in zip(last, cases, strict=True)])),
        "copied": float(np.mean(shares)) if shares else 0.0,
    }


def collect_cases(source: Any, catalog: Any, examples: Any, users: int, max_history: int) -> list[dict[str, Any]]:
    """Histories with their answers and the teacher's traces, which know of the answer its domain alone."""
    from onereason.cognition.evidence import gather_evidence

    knowledge, patterns = source.inputs.knowledge, source.inputs.facts.patterns
    cases = []
    for place in np.random.default_rng(0).permutation(len(examples))[:users].tolist():
        history, target = examples.histories[place], int(examples.targets[place][0])
        shown = history[-max_history:].tolist()
        domain, met = catalog.domains[target], {patterns[item] for item in shown}
        # Evidence asks for an item of the domain: any that the history does not show stands in for the answer.
        stand_in = next(
            (
                item
                for item, own in enumerate(catalog.domains)
                if own == domain and knowledge.interest_of[item] >= 0 and patterns[item] not in met
            ),
            None,
        )
        if stand_in is None:
            continue
        walk = knowledge.walk()
        walk.read_all(shown)
        evidence = gather_evidence(
            knowledge, walk, stand_in, source.num_candidates, source.max_cited, "belief", source.num_readings
        )
        if isinstance(evidence, str):
            continue
        concluded = evidence.candidates[evidence.chosen].interest
        cases.append(
            {
                "history": history,
                "target": target,
                "domain": domain,
                "trace": source.writer.write(evidence, walk.items),
                "right": knowledge.interest_of[target] == concluded,
            }
        )
    return cases


if __name__ == "__main__":
    sys.exit(main())
