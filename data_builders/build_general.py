"""General language data: conversations and question-answer pairs, so that a recommender keeps its language.

    python -m data_builders.build_general --input gsm8k_train.jsonl --out runs/corpora/general
    python -m data_builders.build_general --synthetic 2000 --out runs/demo/corpora/general

A JSON line holds `messages`, or `question` and `answer`, or `prompt` and `completion`, or `instruction` (with an
optional `input`) and `output`. Lines that hold none of them are counted as rejected.
"""

from __future__ import annotations

import argparse
import random
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_builders.common import Row, build_parser, run_builder
from data_builders.engine import Reject, add_engine_arguments, build_corpus
from onereason.data.chat import parse_answer
from onereason.data.control_tokens import find_control_token
from onereason.data.prompts import add_switch
from onereason.errors import ConfigError
from onereason.io import parse_json, require_file

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
    if any(find_control_token(m["content"], may_think=m["role"] == "assistant") for m in messages):
        return "control_tokens"
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


@dataclass(frozen=True)
class Lines:
    """Where the lines of the inputs that are not blank stand; their text stays in the files.

    Attributes:
        paths: the files.
        files: position in `paths` of each line, int32 `[N]`.
        numbers: number of each line in its file, from 1, int64 `[N]`.
        offsets: first byte of each line in its file, int64 `[N]`.
    """

    paths: Sequence[Path]
    files: np.ndarray
    numbers: np.ndarray
    offsets: np.ndarray

    @classmethod
    def scan(cls, paths: Sequence[Path]) -> Lines:
        places = [_scan(path) for path in paths]
        files = np.repeat(np.arange(len(paths), dtype=np.int32), [len(place) for place in places])
        numbers, offsets = np.concatenate(places).T
        return cls(paths, files, numbers, offsets)

    def __len__(self) -> int:
        return len(self.files)

    def take(self, places: Sequence[int]) -> Lines:
        chosen = np.asarray(places)
        return Lines(self.paths, self.files[chosen], self.numbers[chosen], self.offsets[chosen])

    def read(self, start: int, stop: int) -> list[tuple[str, bytes]]:
        """Row id and text of the lines `[start, stop)`. Files of one name are told apart by their position."""
        stems = [path.stem for path in self.paths]
        found = []
        for file in np.unique(self.files[start:stop]).tolist():
            name = stems[file] if stems.count(stems[file]) == 1 else f"{stems[file]}.{file + 1}"
            places = np.flatnonzero(self.files[start:stop] == file) + start
            with self.paths[file].open("rb") as handle:
                for number, offset in zip(self.numbers[places].tolist(), self.offsets[places].tolist(), strict=True):
                    handle.seek(offset)
                    found.append((f"{name}:{number}", handle.readline()))
        return found


def _scan(path: Path) -> np.ndarray:
    """Number and first byte of each line that is not blank, int64 `[n, 2]`."""
    found = array("q")
    offset = 0
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            if not line.isspace():
                found.extend((number, offset))
            offset += len(line)
    return np.array(found, np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class LineSource:
    """Rows of JSON-lines files; a unit is a line."""

    lines: Lines

    @property
    def num_units(self) -> int:
        return len(self.lines)

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        rows, rejects = [], []
        for row_id, line in self.lines.read(start, stop):
            try:
                row = general_row(parse_json(line), row_id)
            except ValueError:
                row = "not_json"
            if isinstance(row, str):
                rejects.append(Reject(row_id, row, line[:200].decode(errors="replace").strip()))
            else:
                rows.append(row)
        return rows, rejects


@dataclass(frozen=True)
class SyntheticSource:
    """Rows of generated exercises; a unit is an exercise."""

    records: Sequence[tuple[int, Any]]

    @property
    def num_units(self) -> int:
        return len(self.records)

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        made = [general_row(record, f"synthetic:{place}") for place, record in self.records[start:stop]]
        return [row for row in made if not isinstance(row, str)], []


def sample(count: int, max_rows: int | None, seed: int) -> Sequence[int]:
    """Places of the records that are taken, in order."""
    if max_rows is None or count <= max_rows:
        return range(count)
    return sorted(random.Random(seed).sample(range(count), max_rows))


def check_arguments(args: argparse.Namespace) -> None:
    """`ConfigError` for a value that makes no sense."""
    if bool(args.input) == (args.synthetic is not None):
        raise ConfigError("give either --input FILE ... or --synthetic N.")
    if args.synthetic is not None and args.synthetic < 1:
        raise ConfigError(f"--synthetic must be at least 1, got {args.synthetic}.")
    if args.max_rows is not None and args.max_rows < 1:
        raise ConfigError(f"--max-rows must be at least 1, got {args.max_rows}.")
    for path in args.input or ():
        require_file(path, "general data")


def build(args: argparse.Namespace) -> None:
    check_arguments(args)
    inputs = list(args.input or ())
    source: LineSource | SyntheticSource
    if inputs:
        lines = Lines.scan(inputs)
        chosen = sample(len(lines), args.max_rows, args.seed)
        source = LineSource(lines.take(chosen) if len(chosen) < len(lines) else lines)
    else:
        from onereason.data.simulate import general_rows

        records = list(enumerate(general_rows(args.seed, args.synthetic)))
        source = SyntheticSource([records[i] for i in sample(len(records), args.max_rows, args.seed)])
    build_corpus(
        args,
        source,
        title="General language data",
        description=CARD,
        inputs=inputs,
        options=("synthetic", "max_rows"),
    )


def make_parser() -> argparse.ArgumentParser:
    parser = build_parser(__doc__, timelines=False)
    parser.add_argument("--input", type=Path, nargs="+", help="JSON-lines files")
    parser.add_argument("--synthetic", type=int, metavar="N", help="N generated exercises with exact answers instead")
    parser.add_argument("--max-rows", type=int, help="take a seeded sample of so many records")
    add_engine_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_builder(make_parser(), build, argv)


if __name__ == "__main__":
    sys.exit(main())
