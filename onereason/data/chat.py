"""Rows of a corpus -> token ids and loss masks; generated text -> trace and answer.

A row is one JSON object: `id`, `task` (a short lower-case name), `loss` (see `onereason.data.spans.LOSSES`), `mode`,
and either `text` or `messages`; it may say the `domain` of its answer, the `user` it is made of and the `teacher` who
wrote it. Conversations are rendered by `chat_templates/qwen3_training.jinja`, whose generation marks say what the model
must generate.
"""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, overload

import numpy as np

from onereason.data.fitting import Tokenize, fit_rows
from onereason.data.prompts import MODES
from onereason.data.rendering import RowTokenizer, load_template, tokenize_exactly
from onereason.data.spans import LOSSES, build_loss_mask, find_patterns
from onereason.errors import DataError
from onereason.itemic.vocabulary import ItemicVocabulary

__all__ = [
    "LOSSES",
    "Answer",
    "EncodedRows",
    "check_row",
    "encode_row",
    "encode_rows",
    "iter_supervised",
    "load_template",
    "parse_answer",
]

TURN_START, TURN_END, TEXT_END = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
THINK_START, THINK_END = "<think>", "</think>"

_TASK = re.compile(r"[a-z][a-z0-9_]*")
_ROLES = ("system", "user", "assistant", "tool")
_NAMES = ("domain", "user", "teacher")  # a row may leave them out
_CHUNK = 1024  # rows tokenised at once: enough to be fast, few enough to stay small in memory
_log = logging.getLogger(__name__)


# -- generated text -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """A generated turn, taken apart.

    Attributes:
        think: the trace, or None where there is none (no think block, or an empty one).
        answer: what follows it.
        closed: False where a think block was opened and never closed, so that there is no answer.
    """

    think: str | None
    answer: str
    closed: bool


def parse_answer(text: str) -> Answer:
    """Splits the think block from the answer and drops the stop token and what follows it.

    The think block may lack its opening tag, as it does when the prompt has opened it already.
    """
    for stop in (TURN_END, TEXT_END):
        text = text.partition(stop)[0]
    before, closing, after = text.partition(THINK_END)
    if not closing:
        _, opening, trace = text.partition(THINK_START)
        if opening:
            return Answer(trace.strip() or None, "", False)
        return Answer(None, text.strip(), True)
    trace = before.rpartition(THINK_START)[2]
    return Answer(trace.strip() or None, after.strip(), True)


# -- rows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EncodedRows(Sequence[dict[str, list]]):
    """Tokenised rows in flat arrays; item `i` is `{"input_ids": list[int], "loss_mask": list[bool]}`.

    Attributes:
        input_ids: int32 `[T]`, all rows one after another.
        loss_mask: boolean `[T]`, True where a token takes a loss.
        offsets: int64 `[R + 1]`.
        source: int64 `[R]`, which of the rows given each one is.
        rejected: reason -> how many rows were left out.
    """

    input_ids: np.ndarray
    loss_mask: np.ndarray
    offsets: np.ndarray
    source: np.ndarray
    rejected: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 `[R]`."""
        return np.diff(self.offsets)

    @overload
    def __getitem__(self, index: int) -> dict[str, list]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, list]]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)} encoded rows")
        span = slice(*self.offsets[index % len(self) : index % len(self) + 2])
        return {"input_ids": self.input_ids[span].tolist(), "loss_mask": self.loss_mask[span].tolist()}


def check_row(row: Mapping[str, Any]) -> None:
    """`DataError` naming the row and the key that is missing or wrong."""
    name = f"row {row.get('id', '(without id)')!r}"
    task = row.get("task")
    if not isinstance(task, str) or not _TASK.fullmatch(task):
        raise DataError(
            f"{name}: task is {task!r}; use a name of lower-case letters, digits and underscores, such as 'persona'."
        )
    for key, known in (("loss", LOSSES), ("mode", MODES)):
        if row.get(key) not in known:
            raise DataError(f"{name}: {key} is {row.get(key)!r}; use one of {', '.join(known)}.")
    for key in _NAMES:
        if key in row and (not isinstance(row[key], str) or not row[key]):
            raise DataError(f"{name}: {key} must be a non-empty string, got {row[key]!r}; or leave it out.")
    text, messages = row.get("text"), row.get("messages")
    if (text is None) == (messages is None):
        raise DataError(f"{name}: needs either 'text' or 'messages', has {'both' if text is not None else 'neither'}.")
    if text is not None:
        if not isinstance(text, str) or not text:
            raise DataError(f"{name}: 'text' must be a non-empty string, got {text!r}.")
        if row["loss"] in ("assistant", "target_items"):
            raise DataError(f"{name}: loss {row['loss']!r} needs 'messages' (a text has no assistant turn).")
        return
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{name}: 'messages' must be a non-empty list, got {messages!r}.")
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
            raise DataError(f"{name}: each message needs a role out of {', '.join(_ROLES)}, got {message!r}.")
        if not isinstance(message.get("content"), str):
            raise DataError(f"{name}: the content of a message must be a string, got {message.get('content')!r}.")
    if row["loss"] not in ("all", "none") and messages[-1]["role"] != "assistant":
        raise DataError(f"{name}: the last message must be the assistant's, is the {messages[-1]['role']}'s.")


def encode_row(
    row: Mapping[str, Any], tokenizer: Any, vocabulary: ItemicVocabulary, max_length: int | None = None
) -> dict[str, list]:
    """One row as `{"input_ids": list[int], "loss_mask": list[bool]}`.

    A row longer than `max_length` loses its oldest history (see `onereason.data.fitting`), never its instruction or
    answer.

    Raises:
        DataError: the row is malformed, does not fit even without history, or supervises no token though its loss is
            not `none`.
    """
    check_row(row)
    chunk = _encode_chunk([row], partial(tokenize_exactly, tokenizer=tokenizer), tokenizer, vocabulary, max_length)
    if chunk.rejected:
        reason = next(iter(chunk.rejected))
        why = {
            "too_long": f"does not fit max_length {max_length} even with its oldest history cut; raise max_length",
            "nothing_supervised": f"has no token that loss {row['loss']!r} supervises",
        }[reason]
        raise DataError(f"row {row.get('id')!r} {why}.")
    return chunk[0]


def encode_rows(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    vocabulary: ItemicVocabulary,
    max_length: int | None = None,
    progress: bool | None = None,
) -> EncodedRows:
    """A whole corpus, tokenised in batches; equal to `encode_row` row by row.

    Rows that do not fit `max_length` or supervise nothing are left out, counted in `rejected`, and logged as one line.
    Rows of loss `none` stay, with a mask that is False throughout.

    Args:
        progress: shows a bar on stderr; by default where stderr is a terminal.

    Raises:
        DataError: a row is malformed, or no row is left.
    """
    from rich.console import Console
    from rich.progress import Progress

    if not len(rows):
        raise DataError("the corpus is empty: there is no row to encode.")
    show = sys.stderr.isatty() if progress is None else progress
    tokenize = RowTokenizer(tokenizer, vocabulary)
    chunks: list[EncodedRows] = []
    with Progress(disable=not show, console=Console(stderr=True)) as bar:
        task = bar.add_task("encoding rows", total=len(rows))
        for start in range(0, len(rows), _CHUNK):
            some = rows[start : start + _CHUNK]
            for row in some:
                check_row(row)
            chunks.append(_encode_chunk(some, tokenize, tokenizer, vocabulary, max_length, start))
            bar.advance(task, len(some))
    rejected = sum((Counter(c.rejected) for c in chunks), Counter())
    lengths = np.concatenate([c.lengths for c in chunks])
    encoded = EncodedRows(
        np.concatenate([c.input_ids for c in chunks]),
        np.concatenate([c.loss_mask for c in chunks]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([c.source for c in chunks]),
        dict(rejected),
    )
    if rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(rejected.items()))
        _log.warning(
            "left out %d of %d rows at max_length %s: %s", len(rows) - len(encoded), len(rows), max_length, reasons
        )
    if not len(encoded):
        raise DataError(
            f"no row of the corpus is left at max_length {max_length} ({dict(rejected)}); raise max_length."
        )
    return encoded


def _encode_chunk(
    rows: Sequence[Mapping[str, Any]],
    tokenize: Tokenize,
    tokenizer: Any,
    vocabulary: ItemicVocabulary,
    max_length: int | None,
    first: int = 0,
) -> EncodedRows:
    """Tokenises, fits and masks some rows; `first` is the number of the first one in the corpus."""
    packed = tokenize(rows)
    alive = np.ones(len(rows), dtype=bool)
    rejected: Counter[str] = Counter()
    if max_length is not None:
        turn_start = tokenizer.convert_tokens_to_ids(TURN_START)
        packed, alive = fit_rows(rows, packed, tokenize, vocabulary, max_length, turn_start)
        if not alive.all():
            rejected["too_long"] += int((~alive).sum())
    ids, offsets = packed.ids, packed.offsets
    lengths = np.diff(offsets)
    patterns = find_patterns(ids, offsets, vocabulary)
    losses = np.array([row["loss"] for row in rows])
    mask = build_loss_mask(losses, offsets, packed.in_assistant, patterns)

    # a row's first token is predicted from nothing, so it does not count
    before = np.concatenate([[0], np.cumsum(mask)])
    empty = alive & (losses != "none") & (before[offsets[1:]] == before[np.minimum(offsets[:-1] + 1, offsets[1:])])
    if empty.any():
        rejected["nothing_supervised"] += int(empty.sum())
        stays = np.repeat(~empty, lengths)
        ids, mask = ids[stays], mask[stays]
        alive = alive & ~empty
    offsets = np.concatenate([[0], np.cumsum(lengths[alive])])
    return EncodedRows(ids, mask, offsets, first + np.flatnonzero(alive), dict(rejected))


def iter_supervised(encoded: EncodedRows) -> Iterator[np.ndarray]:
    """The supervised token ids of each row, for looking at what a corpus teaches."""
    for low, high in pairwise(encoded.offsets):
        yield encoded.input_ids[low:high][encoded.loss_mask[low:high]]
