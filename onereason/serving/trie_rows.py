"""Which items the rows of a server's batch may write: their state, and the mask over their next tokens.

Free of any server's code, so that it is tested without one; `onereason.serving.vllm_trie` is vLLM's side of it.

Notation: `R` rows of the batch, `V` vocabulary, `L` levels, `C` codes that may come next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from onereason.decoding.processor import find_children, find_open_items
from onereason.errors import ConfigError
from onereason.itemic.filters import NodeFilter, build_filter
from onereason.itemic.trie import ItemTrie

LEGAL, SCORE, FREE = MODES = ("legal", "score", "free")
NO_TOKEN = -2
"""Fills windows of tokens; no token's id, and no root's begin token (-1 where the format has none)."""


@dataclass(frozen=True, eq=False)
class RowRequest:
    """What one request asks of the mask.

    Attributes:
        trie: the items as they were when the request came; a catalog that is replaced meanwhile changes nothing for it.
        mode: `legal`, `score` or `free`.
        prompt: the newest tokens of the prompt, `L` at most; for formats without begin tokens, a -1 stands where the
            item begins.
        output: the tokens written so far; a list that the server adds to.
        node_filter: of its deny and allow lists, None without any.
    """

    trie: ItemTrie
    mode: str
    prompt: tuple[int, ...]
    output: Sequence[int]
    node_filter: NodeFilter | None

    def window(self) -> list[int]:
        """The newest `L` tokens, filled up on the left."""
        size = self.trie.num_levels
        newest = [*self.prompt, *self.output[-size:]][-size:]
        return [NO_TOKEN] * (size - len(newest)) + newest


def check_options(options: Mapping[str, Any]) -> None:
    """`ConfigError` for values that make no sense, whatever the catalog."""
    mode = options.get("items", LEGAL)
    if mode not in MODES:
        raise ConfigError(f"items must be {', '.join(MODES)}, got {mode!r}.")
    for name in ("deny", "allow"):
        value = options.get(name)
        if value is not None and not (isinstance(value, list) and all(type(token) is int for token in value)):
            raise ConfigError(f"{name} must be a list of token ids, got {value!r:.80}.")
    written = options.get("written")
    if written is not None and (type(written) is not int or written < 0):
        raise ConfigError(f"written must be a number of codes, got {written!r:.80}.")


def read_request(
    trie: ItemTrie, options: Mapping[str, Any], prompt: Sequence[int], output: Sequence[int]
) -> RowRequest:
    """A request as it is added to the batch.

    Args:
        options: `items`, the mode; `deny` and `allow`, patterns without end tokens (begin token where there is one, and
            `L` codes), one behind the other; `written`, for formats without begin tokens: how many of the prompt's last
            tokens are codes of the item that is being written (without it, nothing is held back).

    Raises:
        ConfigError: a value that makes no sense.
    """
    check_options(options)
    tail = list(prompt[-trie.num_levels :]) if len(prompt) else []
    if int(trie.begin_ids[0]) < 0:
        written = options.get("written")
        opened = [] if written is None or written >= trie.num_levels else [-1, *tail[len(tail) - written :]]
        tail = [NO_TOKEN] * trie.num_levels + opened
    deny, allow = (
        None if options.get(name) is None else [_leaf_items(trie, options[name], name)] for name in ("deny", "allow")
    )
    found = None if deny is None and allow is None else build_filter(trie, deny, allow)
    return RowRequest(trie, options.get("items", LEGAL), tuple(tail[-trie.num_levels :]), output, found)


def _leaf_items(trie: ItemTrie, tokens: Sequence[int], name: str) -> np.ndarray:
    """The items under the sids of a list; sids that the catalog does not have are passed over."""
    has_begin = int(trie.begin_ids[0]) >= 0
    width = trie.num_levels + has_begin
    if len(tokens) % width:
        raise ConfigError(f"{name} must hold {width} token ids a sid, got {len(tokens)} in all.")
    patterns = np.asarray(tokens, np.int64).reshape(-1, width)
    roots = np.zeros(len(patterns), np.int64)
    if has_begin:
        same = patterns[:, :1] == trie.begin_ids
        patterns, roots = patterns[same.any(1), 1:], same.argmax(1)[same.any(1)]
    leaves = trie.walk(roots, patterns)
    found = [trie.items_at(int(leaf)) for leaf in leaves[leaves >= 0]]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def mask_logits(
    logits: torch.Tensor, rows: Mapping[int, RowRequest], unused: torch.Tensor | None = None
) -> torch.Tensor:
    """Closes, in place, the tokens that rows of `[R, V]` may not write next; returns the same tensor.

    `unused`, ids of rows of the model's head that are no token, are closed to every row but those under `score`.

    A row that writes an item keeps the codes that lead to an item it may get. Where no such code is left (the prompt's
    codes are no prefix of any item, or the lists leave none), and for what is left out under `score`, the probability
    stands on the rest token (`rest_token`): a client that meets it knows that there is no item, and no item is made up.
    """
    if unused is not None and len(unused):
        open_rows = [number for number in range(len(logits)) if number not in rows or rows[number].mode != SCORE]
        place = torch.tensor(open_rows, device=logits.device, dtype=torch.long)
        logits[place] = logits[place].index_fill(1, unused, -torch.inf)
    by_trie: dict[int, list[int]] = {}
    for number, request in rows.items():
        if request.mode != FREE:
            by_trie.setdefault(id(request.trie), []).append(number)
    for members in by_trie.values():
        requests = [rows[number] for number in members]
        trie = requests[0].trie
        windows = torch.tensor([request.window() for request in requests], device=logits.device)
        choosing, row, child = find_children(trie, windows, *find_open_items(trie, windows))
        place = torch.tensor(members, device=logits.device)
        barren = _barren_begins(trie).to(logits.device)
        if len(barren):
            text = place[~choosing]
            logits[text] = logits[text].index_fill(1, barren, -torch.inf)
        if not bool(choosing.any()):
            continue
        kept = _permitted(requests, row, child)
        row, token = row[kept], trie.on(logits.device).token[child[kept]].long()
        scores = logits[place[choosing]].float()
        scoring = torch.tensor([request.mode == SCORE for request in requests], device=logits.device)[choosing]
        scores = torch.where(scoring[:, None], scores.log_softmax(-1), scores)
        at = torch.cumsum(choosing, 0)[row] - 1  # rows among those that choose
        closed = torch.full_like(scores, -torch.inf)
        closed[at, token] = scores[at, token]
        rest = torch.log1p(-closed.exp().sum(-1).clamp(max=1.0)) if bool(scoring.any()) else closed[:, 0]
        empty = closed.amax(-1) == -torch.inf
        closed[:, rest_token(trie)] = torch.where(empty, 0.0, torch.where(scoring, rest, -torch.inf))
        logits[place[choosing]] = closed.to(logits.dtype)
    return logits


def rest_token(trie: ItemTrie) -> int:
    """The token that stands for all that a row may not write: the one before the codes, or behind them at id 0."""
    first, _ = min(trie.level_ranges)
    return first - 1 if first else max(end for _, end in trie.level_ranges)


def _barren_begins(trie: ItemTrie) -> torch.Tensor:
    """Begin tokens of domains without items: none is admitted in text, as no item could follow."""
    first, end = trie.leaf_ranges(range(len(trie.domains)))
    begin = torch.as_tensor(trie.begin_ids[first == end])
    return begin[begin >= 0]


def _permitted(requests: Sequence[RowRequest], row: torch.Tensor, child: torch.Tensor) -> torch.Tensor:
    """Bool `[C]`; True selects codes that the rows' deny and allow lists leave open."""
    kept = torch.ones(len(row), dtype=torch.bool, device=row.device)
    for number, request in enumerate(requests):
        if request.node_filter is not None:
            own = torch.nonzero(row == number)[:, 0]
            nodes = child[own]
            kept[own] = request.node_filter.on(row.device).permitted(torch.zeros_like(nodes), nodes)
    return kept
