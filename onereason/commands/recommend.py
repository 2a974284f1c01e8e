"""`onereason recommend`: ranked items with captions, for a user of a dataset or for a list of items."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onereason.commands.evaluate import add_model_arguments, check_model_arguments

if TYPE_CHECKING:
    from onereason.decoding.recommender import Recommender
    from onereason.serving.remote import RemoteRecommender

HISTORY_SHOWN = 10
CAPTION_SHOWN = 100  # characters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, type=Path, help="model folder (weights, tokenizer, catalog)")
    parser.add_argument(
        "--base-url", metavar="URL", help="ask a server of `onereason serve` for the weights' part: http://HOST:PORT/v1"
    )
    parser.add_argument("--data", type=Path, help="dataset folder that holds --user")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="ID", help="recommend what comes after this user's whole timeline")
    who.add_argument("--items", metavar="ID,ID", help="recommend what comes after these items, oldest first")
    parser.add_argument("--domain", help="domain to recommend in (default: the domain of the newest item)")
    parser.add_argument("--k", type=int, default=10, help="items in the list (default: %(default)s)")
    parser.add_argument("--num-beams", type=int, help="beams (default: 20, or --k where that is more)")
    parser.add_argument(
        "--mode", choices=("no_think", "think"), default="no_think", help="think: sample a trace, then recommend"
    )
    parser.add_argument("--think-budget", type=int, default=4096, metavar="TOKENS", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the trace (default: %(default)s)")
    parser.add_argument("--exclude-seen", action="store_true", help="recommend nothing that stands in the history")
    add_model_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(args: argparse.Namespace) -> int | None:
    from onereason.config import check_seed
    from onereason.decoding.ranking import rank_items
    from onereason.decoding.recommender import load_recommender
    from onereason.decoding.think import SamplingConfig
    from onereason.errors import ConfigError
    from onereason.itemic.catalog import load_model_catalog
    from onereason.itemic.filters import build_filter
    from onereason.itemic.format import ANY_DOMAIN

    check_model_arguments(args)
    check_seed(args.seed)
    sampling = SamplingConfig(args.think_budget)
    num_beams = max(20, args.k) if args.num_beams is None else args.num_beams
    if not 1 <= args.k <= num_beams:
        raise ConfigError(f"k ({args.k}) must lie in 1 .. num_beams ({num_beams}); raise --num-beams or lower --k.")
    catalog = load_model_catalog(args.model)
    history = _user_history(args, catalog) if args.user is not None else _item_history(args, catalog)
    domain = args.domain or catalog.domains[history[-1]]
    told_apart = ANY_DOMAIN not in catalog.format.domains
    if told_apart:
        catalog.format.marker(domain)
        if domain not in catalog.domains:
            raise ConfigError(
                f"domain {domain!r} has no item in the catalog; it has {', '.join(sorted(set(catalog.domains)))}."
            )
    elif args.domain is not None:
        raise ConfigError(
            f"--domain {args.domain} cannot be asked for: format {catalog.format.name!r} does not tell domains apart."
        )
    asked = {"style": args.prompt, "max_history": args.max_history, "language": args.language}
    recommender: Recommender | RemoteRecommender
    if args.base_url is not None:
        if args.dtype is not None or args.device != "auto":
            raise ConfigError("--dtype and --device are the server's where --base-url is given; leave them out.")
        from onereason.serving.remote import connect

        recommender = connect(args.base_url, args.model, **asked)
    else:
        recommender = load_recommender(args.model, **asked, device=args.device, dtype=args.dtype or "float32")
    seen = build_filter(recommender.trie, deny=[history]) if args.exclude_seen else None
    if seen is not None and not seen.count_allowed([recommender.trie.root_of(domain)])[0]:
        raise ConfigError(
            f"the history holds every item of domain {domain!r}; leave out --exclude-seen to recommend them again."
        )
    prompt = recommender.render(history, domain, args.mode)
    trace = None
    if args.mode == "think":
        traces, result = recommender.think([prompt], [domain], [[args.seed]], num_beams, sampling, seen)
        trace = recommender.prompt.tokenizer.decode(traces.lists()[0][0]).strip()
    else:
        result = recommender.search([prompt], [domain], num_beams, seen)
    items, scores = rank_items(recommender.trie, result, args.k, seen)
    ranked = [
        _describe(catalog, index) | {"rank": rank, "score": float(score)}
        for rank, (index, score) in enumerate(zip(items[0].tolist(), scores[0], strict=True), 1)
        if index >= 0
    ]
    answer = {
        "user": args.user,
        "trace": trace,
        "domain": domain if told_apart else None,
        "history": [_describe(catalog, index) for index in history[-recommender.max_history :].tolist()],
        "recommendations": ranked,
    }
    if args.json:
        print(json.dumps(answer, ensure_ascii=False, indent=2))
    else:
        _print_tables(answer, len(history))
    return None


def _item_history(args: argparse.Namespace, catalog: Any) -> Any:
    """Item indices of `--items`."""
    from onereason.errors import CatalogError, ConfigError

    ids = [part.strip() for part in args.items.split(",") if part.strip()]
    if not ids:
        raise ConfigError(f"--items {args.items!r} names no item; give item ids separated by commas.")
    for item in ids:
        if item not in catalog.index:
            raise CatalogError(f"item {item!r} is not in the catalog of {args.model}{_near(item, catalog.item_ids)}.")
    return catalog.indices(ids)


def _user_history(args: argparse.Namespace, catalog: Any) -> Any:
    """Item indices of the user's whole timeline."""
    import polars as pl

    from onereason.data.schema import load_dataset
    from onereason.data.timelines import build_timelines
    from onereason.errors import ConfigError, DataError

    if args.data is None:
        raise ConfigError("--user needs --data, the dataset folder that holds the user.")
    interactions = load_dataset(args.data).interactions
    rows = interactions.filter(pl.col("user_id") == args.user)
    if rows.height == 0:
        users = interactions["user_id"].unique(maintain_order=True).to_list()
        raise DataError(f"user {args.user!r} is not in {args.data}{_near(args.user, users)}.")
    return build_timelines(rows, catalog.index).of(0)


def _near(wanted: str, known: Iterable[str], limit: int = 200_000) -> str:
    """` (did you mean ...?)`, or the first known names where nothing is near."""
    import difflib
    import itertools

    known = list(itertools.islice(known, limit))
    if not known:
        return " (it has none)"
    close = difflib.get_close_matches(wanted, known, n=3)
    return f" (did you mean {', '.join(close)}?)" if close else f" (it has {', '.join(known[:3])}, ...)"


def _describe(catalog: Any, index: int) -> dict[str, Any]:
    return {
        "item_id": catalog.item_ids[index],
        "domain": catalog.domains[index],
        "sid": catalog.render(index),
        "caption": catalog.captions[index],
    }


def _print_tables(answer: dict[str, Any], length: int) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    shown = answer["history"][-HISTORY_SHOWN:]
    who = f"user {answer['user']}" if answer["user"] is not None else "the given items"
    table = Table(title=escape(f"History of {who}: the newest {len(shown)} of {length} items, oldest first"))
    for name in ("item", "sid", "caption"):
        _add_column(table, name)
    for row in shown:
        table.add_row(escape(row["item_id"]), escape(row["sid"]), _one_line(row["caption"]))
    console.print(table)
    if answer["trace"] is not None:
        console.print("Trace:", style="bold")
        console.print(escape(answer["trace"]) or "(empty)", highlight=False)
    where = f" in domain {answer['domain']}" if answer["domain"] else ""
    table = Table(title=escape(f"Recommended next{where}"))
    for name in ("rank", "item", "sid", "score", "caption"):
        _add_column(table, name)
    for row in answer["recommendations"]:
        cells = (escape(row["item_id"]), escape(row["sid"]), f"{row['score']:.3f}", _one_line(row["caption"]))
        table.add_row(str(row["rank"]), *cells)
    console.print(table)


def _one_line(caption: str) -> str:
    """A caption as one literal table cell, cut at a word where it is long (`--json` gives all of it)."""
    from rich.markup import escape

    return escape(textwrap.shorten(caption, CAPTION_SHOWN, placeholder=" ..."))


def _add_column(table: Any, name: str) -> None:
    """A column that stays readable at 80 characters: captions wrap, long sids fold, the rest is never cut."""
    if name == "caption":
        table.add_column(name, ratio=1, min_width=24)
    elif name == "sid":
        table.add_column(name, overflow="fold", min_width=12, max_width=28)
    else:
        table.add_column(name, no_wrap=True, justify="right" if name in ("rank", "score") else "left")
