"""`onereason average`: several model folders -> one whose weights are their mean."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models", required=True, type=Path, nargs="+", metavar="DIR", help="model folders, two or more"
    )
    parser.add_argument(
        "--weights", type=float, nargs="+", metavar="W", help="of the models, in their order (default: equal)"
    )
    parser.add_argument("--out", required=True, type=Path, help="model folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")


def run(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from onereason.decoding.recommender import carry_prompt_settings
    from onereason.io import build_manifest, require_output_dir, short_names
    from onereason.model.average import average_models, check_same_shape, normalise_weights
    from onereason.model.folder import save_model_folder, weight_files

    weights = normalise_weights(args.weights, args.models)
    require_output_dir(args.out, args.overwrite, args.models)
    first = check_same_shape(args.models)
    settings, extra = carry_prompt_settings(args.models[0])
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("adding models", total=len(args.models))
        model = average_models(args.models, weights, lambda: bar.advance(task))
    manifest = build_manifest("average", inputs=[file for path in args.models for file in weight_files(path)])
    manifest["config"] = {"weights": dict(zip(short_names(args.models), weights, strict=True))}
    if settings:
        manifest["prompt"] = settings
    save_model_folder(
        model, first.tokenizer, first.vocabulary, first.catalog, args.out, manifest, args.overwrite, extra_files=extra
    )
    shown = ", ".join(f"{weight:.3g} {name}" for name, weight in manifest["config"]["weights"].items())
    print(f"wrote {args.out}: {shown}")
    if any(carry_prompt_settings(path)[0] != settings for path in args.models):
        print(
            f"warning: {args.out}: the models record different prompts; it takes those of {args.models[0]}.",
            file=sys.stderr,
        )
