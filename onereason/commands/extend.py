"""`onereason extend`: a base model and a format -> a complete model folder that knows the itemic tokens."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from onereason.itemic.catalog import Catalog
    from onereason.itemic.format import ItemicFormat
    from onereason.itemic.vocabulary import ItemicVocabulary

TINY = "tiny"


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of a `--base tiny` model; see `onereason.model.tiny.build_tiny_model`."""

    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    intermediate_size: int | None = None
    max_position_embeddings: int = 40_960
    rope_theta: float = 1_000_000.0
    initializer_range: float = 0.02
    attention_dropout: float = 0.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--base", required=True, metavar="tiny|PATH|HUB_NAME", help="a random small Qwen3, a model folder, a hub name"
    )
    parser.add_argument("--out", required=True, type=Path, help="model folder to write")
    parser.add_argument("--format", metavar="NAME|FILE", help="preset or YAML file (default: the catalog's)")
    parser.add_argument("--levels", type=int, metavar="L", help="levels (default: the format's)")
    parser.add_argument("--codes", type=int, metavar="C", help="codes a level (default: the format's)")
    parser.add_argument(
        "--catalog", type=Path, metavar="DIR", help="catalog folder; it is copied into the model folder"
    )
    parser.add_argument(
        "--init",
        default="mean_noise",
        choices=("mean_noise", "description", "vectors", "copy_default"),
        help="new rows from the old rows' mean with noise, from captions (needs --catalog), from item vectors (needs a "
        "--catalog made with --save-vectors), or transformers' default (default: %(default)s)",
    )
    parser.add_argument(
        "--pad-to-multiple", type=int, default=64, metavar="M", help="rows grow to a multiple of this (default: 64)"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="weights (default: the base's)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    tiny = parser.add_argument_group("with --base tiny")
    tiny.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="tokenizer folder (default: trained on the captions)"
    )
    tiny.add_argument(
        "--corpora", type=Path, nargs="+", metavar="DIR", help="corpora whose words the tokenizer is trained on as well"
    )
    tiny.add_argument("--vocab-size", type=int, default=2048, help="tokens of the trained tokenizer (default: 2048)")
    tiny.add_argument("--base-config", nargs="+", default=[], metavar="KEY=VALUE", help="e.g. hidden_size=128")
    tiny.add_argument("--tie", action=argparse.BooleanOptionalAction, help="tied embeddings (default: tied)")


def run(args: argparse.Namespace) -> None:
    from onereason.config import check_seed
    from onereason.errors import ConfigError
    from onereason.io import require_output_dir
    from onereason.itemic.catalog import Catalog
    from onereason.itemic.vocabulary import ITEMIC_FILE, ItemicVocabulary

    check_seed(args.seed, "--seed")
    if args.pad_to_multiple < 1:
        raise ConfigError(f"--pad-to-multiple must be at least 1, got {args.pad_to_multiple}.")
    if args.init in ("description", "vectors") and args.catalog is None:
        raise ConfigError(f"--init {args.init} needs --catalog; pass one or use --init mean_noise.")
    catalog = None if args.catalog is None else Catalog.load(args.catalog)
    if args.base != TINY and (Path(args.base) / ITEMIC_FILE).is_file():
        extended = ItemicVocabulary.load(args.base)
        format = _choose_format(args, catalog, extended)
        _refuse_other_format(args.base, extended, format)
        _keep_extended(args, extended, catalog)
        return
    format = _choose_format(args, catalog, None)
    inputs = [args.catalog, args.tokenizer, None if args.base == TINY else args.base]
    require_output_dir(args.out, args.overwrite, [path for path in inputs if path is not None])
    _extend(args, format, catalog)


def _choose_format(
    args: argparse.Namespace, catalog: Catalog | None, extended: ItemicVocabulary | None
) -> ItemicFormat:
    """`--format` with its shape, else the catalog's, else the one the base has; the catalog must have it too."""
    from onereason.errors import ConfigError, FormatError
    from onereason.itemic.format import load_format

    known = catalog.format if catalog is not None else extended.format if extended is not None else None
    if args.format is None and known is None:
        raise ConfigError("--format is missing; name a preset or a YAML file, or pass --catalog to take the catalog's.")
    if args.format is not None:
        format = load_format(args.format, args.levels, args.codes)
    else:
        assert known is not None
        reshape = args.levels is not None or args.codes is not None
        format = known.with_shape(args.levels, args.codes) if reshape else known
    if catalog is not None and catalog.format != format:
        raise FormatError(
            f"--format {format.name!r} with codes a level {list(format.codes_per_level)} is not the catalog's: "
            f"{args.catalog} uses {catalog.format.name!r} with {list(catalog.format.codes_per_level)}; leave --format, "
            "--levels and --codes out to take the catalog's."
        )
    return format


def _refuse_other_format(base: str, extended: ItemicVocabulary, format: ItemicFormat) -> None:
    from onereason.errors import ModelError

    if extended.format != format:
        raise ModelError(
            f"{base} already has the tokens of format {extended.format.name!r} with codes a level "
            f"{list(extended.format.codes_per_level)}; format {format.name!r} with {list(format.codes_per_level)} "
            "cannot be added on top, a model speaks one itemic format; start from a base without itemic tokens."
        )


def _keep_extended(args: argparse.Namespace, extended: ItemicVocabulary, catalog: Catalog | None) -> None:
    """A base that has the format already: nothing changes but, where asked, the folder's place and its catalog."""
    from onereason.errors import ConfigError
    from onereason.io import atomic_dir, read_json
    from onereason.itemic.trie_file import save_catalog_trie
    from onereason.model.folder import CONFIG_FILE, check_weights, load_tokenizer_folder

    folder = load_tokenizer_folder(args.base)  # complete, and its parts belong together
    check_weights(folder.path)
    stored = read_json(folder.path / CONFIG_FILE).get("dtype")
    if args.dtype not in (None, stored):
        raise ConfigError(
            f"{args.base} is extended already and keeps its weights ({stored}); leave out --dtype {args.dtype}."
        )
    ids = f"ids {extended.first_token_id} to {extended.end_token_id - 1}"
    same = catalog is None or (folder.catalog is not None and catalog.to_frame().equals(folder.catalog.to_frame()))
    in_place = args.out.exists() and args.out.samefile(args.base)
    if in_place and same:
        print(f"{args.base} has the tokens of format {extended.format.name!r} already ({ids}): nothing to do.")
        return
    with atomic_dir(args.out, args.overwrite) as temporary:
        shutil.copytree(args.base, temporary, dirs_exist_ok=True)
        if not same and catalog is not None:
            catalog.write_into(temporary)
            save_catalog_trie(temporary, catalog, extended)
    changed = "weights and ids unchanged" + ("" if same else ", catalog replaced")
    print(
        f"{args.base} has the tokens of format {extended.format.name!r} already ({ids}): {changed}; wrote {args.out}."
    )


def _extend(args: argparse.Namespace, format: ItemicFormat, catalog: Catalog | None) -> None:
    from onereason.io import build_manifest
    from onereason.itemic.catalog import CATALOG_TABLE
    from onereason.model.extend import extend_model, find_vocabulary
    from onereason.model.folder import save_model_folder, unused_row_ids

    vectors = None if args.init != "vectors" or catalog is None else _load_vectors(args.catalog, catalog)
    model, tokenizer = _build_tiny(args, catalog) if args.base == TINY else _load_base(args)
    adopted = find_vocabulary(tokenizer, format) is not None
    rows_before, tokens_before = model.get_input_embeddings().weight.shape[0], len(tokenizer)
    model, tokenizer, vocabulary = extend_model(
        model,
        tokenizer,
        format,
        catalog=catalog,
        vectors=vectors,
        init=args.init,
        pad_to_multiple=args.pad_to_multiple,
        seed=args.seed,
    )
    rows_after = model.get_input_embeddings().weight.shape[0]
    counts = {
        "tokens_before": tokens_before,
        "tokens_after": len(tokenizer),
        "rows_before": rows_before,
        "rows_after": rows_after,
        "rows_without_token": len(unused_row_ids(rows_after, tokenizer)),
        "parameters": model.num_parameters(),
    }
    init = "kept (the tokenizer had the tokens)" if adopted else args.init
    inputs = [] if args.base == TINY else sorted(Path(args.base).glob("model*.safetensors"))
    inputs += [] if args.tokenizer is None else [args.tokenizer / "tokenizer.json"]
    inputs += [] if args.catalog is None else [args.catalog / CATALOG_TABLE]
    manifest = build_manifest(
        "model",
        inputs=[path for path in inputs if path.is_file()],
        config={
            "base": args.base if args.base == TINY else Path(args.base).name,
            "base_config": list(args.base_config),
            "format": format.to_dict(),
            "init": init,
            "pad_to_multiple": args.pad_to_multiple,
            "dtype": str(model.dtype).removeprefix("torch."),
        },
        seed=args.seed,
        counts=counts,
    )
    save_model_folder(model, tokenizer, vocabulary, catalog, args.out, manifest, args.overwrite)
    _print_table(args.out, vocabulary, counts, init, model)


def _load_vectors(folder: Path, catalog: Catalog) -> np.ndarray:
    """The item vectors that `onereason tokenize --save-vectors` left in a catalog folder."""
    from onereason.errors import ConfigError
    from onereason.itemic.embed import VECTORS_FILE, load_precomputed

    path = folder / VECTORS_FILE
    if not path.is_file():
        raise ConfigError(
            f"--init vectors: {path} not found; make the catalog with `onereason tokenize --save-vectors`, or use "
            "another --init."
        )
    return load_precomputed(path, catalog.item_ids)


def _build_tiny(args: argparse.Namespace, catalog: Catalog | None) -> tuple[Any, Any]:
    from onereason.config import load_config
    from onereason.errors import ConfigError
    from onereason.model.folder import DTYPES, load_tokenizer
    from onereason.model.tiny import BASE_TEXTS, build_tiny_model, build_tiny_tokenizer

    config = load_config(TinyConfig, overrides=args.base_config)
    if args.tokenizer is not None:
        if not (args.tokenizer / "tokenizer.json").is_file():
            raise ConfigError(f"--tokenizer {args.tokenizer}: no tokenizer.json there; pass a tokenizer's folder.")
        tokenizer = load_tokenizer(args.tokenizer)
    elif catalog is not None:
        captions = [c for c in catalog.captions if c]
        repeat = 2 + len(captions) // 50  # the prompts' words count as much as frequent words of captions
        words = [text for corpus in args.corpora or () for text in _corpus_texts(corpus, catalog.format)]
        tokenizer = build_tiny_tokenizer([*captions, *BASE_TEXTS * repeat, *words], args.vocab_size)
    else:
        raise ConfigError("--base tiny needs --tokenizer DIR, or --catalog DIR to train a tokenizer on its captions.")
    tie = True if args.tie is None else args.tie
    model: Any = build_tiny_model(tokenizer, **dataclasses.asdict(config), tie=tie, seed=args.seed)
    return model.to(DTYPES[args.dtype or "float32"]), tokenizer


def _corpus_texts(folder: Path, format: ItemicFormat, most: int = 2000) -> list[str]:
    """The texts of a corpus's first rows without their itemic tokens."""
    import re
    from itertools import islice

    from onereason.io import iter_jsonl

    tokens = re.compile("|".join(map(re.escape, sorted(format.tokens(), key=len, reverse=True))))
    rows = islice(iter_jsonl(folder / "rows.jsonl", f"corpus {folder}"), most)
    contents = (
        text for row in rows for text in [row.get("text") or "", *(m["content"] for m in row.get("messages") or ())]
    )
    return [tokens.sub(" ", text) for text in contents if text]


def _load_base(args: argparse.Namespace) -> tuple[Any, Any]:
    """Model and tokenizer of a folder or a hub name without `itemic.json`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from onereason.errors import ConfigError, ModelError
    from onereason.model.folder import CONFIG_FILE, DTYPES, quiet_progress

    given = [f"--{n}" for n in ("tokenizer", "base_config", "tie") if getattr(args, n) not in (None, [])]
    if given:
        raise ConfigError(f"{given[0].replace('_', '-')} goes with --base tiny; --base {args.base} has its own.")
    local = Path(args.base).is_dir()
    if local and not (Path(args.base) / CONFIG_FILE).is_file():
        raise ModelError(f"--base {args.base} holds no {CONFIG_FILE}; pass a transformers model folder.")
    if not local and (args.base.startswith((".", "/", "~")) or args.base.count("/") > 1):
        raise ModelError(f"--base {args.base}: no such folder; pass a model folder, a hub name, or 'tiny'.")
    if not local:
        _require_hub(args.base)
    dtype = "auto" if args.dtype is None else DTYPES[args.dtype]
    try:
        tokenizer = AutoTokenizer.from_pretrained(args.base)
        with quiet_progress():
            model = AutoModelForCausalLM.from_pretrained(args.base, dtype=dtype)
    except Exception as error:  # hub, network, safetensors and tokenizers each have their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        way_out = "" if local else " and cannot be fetched from the hub; pass a folder that holds the model"
        what = "cannot be loaded" if local else "is not a folder"
        raise ModelError(f"--base {args.base} {what}{way_out} ({reason})") from error
    if model.get_output_embeddings() is None:
        raise ModelError(
            f"--base {args.base} has no output layer over tokens; pass a causal language model such as Qwen3."
        )
    return model.eval(), tokenizer


def _require_hub(name: str) -> None:
    """`ModelError` at once where a hub name is neither cached nor reachable; the hub's client retries for a minute."""
    import socket
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    from huggingface_hub import constants, try_to_load_from_cache

    from onereason.errors import ModelError

    if getproxies() or constants.HF_HUB_OFFLINE or isinstance(try_to_load_from_cache(name, "config.json"), str):
        return  # a proxy resolves names itself; offline or cached, the client answers at once
    url = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((url.hostname or "", url.port or (80 if url.scheme == "http" else 443)), 10).close()
    except OSError as error:
        raise ModelError(
            f"--base {name} is not a folder, and the hub at {constants.ENDPOINT} cannot be reached ({error}); "
            "pass a folder that holds the model."
        ) from error


def _print_table(out: Path, vocabulary: ItemicVocabulary, counts: dict[str, int], init: str, model: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from onereason.model.extend import is_tied

    tokens = vocabulary.format.tokens()
    table = Table(
        title=f"format {vocabulary.format.name} {list(vocabulary.format.codes_per_level)}",
        title_justify="left",
        show_header=False,
    )
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in (
        ("first token", f"{tokens[0]} = {vocabulary.first_token_id}"),
        ("last token", f"{tokens[-1]} = {vocabulary.end_token_id - 1}"),
        ("tokens", f"{counts['tokens_before']} -> {counts['tokens_after']}"),
        ("embedding rows", f"{counts['rows_before']} -> {counts['rows_after']}"),
        ("rows without a token (suppressed)", str(counts["rows_without_token"])),
        ("embeddings", "tied" if is_tied(model) else "untied"),
        ("initial rows", init),
        ("parameters", f"{counts['parameters']:,}"),
    ):
        table.add_row(name, value)
    console = Console()
    console.print(table, markup=False)
    console.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)
