"""The item trie as a `LogitsProcessor` of transformers, for whoever decodes with `generate`.

The state is read from the tokens themselves, so beams may be reordered at will. `beam_search` finds the same items an
order of magnitude faster; the processor serves sampling, and models that write text and items in one turn.

Notation: `R` rows, `T` tokens so far, `V` vocabulary, `L` levels.
"""

from __future__ import annotations

import torch
from transformers import LogitsProcessor

from onereason.errors import ConfigError
from onereason.itemic.trie import ItemTrie


class TrieLogitsProcessor(LogitsProcessor):
    """Admits only catalog items wherever a pattern is being written.

    With `prompt_length`, the first token generated is the first code of an item (the prompt ends with the begin token,
    or the format has none). Without it, text is free until the model writes a begin token; the `L` tokens behind it
    are an item of that domain. The begin token of a domain without items is never admitted.
    """

    def __init__(
        self,
        trie: ItemTrie,
        *,
        prompt_length: int | None = None,
        roots: torch.Tensor | None = None,
        end_ids: list[int] | None = None,
    ):
        """
        Args:
            trie: the items.
            prompt_length: `T` at the first step: generation starts with an item.
            roots: int64 `[B]`, the root of each prompt (of the one root where there is only one); with
                `prompt_length` only. Rows of a prompt stand next to each other, as `generate` keeps them.
            end_ids: what may follow the item, with `prompt_length`; anything by default.

        Raises:
            ConfigError: roots without `prompt_length`, or a trie whose roots have no begin tokens without it.
        """
        self.trie = trie
        self.prompt_length = prompt_length
        self.roots = roots
        self.end_ids = end_ids
        begin = torch.as_tensor(trie.begin_ids)
        first, end = trie.leaf_ranges(range(len(trie.domains)))
        self._barren = begin[torch.as_tensor(first == end)] if prompt_length is None else begin[:0]
        if prompt_length is None:
            if roots is not None or end_ids is not None:
                raise ConfigError("roots and end_ids belong to prompt_length: where an item starts is else read off.")
            if bool((begin < 0).any()):
                raise ConfigError("without begin tokens, items cannot be told from text; give prompt_length.")
        elif roots is not None and (int(roots.min()) < 0 or int(roots.max()) >= len(trie.domains)):
            raise ConfigError(
                f"roots must be positions of the trie's {len(trie.domains)} domains ({', '.join(trie.domains)}), got "
                f"{roots.tolist()}."
            )
        elif roots is None and len(trie.domains) > 1:
            raise ConfigError(f"the trie has {len(trie.domains)} roots ({', '.join(trie.domains)}); give roots.")

    @torch.no_grad()
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Tokens `[R, T]` and their next-token scores `[R, V]` -> scores with all but admitted tokens at -inf."""
        root, written = self._starts(input_ids)
        choosing, row, child = find_children(self.trie, input_ids, root, written)
        token = self.trie.on(input_ids.device).token[child].long()
        out = torch.full_like(scores, -torch.inf)
        out[row, token] = scores[row, token]
        text = scores.index_fill(1, self._barren.to(scores.device), -torch.inf)
        out = torch.where(choosing[:, None], out, text)
        if self.end_ids is not None:
            done = written >= self.trie.num_levels
            ended = torch.full_like(scores, -torch.inf)
            ended[:, self.end_ids] = scores[:, self.end_ids]
            out = torch.where(done[:, None], ended, out)
        return out

    def _starts(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The root of the pattern each row writes, and how many of its codes stand (-1: none is being written)."""
        rows, width = input_ids.shape
        device = input_ids.device
        if self.prompt_length is not None:
            roots = torch.zeros(1, dtype=torch.long) if self.roots is None else self.roots
            if rows % len(roots):
                raise ConfigError(f"{rows} rows cannot be shared among {len(roots)} roots; give one root a prompt.")
            if width < self.prompt_length:
                raise ConfigError(f"prompt_length ({self.prompt_length}) exceeds the {width} tokens of the prompts.")
            node = roots.to(device).repeat_interleave(rows // len(roots))
            return node, torch.full((rows,), width - self.prompt_length, device=device)
        return find_open_items(self.trie, input_ids)


def find_open_items(trie: ItemTrie, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the begin tokens in tokens `[R, T]` say: the root of the item each row is writing, and how many of its codes
    stand (both int64 `[R]`); -1 codes where none is being written."""
    begin = torch.as_tensor(trie.begin_ids, device=input_ids.device)
    tail = input_ids[:, -trie.num_levels :]
    match = tail[:, :, None] == begin  # [R, up to L, roots]
    place = torch.arange(tail.shape[1], device=input_ids.device)
    newest = torch.where(match.any(2), place, -1).max(1).values  # [R]
    root = match[torch.arange(len(tail), device=input_ids.device), newest.clamp(min=0)].long().argmax(1)
    return root, torch.where(newest >= 0, tail.shape[1] - 1 - newest, -1)


def find_children(
    trie: ItemTrie, input_ids: torch.Tensor, root: torch.Tensor, written: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The codes that may come next in rows whose last `written` tokens are codes behind a root.

    Args:
        input_ids: int64 `[R, T]`.
        root, written: int64 `[R]`; rows with -1 codes, or with all of them, choose nothing.

    Returns:
        `choosing` `[R]`, True selects rows whose next token is a code; `row` and `child`, int64 `[C]`: node `child[i]`
        may be reached from row `row[i]`. A row whose codes are no prefix of an item has no child.
    """
    tables, node = trie.on(input_ids.device), root
    for depth in range(trie.num_levels - 1):
        inside = (depth < written) & (written < trie.num_levels)
        place = (input_ids.shape[1] - written + depth).clamp(0, input_ids.shape[1] - 1)
        token = input_ids.gather(1, place[:, None])[:, 0]
        node = torch.where(inside, tables.step(node, token), node)
    choosing = (written >= 0) & (written < trie.num_levels)
    inner = node.clamp(min=0)
    row, child = tables.expand(inner, torch.where(choosing & (node >= 0), tables.num_children(inner), 0))
    return choosing, row, child
