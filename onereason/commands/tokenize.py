"""`onereason tokenize`: a dataset -> a catalog folder with semantic ids, the tokenizer that made them, and a report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from onereason.data.schema import Dataset
    from onereason.itemic.embed import Embedder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, type=Path, help="dataset folder (items, interactions)")
    parser.add_argument("--out", required=True, type=Path, help="catalog folder to write")
    parser.add_argument(
        "--format", default="onereason", metavar="NAME|FILE", help="preset or YAML file (default: %(default)s)"
    )
    parser.add_argument("--levels", type=int, metavar="L", help="levels (default: the format's)")
    parser.add_argument("--codes", type=int, metavar="C", help="codes a level (default: the format's)")
    source = parser.add_argument_group("vectors")
    source.add_argument(
        "--embedder",
        default="tfidf",
        metavar="tfidf|sentence:MODEL|array:FILE",
        help="TF-IDF with SVD, a sentence-transformers model by name or folder, or vectors in a .npy, .npz or .parquet "
        "file (default: %(default)s)",
    )
    source.add_argument("--dim", type=int, default=256, help="dimensions of the tfidf embedder (default: %(default)s)")
    source.add_argument("--batch-size", type=int, default=64, help="texts a batch, sentence (default: %(default)s)")
    source.add_argument(
        "--collaborative-weight",
        type=float,
        default=0.0,
        metavar="W",
        help="share of co-occurrence in training histories in the vectors, 0 to 1 (default: %(default)s)",
    )
    source.add_argument("--ids", type=Path, metavar="FILE", help="ready ids (sid_*.json) instead of fitting")
    source.add_argument(
        "--save-vectors",
        action="store_true",
        help="keep the items' vectors beside the catalog, for `onereason extend --init vectors`",
    )
    codes = parser.add_argument_group("codes")
    codes.add_argument(
        "--collision",
        choices=("keep", "reassign", "extra_level"),
        help="what items with equal codes get: nothing, the next free code, or a number (default: reassign; ready ids "
        "are kept)",
    )
    codes.add_argument("--extra-codes", type=int, metavar="C", help="size of the extra level (default: as needed)")
    codes.add_argument("--iterations", type=int, default=20, help="k-means iterations a level (default: %(default)s)")
    codes.add_argument(
        "--max-points-per-centroid", type=int, default=256, help="k-means sample a code (default: %(default)s)"
    )
    parser.add_argument(
        "--validation-start",
        type=int,
        metavar="TIME",
        help="the training part is what lies before this moment (default: all but each user's last two items)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing catalog folder")


def run(args: argparse.Namespace) -> int | None:
    import numpy as np
    from rich.console import Console

    from onereason.data.schema import INTERACTIONS_FILE, ITEMS_FILE, load_dataset
    from onereason.errors import ConfigError, DataError, FormatError
    from onereason.io import atomic_dir, build_manifest, require_output_dir
    from onereason.itemic.catalog import Catalog
    from onereason.itemic.collisions import domain_groups
    from onereason.itemic.embed import VECTORS_FILE
    from onereason.itemic.format import load_format
    from onereason.itemic.sid_report import PLOT_FILE, build_report, render_tables, write_report
    from onereason.itemic.sids import read_sids
    from onereason.itemic.tokenizer import (
        ItemicTokenizer,
        TokenizerConfig,
        arrange_sids,
        build_catalog,
        build_item_vectors,
    )

    # Everything that can be refused is, before anything is embedded or fitted.
    require_output_dir(args.out, args.overwrite, [args.data])
    format = load_format(args.format, args.levels, args.codes)
    config = TokenizerConfig(
        collaborative_weight=args.collaborative_weight,
        collision=args.collision or "reassign",
        extra_codes=args.extra_codes,
        iterations=args.iterations,
        max_points_per_centroid=args.max_points_per_centroid,
        seed=args.seed,
    )
    if args.ids is not None and args.collision not in (None, "keep"):
        raise ConfigError("ready ids (--ids) are taken as they are: --collision does not apply.")
    if args.ids is not None and not args.save_vectors:
        for name, default in (("embedder", "tfidf"), ("collaborative_weight", 0.0)):
            if getattr(args, name) != default:
                option = name.replace("_", "-")
                raise ConfigError(f"with ready ids (--ids), --{option} says only what --save-vectors keeps; add it.")
    dataset = load_dataset(args.data)
    if dataset.items.height == 0:
        raise DataError(f"{args.data / ITEMS_FILE} holds no item; there is nothing to tokenize.")
    item_ids = dataset.items["item_id"].to_list()
    domains = dataset.items["domain"].to_list()
    captions = dataset.items["text"].fill_null("").to_list()
    domain_groups(format, domains)
    if len(set(item_ids)) < len(item_ids):
        raise DataError(f"{args.data / ITEMS_FILE}: item ids stand more than once; import the data anew.")
    if args.ids is not None:
        sids = read_sids(args.ids)
        codes = arrange_sids(sids, item_ids, str(args.ids))
        try:
            Catalog(format, item_ids, codes, domains)
        except FormatError as error:
            raise FormatError(f"{args.ids}: {error}") from error
    histories = training_histories(dataset, item_ids, args.validation_start)
    if config.collaborative_weight > 0 and not histories:
        raise DataError(f"{args.data / INTERACTIONS_FILE} holds no interaction; use --collaborative-weight 0.")

    inputs = [args.data / ITEMS_FILE, args.data / INTERACTIONS_FILE]
    settings: dict[str, Any] = {"validation_start": args.validation_start}
    tokenizer = items = None
    kept_vectors: np.ndarray | None = None
    warnings: list[str] = []
    if args.ids is None or args.save_vectors:
        embedder, text_vectors = build_embedder(
            args.embedder, captions, item_ids, dim=args.dim, batch_size=args.batch_size, seed=args.seed
        )
        described = embedder.describe()
        if "name_or_path" in described:  # a manifest names the model, not where it stands on this machine
            described["name_or_path"] = Path(described["name_or_path"]).name
        settings |= {"embedder": described, "tokenizer": vars(config)}
        if args.embedder.startswith("array:"):
            inputs.append(Path(args.embedder.removeprefix("array:")))
    if args.ids is not None:
        inputs.append(args.ids)
        settings["ids"] = args.ids.name
        if len(sids) > len(item_ids):
            warnings.append(f"{len(sids) - len(item_ids)} id(s) of {args.ids.name} belong to no item of the dataset.")
        if args.save_vectors:
            kept_vectors = build_item_vectors(text_vectors, histories, config).fused
    else:
        tokenizer, items = ItemicTokenizer.fit(
            captions,
            format,
            embedder,
            vectors=text_vectors,
            domains=domains,
            histories=histories,
            config=config,
            progress=True,
        )
        format, codes = items.format, items.codes
        kept_vectors = items.vectors

    catalog = build_catalog(format, item_ids, codes, domains, captions, histories)
    report = build_report(format, codes, domains, tokenizer=tokenizer, items=items, warnings=warnings)
    manifest = build_manifest(
        "catalog",
        inputs=inputs,
        config=settings,
        seed=args.seed,
        counts=catalog.collisions() | {"users": len(histories)},
    )
    with atomic_dir(args.out, args.overwrite) as temporary:
        catalog.write_into(temporary, manifest)
        if tokenizer is not None:
            tokenizer.write_into(temporary)
        if args.save_vectors and kept_vectors is not None:
            np.savez(temporary / VECTORS_FILE, vectors=kept_vectors, item_ids=np.array(item_ids))
        write_report(report, temporary)

    console = Console()
    for table in render_tables(report):
        console.print(table)
    for warning in report["warnings"]:
        console.print(f"note: {warning}", highlight=False, markup=False)
    console.print(f"catalog: {args.out} (plot: {args.out / PLOT_FILE})", highlight=False, markup=False)
    return None


def training_histories(dataset: Dataset, item_ids: list[str], validation_start: int | None) -> list[np.ndarray]:
    """Item indices a user in time order, of the training part only: nothing of validation or test is counted.

    A dataset without interactions has none.
    """
    from onereason.data.timelines import build_timelines, split_leave_one_out, split_temporal

    if dataset.interactions.height == 0:
        return []
    timelines = build_timelines(dataset.interactions, {item: i for i, item in enumerate(item_ids)})
    if validation_start is not None:
        return split_temporal(timelines, validation_start, validation_start + 1).train
    return split_leave_one_out(timelines).train


def build_embedder(
    spec: str, texts: list[str], item_ids: list[str], *, dim: int = 256, batch_size: int = 64, seed: int = 0
) -> tuple[Embedder, np.ndarray]:
    """The embedder that `spec` names, fitted where it needs fitting, and the vectors `[N, D]` of the items.

    Raises:
        ConfigError: `spec` is not `tfidf`, `sentence:MODEL` or `array:FILE`.
    """
    from onereason.errors import ConfigError
    from onereason.itemic.embed import ArrayEmbedder, SentenceEmbedder, TfidfEmbedder, load_precomputed

    kind, _, rest = spec.partition(":")
    if spec == "tfidf":
        tfidf = TfidfEmbedder.fit(texts, dim=dim, seed=seed)
        return tfidf, tfidf.embed(texts)
    if kind == "sentence" and rest:
        sentence = SentenceEmbedder(rest, batch_size)
        return sentence, sentence.embed(texts)
    if kind == "array" and rest:
        vectors = load_precomputed(rest, item_ids)
        return ArrayEmbedder(vectors.shape[1]), vectors
    raise ConfigError(
        f"embedder {spec!r} is not known; use tfidf, sentence:NAME_OR_FOLDER (a sentence-transformers model) or "
        "array:FILE (.npy, .npz, .parquet)."
    )
