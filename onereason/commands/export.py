"""`onereason export`: a model folder, or an adapter and its base -> one folder to hand on, shown to write the same."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from onereason.evaluation.measurements import Measurement
    from onereason.model.export import ExportSource, GreedyRun
    from onereason.model.folder import ModelFolder

CARD_FILE = "README.md"
NUM_ITEMS_IN_PROMPT = 8
OWN_ON_HUB = ("*.safetensors", "*.safetensors.index.json")
"""Files of the hub that an export replaces as a whole: weights of an earlier one must not stand beside its own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL_OR_ADAPTER", help="model folder, or folder of an adapter")
    parser.add_argument("--out", required=True, type=Path, help="model folder to write")
    parser.add_argument("--base", type=Path, metavar="DIR", help="base of an adapter (default: what it was trained on)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="weights (default: the base's); merged in float32"
    )
    parser.add_argument("--max-shard-size", metavar="SIZE", help="of a file of weights, e.g. 5GB (default: one file)")
    parser.add_argument("--device", default="auto", help="where the checks run: auto, cpu, cuda, cuda:N")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    check = parser.add_argument_group("checks")
    check.add_argument(
        "--check-vllm",
        action="store_true",
        help="vLLM writes the same tokens; runs in ONEREASON_SERVE_PYTHON (default: .venv-serve/bin/python)",
    )
    card = parser.add_argument_group("model card")
    card.add_argument(
        "--results", type=Path, nargs="+", default=[], metavar="FILE", help="results.json of evaluations of this model"
    )
    card.add_argument("--license", metavar="ID", help="licence of the weights, as the hub writes it, e.g. apache-2.0")
    hub = parser.add_argument_group("hub")
    hub.add_argument("--push", metavar="REPO", help="upload --out to this repository of the Hugging Face hub")
    hub.add_argument("--private", action="store_true", help="make it private where it is made")


@dataclass(frozen=True)
class Verified:
    """What of an export is known once its weights stand in a folder: comparisons by name, and evaluations of them."""

    checks: dict[str, dict[str, Any]]
    measurements: list[Measurement]


def run(args: argparse.Namespace) -> None:
    from onereason.decoding.recommender import carry_prompt_settings, read_prompt_settings
    from onereason.errors import ConfigError
    from onereason.evaluation.measurements import load_results
    from onereason.io import require_output_dir, write_text
    from onereason.model.device import resolve_device
    from onereason.model.export import check_shard_size, open_source
    from onereason.model.folder import MAX_SHARD_SIZE, save_model_folder, stored_rows, unused_row_ids
    from onereason.model.vllm_check import find_serve_python, require_vllm

    shard_size = check_shard_size(args.max_shard_size or MAX_SHARD_SIZE)
    device = resolve_device(args.device)
    if args.private and not args.push:
        raise ConfigError("--private goes with --push; name the repository, or leave it out.")
    results = {path: load_results(path) for path in args.results}
    require_output_dir(args.out, args.overwrite, [args.model, *([args.base] if args.base else []), *args.results])
    serve_python = find_serve_python() if args.check_vllm else None
    if serve_python is not None:
        require_vllm(serve_python)
    source = open_source(args.model, args.base)
    require_output_dir(args.out, args.overwrite, [source.folder.path])
    if args.push:
        require_hub(args.push)
    asked = source.path if read_prompt_settings(source.path) else source.folder.path
    settings, extra = carry_prompt_settings(asked)
    prompts = build_prompts(source.folder, read_prompt_settings(asked))

    unused = unused_row_ids(stored_rows(source.folder.path), source.folder.tokenizer)
    model, expected, checks = make_model(source, args.dtype, prompts, unused, device)
    manifest = build_export_manifest(args, source, settings, str(model.dtype).removeprefix("torch."), shard_size)

    def finish(folder: Path) -> None:
        """Everything that is said of the folder, said in it; what is wrong with it is raised."""
        from onereason.io import MANIFEST_NAME, hash_file, write_json

        measurements = match_results(results, folder, source)
        checks.update(check_folder(folder, prompts, unused, expected, device, serve_python))
        verified = Verified(checks, measurements)
        write_text(folder / CARD_FILE, describe(args, folder, source, settings, manifest, verified, len(unused)))
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)
        manifest["checks"] = checks
        manifest["files"] = {path.relative_to(folder).as_posix(): hash_file(path) for path in files}
        write_json(folder / MANIFEST_NAME, manifest)

    save_model_folder(
        model,
        source.folder.tokenizer,
        source.folder.vocabulary,
        source.folder.catalog,
        args.out,
        manifest,
        args.overwrite,
        extra_files=extra,
        max_shard_size=shard_size,
        finish=finish,
    )
    print_checks(args.out, checks)
    if args.push:
        push(args.out, args.push, args.private)


def make_model(
    source: ExportSource, dtype_name: str | None, prompts: list[list[int]], unused: list[int], device: torch.device
) -> tuple[Any, GreedyRun, dict[str, dict[str, Any]]]:
    """The plain model in the type it is stored in, on the CPU; what it writes; and the comparisons on the way there.

    Raises:
        ModelError: merging changes what it writes, or a weight leaves the type's range.
    """
    from onereason.model.export import compare, load_source, require_equal, to_dtype, to_plain, write_greedily
    from onereason.model.folder import DTYPES

    model, stored_dtype = load_source(source)
    dtype = DTYPES[dtype_name] if dtype_name else stored_dtype
    if not source.adapter and dtype == stored_dtype:
        model = to_dtype(model, dtype)  # nothing is merged or rounded
    checks: dict[str, dict[str, Any]] = {}
    model = model.to(device)
    expected = write_greedily(model, prompts, unused)
    if source.adapter:
        model = to_plain(model, source)
        merged = write_greedily(model, prompts, unused)
        found = compare(expected, merged.tokens, merged.logits)
        require_equal(found, "merging the adapter changes the model", source.folder.tokenizer)
        checks["merged"], expected = found.to_dict(), merged
    if model.dtype != dtype:
        model = to_dtype(model, dtype)
        rounded = write_greedily(model, prompts, unused)
        checks["rounded"], expected = compare(expected, rounded.tokens, rounded.logits).to_dict(), rounded
    return model.to("cpu"), expected, checks


def build_prompts(folder: ModelFolder, settings: Mapping[str, Any]) -> list[list[int]]:
    """Prompts as the model is asked them, in both modes: histories of its items, or of made-up patterns."""
    import numpy as np

    from onereason.data.prompts import MODES, RecommendationPrompt
    from onereason.decoding.recommender import DEFAULT_LANGUAGE, DEFAULT_STYLE

    vocabulary, catalog = folder.vocabulary, folder.catalog
    if catalog is not None:
        chosen = np.linspace(0, len(catalog) - 1, 2 * NUM_ITEMS_IN_PROMPT).astype(int)
        codes, domains = catalog.codes[chosen], [catalog.domains[item] for item in chosen]
    else:
        names = list(vocabulary.format.domains)
        spread = np.arange(2 * NUM_ITEMS_IN_PROMPT)[:, None] * np.arange(1, vocabulary.format.num_levels + 1)
        codes = spread % np.array(vocabulary.format.codes_per_level)
        domains = [names[item % len(names)] for item in range(len(codes))]
    patterns = vocabulary.pattern_ids(codes, domains)
    prompts = []
    for mode in MODES:
        style, language = settings.get("style", DEFAULT_STYLE), settings.get("language", DEFAULT_LANGUAGE)
        prompt = RecommendationPrompt(folder.tokenizer, vocabulary, style, mode, language)
        for half in (slice(None, NUM_ITEMS_IN_PROMPT), slice(NUM_ITEMS_IN_PROMPT, None)):
            asked = domains[half][-1]
            ending = vocabulary.prefix_ids(asked) if mode == "no_think" else []
            prompts.append(prompt.encode(patterns[half], asked) + ending)
    return prompts


def build_export_manifest(
    args: argparse.Namespace, source: ExportSource, settings: Mapping[str, Any], dtype: str, shard_size: str
) -> dict[str, Any]:
    """The exported folder's manifest, without what is known only of the written folder."""
    from onereason.io import build_manifest
    from onereason.itemic.catalog import CATALOG_TABLE
    from onereason.itemic.vocabulary import ITEMIC_FILE
    from onereason.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
    from onereason.model.folder import TOKENIZER_FILES, weight_files
    from onereason.model.lineage import EXPORT, read_lineage

    place = source.folder.path
    inputs = [*weight_files(place), place / TOKENIZER_FILES[0], place / ITEMIC_FILE, *args.results]
    if source.folder.catalog is not None:
        inputs.append(place / CATALOG_TABLE)
    if source.adapter:
        inputs += [source.path / ADAPTER_CONFIG, source.path / ADAPTER_WEIGHTS]
    config = {"adapter": source.adapter, "dtype": dtype, "max_shard_size": shard_size, "license": args.license}
    manifest = build_manifest(EXPORT, inputs=inputs, config=config)
    if settings:
        manifest["prompt"] = dict(settings)
    started_from = place if source.adapter else None
    manifest["lineage"] = read_lineage(source.path, started_from).to_dict()
    return manifest


def match_results(results: Mapping[Path, Any], folder: Path, source: ExportSource) -> list[Measurement]:
    """Results with the weights they were measured on; `ConfigError` where these are others."""
    from onereason.evaluation.measurements import match_weights
    from onereason.io import hash_file
    from onereason.model.folder import weight_files

    if not results:
        return []
    exported = {file.name: hash_file(file) for file in weight_files(folder)}
    before = {} if source.adapter else {file.name: hash_file(file) for file in weight_files(source.folder.path)}
    return [match_weights(path, found, exported, before) for path, found in results.items()]


def check_folder(
    folder: Path,
    prompts: list[list[int]],
    unused: list[int],
    expected: GreedyRun,
    device: torch.device,
    serve_python: Path | None,
) -> dict[str, dict[str, Any]]:
    """Opens the written folder, in transformers and where asked in vLLM; `ModelError` where other tokens come out."""
    import torch

    from onereason.model.export import NUM_TOKENS, compare, require_equal, write_greedily
    from onereason.model.folder import load_model_folder
    from onereason.model.vllm_check import write_in_vllm

    opened = load_model_folder(folder, device=device)
    model, tokenizer = opened.model.eval(), opened.tokenizer
    again = write_greedily(model, prompts, unused)
    found = compare(expected, again.tokens, again.logits)
    require_equal(found, "the written folder is another model", tokenizer)
    checks = {"reopened": found.to_dict()}
    if serve_python is not None:
        ours = write_greedily(model.float(), prompts, unused)
        del opened, model
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what this process keeps, vLLM cannot have
        tokens, version = write_in_vllm(serve_python, folder, prompts, unused, NUM_TOKENS)
        found = compare(ours, tokens)
        require_equal(found, f"vLLM {version} reads another model", tokenizer)
        checks["vllm"] = found.to_dict() | {"version": version}
    return checks


def describe(
    args: argparse.Namespace,
    folder: Path,
    source: ExportSource,
    settings: Mapping[str, Any],
    manifest: Mapping[str, Any],
    verified: Verified,
    rows_without_token: int,
) -> str:
    """The text of the model card."""
    from onereason.evaluation.model_card import CardFacts, build_card
    from onereason.io import read_json
    from onereason.model.folder import CONFIG_FILE, count_parameters
    from onereason.model.lineage import Lineage, Stage

    lineage = manifest["lineage"]
    facts = CardFacts(
        name=args.push or args.out.resolve().name,
        config=read_json(folder / CONFIG_FILE, "model configuration"),
        parameters=count_parameters(folder),
        vocabulary=source.folder.vocabulary,
        catalog=source.folder.catalog,
        rows_without_token=rows_without_token,
        prompt=settings,
        lineage=Lineage(tuple(map(Stage.from_dict, lineage["stages"])), lineage["unknown"]),
        measurements=verified.measurements,
        checks=verified.checks,
        license=args.license,
    )
    return str(build_card(facts))


def print_checks(out: Path, checks: Mapping[str, Mapping[str, Any]]) -> None:
    """What the export has shown, a line a comparison."""
    from onereason.evaluation.model_card import CHECKS

    print(f"wrote {out}")
    for name, found in checks.items():
        largest = found["max_logit_difference"]
        logits = "" if largest is None else f", logits differ by at most {largest:.1e}"
        ties = f" ({found['ties']} part at a tie)" if found["ties"] else ""
        print(f"  {CHECKS[name]}: {found['equal']} of {found['prompts']} prompts with the same tokens{ties}{logits}")
    if (rounded := checks.get("rounded")) and rounded["different"]:
        print("warning: rounding to the stored type changes what the model writes.", file=sys.stderr)


def require_hub(repo: str) -> None:
    """`ConfigError` before long work where the repository's name is none, or the hub does not let us in."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    from onereason.errors import ConfigError, first_line

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"--push {repo!r} is no name of a repository, e.g. name/model: {error}") from error
    try:
        HfApi().whoami()
    except Exception as error:  # the hub's client, its transport and the token file have errors of their own
        raise ConfigError(
            f"--push {repo}: the hub does not let us in ({first_line(error)}); log in with `hf auth login`, or set "
            "HF_TOKEN and, for another server, HF_ENDPOINT."
        ) from error


def push(folder: Path, repo: str, private: bool) -> None:
    """Uploads the folder; `StorageError` where the hub refuses, and the folder stays."""
    import warnings

    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    from onereason.errors import StorageError, first_line

    if not sys.stderr.isatty():
        disable_progress_bars()
    warnings.filterwarnings("ignore", message=".*commit a data file")  # the catalog belongs to the model
    api = HfApi()
    try:
        api.create_repo(repo, exist_ok=True, private=private or None)
        found = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="onereason export", delete_patterns=list(OWN_ON_HUB)
        )
    except Exception as error:  # see require_hub
        raise StorageError(
            f"{folder} is written, but {repo} did not take it ({first_line(error)}); push it again with "
            f"`hf upload {repo} {folder}`."
        ) from error
    print(f"pushed to {found.repo_url}")
