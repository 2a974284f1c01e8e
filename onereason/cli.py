"""The `onereason` command. Each verb lives in `onereason.commands` and is imported when it is called.

Help answers without importing torch: a verb's module is loaded only to build its own arguments, and it imports heavy
libraries inside its `run`.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from onereason import __version__
from onereason.errors import OnereasonError

VERBS = {
    "simulate": "write a simulated four-domain world: items, timelines, and the truth behind them",
    "data": "import tables of others, import-rows of training data, inspect a corpus, export it to other trainers",
    "tokenize": "text -> embedding -> RQ-KMeans -> catalog of semantic ids, with a report",
    "extend": "add a format's itemic tokens to a Qwen3 model and tokenizer",
    "export": "a model, or an adapter and its base -> one folder to hand on: checked, with a model card; to the hub",
    "average": "several models -> one with the weighted mean of their weights",
    "evaluate": "constrained beams over all users; recall, NDCG, baselines, a report",
    "evaluate-layers": "what a model writes freely: items, relations, interests, the next item, language; both modes",
    "pipeline": "the stages of a whole project from one file: runs what is not done, and reports on all of them",
    "serve": "a model folder behind vLLM's OpenAI-compatible server, its items held to the catalog",
    "recommend": "ranked items with captions for one user or a list of items",
}


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The parser; with `verb`, that verb's own arguments are filled in."""
    parser = argparse.ArgumentParser(prog="onereason", description="A recommender that thinks before it recommends.")
    parser.add_argument("--version", action="version", version=f"onereason {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show the full traceback of an error")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, help_text in VERBS.items():
        sub = subparsers.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        if name == verb:
            module = importlib.import_module(f"onereason.commands.{name.replace('-', '_')}")
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    verb = next((a for a in argv if a in VERBS), None)
    args = build_parser(verb).parse_args(argv)
    try:
        return args.run(args) or 0
    except OnereasonError as error:
        if args.traceback:
            raise
        print(f"onereason {args.verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"onereason {args.verb}: interrupted; what is written is whole.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
