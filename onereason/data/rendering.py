"""Rows -> token ids, with a mark on what the model must generate.

The exact road renders a conversation by the chat template and tokenises the text. `RowTokenizer` takes roads many times
as fast with the same result:

- Conversations that differ in nothing but their itemic tokens (thousands of histories under one prompt) share a frame:
  the row with every run of itemic tokens replaced by one sample token is tokenised once, and the ids of the runs are
  put in the sample's places.
- A text is tokenised piece by piece between its itemic tokens, and pieces that come again (captions) are remembered.

Both are exact because a tokenizer splits text at added tokens before it does anything else, and because the template
looks at no itemic token.

Notation: `R` rows, `T` tokens of all rows.
"""

from __future__ import annotations

import importlib.resources
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise
from typing import Any

import numpy as np

from onereason.errors import ConfigError
from onereason.itemic.format import ItemicFormat
from onereason.itemic.vocabulary import ItemicVocabulary

TEMPLATES = ("qwen3", "qwen3_training")
_MAX_FRAMES = 4096  # frames kept; a corpus of templates has tens
_MAX_PIECES = 200_000  # pieces of text kept: some hundred megabytes at most


@cache
def load_template(name: str) -> str:
    """A chat template of the package, `qwen3` or `qwen3_training`, as text."""
    if name not in TEMPLATES:
        raise ConfigError(f"chat template {name!r} is not known; use {' or '.join(TEMPLATES)}.")
    return (importlib.resources.files("onereason.chat_templates") / f"{name}.jinja").read_text("utf-8")


@dataclass(frozen=True)
class PackedRows:
    """Token ids of several rows, one after another.

    Attributes:
        ids: int32 `[T]`.
        in_assistant: boolean `[T]`, True on what the model must generate (never in a row of plain text).
        offsets: int64 `[R + 1]`; row `r` is `ids[offsets[r]:offsets[r + 1]]`.
    """

    ids: np.ndarray
    in_assistant: np.ndarray
    offsets: np.ndarray


def tokenize_exactly(rows: Sequence[Mapping[str, Any]], tokenizer: Any) -> PackedRows:
    """Renders and tokenises rows that hold `text` or `messages`."""
    texts, spans = _render(rows)
    batch = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False)
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in batch["input_ids"]])]).astype(np.int64)
    ids = np.fromiter(chain.from_iterable(batch["input_ids"]), np.int32, offsets[-1])
    in_assistant = np.zeros(len(ids), dtype=bool)
    for index, row_spans in enumerate(spans):
        for start, end in row_spans:
            low, high = batch.char_to_token(index, start), batch.char_to_token(index, end - 1)
            in_assistant[offsets[index] + low : offsets[index] + high + 1] = True
    return PackedRows(ids, in_assistant, offsets)


def _render(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[tuple[int, int]]]]:
    """The text of each row, and the character spans the model must generate."""
    from transformers.utils.chat_template_utils import render_jinja_template

    texts = [row.get("text") or "" for row in rows]
    spans: list[list[tuple[int, int]]] = [[] for _ in rows]
    chats = [i for i, row in enumerate(rows) if row.get("messages") is not None]
    if chats:
        render: Any = render_jinja_template  # its annotation says str; it returns texts and spans
        rendered, marked = render(
            conversations=[rows[i]["messages"] for i in chats],
            chat_template=load_template("qwen3_training"),
            return_assistant_tokens_mask=True,
        )
        for i, text, found in zip(chats, rendered, marked, strict=True):
            texts[i], spans[i] = text, found
    return texts, spans


@dataclass(frozen=True)
class _Frame:
    """A tokenised row around its runs of itemic tokens: `pieces[0] run[0] pieces[1] run[1] ... pieces[-1]`."""

    pieces: list[list[int]]
    piece_flags: list[list[bool]]
    run_flags: list[bool]


class RowTokenizer:
    """Tokenises rows by the fast roads where they are exact. Keeps frames and pieces between calls."""

    def __init__(self, tokenizer: Any, vocabulary: ItemicVocabulary):
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        tokens = vocabulary.format.tokens()
        self._ids = {token: vocabulary.first_token_id + i for i, token in enumerate(tokens)}
        self._sample = tokens[0]
        self._token = _token_regex(vocabulary.format)
        self._run = re.compile(f"((?:{self._token.pattern})+)")
        self._frames: dict[Any, _Frame | None] = {}
        self._pieces: dict[str, list[int]] = {}

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> PackedRows:
        """Equal to `tokenize_exactly` on the same rows."""
        contents = [
            [row["text"]] if row.get("messages") is None else [m["content"] for m in row["messages"]] for row in rows
        ]
        split = [[self._run.split(content) for content in of_row] for of_row in contents]
        runs = [self._run_ids(of_row) for of_row in split]
        ids: list[list[int] | None] = [None] * len(rows)
        flags: list[list[bool] | None] = [None] * len(rows)

        texts = [i for i, row in enumerate(rows) if row.get("messages") is None and runs[i] is not None]
        self._learn_pieces(chain.from_iterable(split[i][0][::2] for i in texts))
        for i in texts:
            ids[i] = self._join(split[i][0][::2], runs[i] or [])
            flags[i] = [False] * len(ids[i] or ())

        chats = [i for i, row in enumerate(rows) if runs[i] is not None and _is_plain_chat(row)]
        keys = {i: (*(m["role"] for m in rows[i]["messages"]), *(tuple(s[::2]) for s in split[i])) for i in chats}
        seen = Counter(keys.values())
        for i, key in keys.items():
            if key not in self._frames and seen[key] > 1 and len(self._frames) < _MAX_FRAMES:
                self._frames[key] = self._build_frame(key)
            frame = self._frames.get(key)
            if frame is not None:
                ids[i], flags[i] = self._fill(frame, runs[i] or [])

        rest = [i for i, found in enumerate(ids) if found is None]
        if rest:
            exact = tokenize_exactly([rows[i] for i in rest], self.tokenizer)
            for position, i in enumerate(rest):
                span = slice(exact.offsets[position], exact.offsets[position + 1])
                ids[i], flags[i] = exact.ids[span].tolist(), exact.in_assistant[span].tolist()
        offsets = np.concatenate([[0], np.cumsum([len(row or ()) for row in ids])]).astype(np.int64)
        return PackedRows(
            np.fromiter(chain.from_iterable(row or () for row in ids), np.int32, offsets[-1]),
            np.fromiter(chain.from_iterable(row or () for row in flags), bool, offsets[-1]),
            offsets,
        )

    def _run_ids(self, split: Sequence[Sequence[str]]) -> list[list[int]] | None:
        """The ids of a row's itemic runs in order; None where text is spelled like a token outside the format."""
        try:
            return [[self._ids[token] for token in self._token.findall(run)] for parts in split for run in parts[1::2]]
        except KeyError:
            return None

    def _learn_pieces(self, pieces: Iterable[str]) -> None:
        """Tokenises the pieces that are not known yet, in one batch."""
        if len(self._pieces) > _MAX_PIECES:
            self._pieces.clear()
        new = [piece for piece in dict.fromkeys(pieces) if piece and piece not in self._pieces]
        if new:
            batch = self.tokenizer(new, add_special_tokens=False, return_attention_mask=False)
            self._pieces.update(zip(new, batch["input_ids"], strict=True))
        self._pieces[""] = []

    def _join(self, pieces: Sequence[str], runs: Sequence[list[int]]) -> list[int]:
        """The ids of a text: `pieces[0] runs[0] pieces[1] ... pieces[-1]`."""
        ids = list(self._pieces[pieces[0]])
        for run, piece in zip(runs, pieces[1:], strict=True):
            ids += run
            ids += self._pieces[piece]
        return ids

    def _build_frame(self, key: tuple[Any, ...]) -> _Frame | None:
        """Tokenises the conversation of a key (roles, then contents in pieces), a sample in each run's place."""
        roles, contents = key[: len(key) // 2], key[len(key) // 2 :]
        messages = [
            {"role": r, "content": self._sample.join(pieces)} for r, pieces in zip(roles, contents, strict=True)
        ]
        exact = tokenize_exactly([{"messages": messages}], self.tokenizer)
        places = np.flatnonzero(exact.ids == self._ids[self._sample])
        if len(places) != sum(len(pieces) - 1 for pieces in contents):
            return None  # the template dropped a run (a trace of an earlier turn)
        spans = [slice(low + 1, high) for low, high in pairwise([-1, *places.tolist(), len(exact.ids)])]
        return _Frame(
            [exact.ids[span].tolist() for span in spans],
            [exact.in_assistant[span].tolist() for span in spans],
            exact.in_assistant[places].tolist(),
        )

    @staticmethod
    def _fill(frame: _Frame, runs: list[list[int]]) -> tuple[list[int], list[bool]]:
        """The frame with runs of ids in place."""
        ids, flags = list(frame.pieces[0]), list(frame.piece_flags[0])
        for run, flag, piece, piece_flags in zip(
            runs, frame.run_flags, frame.pieces[1:], frame.piece_flags[1:], strict=True
        ):
            ids += run
            ids += piece
            flags += [flag] * len(run)
            flags += piece_flags
        return ids, flags


def _is_plain_chat(row: Mapping[str, Any]) -> bool:
    """Whether a row is a conversation of roles and contents alone, without tool calls and the like."""
    return row.get("messages") is not None and all(len(message) == 2 for message in row["messages"])


def _token_regex(format: ItemicFormat) -> re.Pattern[str]:
    """Matches text spelled like one itemic token; holds no capturing group."""
    code = re.escape(format.code_token).replace(r"\{level\}", "[a-z]").replace(r"\{code\}", "(?:0|[1-9][0-9]*)")
    return re.compile("|".join([*map(re.escape, format.marker_tokens), code]))
