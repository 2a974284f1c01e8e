"""`onereason average`: several model folders -> one whose weights are their mean."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


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

    from onereason.data.prompt_sets import language_name, own_prompt_files
    from onereason.decoding.recommender import DEFAULT_LANGUAGE, read_prompt_settings
    from onereason.io import build_manifest, require_output_dir, short_names
    from onereason.model.average import average_models, check_same_shape, normalise_weights
    from onereason.model.folder import save_model_folder, weight_files

    def name_language(settings: dict[str, Any]) -> dict[str, Any]:
        return settings | {"language": language_name(settings.get("language", DEFAULT_LANGUAGE))}

    weights = normalise_weights(args.weights, args.models)
    require_output_dir(args.out, args.overwrite, args.models)
    first = check_same_shape(args.models)
    settings = read_prompt_settings(args.models[0])
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("adding models", total=len(args.models))
        model = average_models(args.models, weights, lambda: bar.advance(task))
    manifest = build_manifest("average", inputs=[file for path in args.models for file in weight_files(path)])
    manifest["config"] = {"weights": dict(zip(short_names(args.models), weights, strict=True))}
    extra: dict[str, Path] = {}
    if settings:
        manifest["prompt"] = name_language(settings)
        language = settings.get("language", DEFAULT_LANGUAGE)
        extra = {f"{language_name(language)}/{path.name}": path for path in own_prompt_files(language)}
    save_model_folder(
        model, first.tokenizer, first.vocabulary, first.catalog, args.out, manifest, args.overwrite, extra_files=extra
    )
    shown = ", ".join(f"{weight:.3g} {name}" for name, weight in manifest["config"]["weights"].items())
    print(f"wrote {args.out}: {shown}")
    others = [read_prompt_settings(path) for path in args.models]
    if any(name_language(other) != name_language(settings) for other in others):
        print(
            f"warning: {args.out}: the models record different prompts; it takes those of {args.models[0]}.",
            file=sys.stderr,
        )
