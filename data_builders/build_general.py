"""General language data: conversations and question-answer pairs, so that a recommender keeps its language.

    python -m data_builders.build_general --input gsm8k_train.jsonl --out runs/corpora/general
    python -m data_builders.build_general --synthetic 2000 --out runs/demo/corpora/general

A JSON line holds `messages`, or `question` and `answer`, or `prompt` and `completion`, or `instruction` (with an
optional `input`) and `output`. Lines that hold none of them are counted as rejected.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_builders.common import Row, build_parser, run_builder, track, write_corpus
from onereason.data.chat import parse_answer
from onereason.data.prompts import add_switch
from onereason.errors import ConfigError
from onereason.io import require_file

CARD = """
General conversations and exercises, mixed in so that alignment does not cost language. The loss falls on the answers.
The last user turn is closed by the thinking switch: `/think` where the answer holds a trace, `/no_think` elsewhere.
"""

_PAIRS = (("question", "answer"), ("prompt", "completion"), ("instruction", "output"))


def general_row(record: Any, row_id: str) -> Row | str:
    """One row, or the reason why the record gives none.

    Args:
        record: one object of the input, in one of the shapes above.
        row_id: the row's id.
    """
    messages = _messages(record)
    if isinstance(messages, str):
        return messages
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        return "no_answer"
    asked = [i for i, message in enumerate(messages) if message["role"] == "user" and message["content"].strip()]
    if not asked:
        return "no_question"
    mode = "think" if parse_answer(messages[-1]["content"]).think else "no_think"
    last = messages[asked[-1]]
    messages[asked[-1]] = {"role": "user", "content": add_switch(last["content"], mode)}
    return {"id": row_id, "task": "general", "loss": "assistant", "mode": mode, "messages": messages}


def _messages(record: Any) -> list[dict[str, str]] | str:
    """The conversation of a record, or why it holds none."""
    if not isinstance(record, Mapping):
        return "not_an_object"
    if "messages" in record:
        return _checked(record["messages"])
    for question, answer in _PAIRS:
        if question in record and answer in record:
            asked, given = record[question], record[answer]
            if isinstance(asked, list) and isinstance(given, list):  # conversational prompt and completion
                return _checked(asked + given)
            if not isinstance(asked, str) or not isinstance(given, str):
                return "content_not_text"
            extra = record.get("input") if question == "instruction" else None
            if extra:
                asked = f"{asked}\n\n{extra}"
            return [{"role": "user", "content": asked.strip()}, {"role": "assistant", "content": given.strip()}]
    return "unknown_shape"


def _checked(messages: Any) -> list[dict[str, str]] | str:
    """Plain system, user and assistant messages with text, or why they are not."""
    if not isinstance(messages, list) or not messages:
        return "no_messages"
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in ("system", "user", "assistant"):
            return "unknown_role"
        if not isinstance(message.get("content"), str):
            return "content_not_text"
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def read_records(paths: Sequence[Path], rejected: Counter[str]) -> Iterator[tuple[str, Any]]:
    """Row id and object of each line; lines that are not JSON are counted as rejected."""
    for path in paths:
        with path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                if not line.strip():
                    continue
                try:
                    yield f"{path.stem}:{number}", json.loads(line)
                except (json.JSONDecodeError, UnicodeDecodeError):
                    rejected["not_json"] += 1


def general_rows_of(records: Sequence[tuple[str, Any]], rejected: Counter[str]) -> Iterator[Row]:
    """All rows; records that give none are counted by reason."""
    for row_id, record in track(records, len(records), "general rows"):
        row = general_row(record, row_id)
        if isinstance(row, str):
            rejected[row] += 1
        else:
            yield row


def build(args: argparse.Namespace) -> None:
    if bool(args.input) == (args.synthetic is not None):
        raise ConfigError("give either --input FILE ... or --synthetic N.")
    if args.synthetic is not None and args.synthetic < 1:
        raise ConfigError(f"--synthetic must be at least 1, got {args.synthetic}.")
    if args.max_rows is not None and args.max_rows < 1:
        raise ConfigError(f"--max-rows must be at least 1, got {args.max_rows}.")
    rejected: Counter[str] = Counter()
    inputs = [require_file(path, "general data") for path in args.input or ()]
    if inputs:
        records = list(read_records(inputs, rejected))
    else:
        from onereason.data.simulate import general_rows

        records = [(f"synthetic:{i}", record) for i, record in enumerate(general_rows(args.seed, args.synthetic))]
    if args.max_rows is not None and len(records) > args.max_rows:
        chosen = sorted(random.Random(args.seed).sample(range(len(records)), args.max_rows))
        records = [records[i] for i in chosen]
    write_corpus(
        args,
        general_rows_of(records, rejected),
        rejected,
        title="General language data",
        description=CARD,
        inputs=inputs,
        options=("synthetic", "max_rows"),
    )


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(__doc__, timelines=False)
    parser.add_argument("--input", type=Path, nargs="+", help="JSON-lines files")
    parser.add_argument("--synthetic", type=int, metavar="N", help="N generated exercises with exact answers instead")
    parser.add_argument("--max-rows", type=int, help="take a seeded sample of so many records")
    return run_builder(parser, build, argv)


if __name__ == "__main__":
    sys.exit(main())
