"""One cache, several continuations: each prompt is prefilled once, and its stems share what the cache holds of it.

A stem is a prompt and one way to go on from it: nothing yet, or a sampled trace. The stems of a prompt, and later the
beams of a stem, are columns of the same cached sequence; a 4D mask says which columns a stem sees. So a prompt is
computed and stored once, however many continuations it has, and nothing is expanded, copied or reordered.

Notation: `B` prompts, `T` prompt tokens, `N` stems a prompt, `S` tokens fed to a stem, `A` cached columns, `D` hidden
size, `V` vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicLayer

from onereason.errors import ConfigError, ModelError


class _ColumnLayer(DynamicLayer):
    """Keys and values in one block with room for what is appended; earlier columns can be returned to."""

    def __init__(self, room: int):
        super().__init__()
        self.keys: Any = None
        self.values: Any = None
        self.room = room
        self.used = 0

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.used + key_states.shape[-2]
        if self.keys.numel() == 0 or end > self.keys.shape[-2]:
            self._grow(key_states, value_states, end + max(self.room, self.used // 2))
        self.keys[..., self.used : end, :] = key_states
        self.values[..., self.used : end, :] = value_states
        self.used = end
        return self.keys[..., :end, :], self.values[..., :end, :]

    def _grow(self, key_states: torch.Tensor, value_states: torch.Tensor, columns: int) -> None:
        for name, states in (("keys", key_states), ("values", value_states)):
            block = states.new_empty(*states.shape[:-2], columns, states.shape[-1])
            if self.used:
                block[..., : self.used, :] = getattr(self, name)[..., : self.used, :]
            setattr(self, name, block)

    def get_seq_length(self) -> int:
        return self.used


class ColumnCache(Cache):
    """A cache of `_ColumnLayer`s that remembers in which order its columns were written.

    Attributes:
        writes: one `(number, end)` a write: a number no other write has, and how many columns there were after it.
    """

    def __init__(self, num_layers: int, room: int):
        self._columns = [_ColumnLayer(room) for _ in range(num_layers)]
        super().__init__(layers=list(self._columns))
        self.writes: tuple[tuple[int, int], ...] = ()
        self._written = 0

    def rewind(self, writes: tuple[tuple[int, int], ...]) -> None:
        """Forgets the columns written after `writes`, which must be how the cache began."""
        assert self.writes[: len(writes)] == writes, "these stems' columns were overwritten by another continuation"
        self.writes = writes
        for layer in self._columns:
            layer.used = writes[-1][1] if writes else 0

    def record(self) -> None:
        """Notes that columns were written."""
        self._written += 1
        self.writes = (*self.writes, (self._written, self.get_seq_length()))


@dataclass(frozen=True)
class Stems:
    """`N` stems of each of `B` prompts. Make them with `prefill`; every method returns new stems.

    Stems share a cache. Continuing stems forgets whatever was appended to the cache after them, so two continuations
    of the same stems are made one after the other, not in turns.

    Attributes:
        decoder: the language model without its head.
        cache: holds `A` columns of these stems.
        writes: the cache's writes these stems stand on.
        visible: bool `[B, N, A]`; True selects the columns a stem attends to.
        lengths: int64 `[B, N]`, tokens of prompt and stem, which is the next token's position.
        hidden: `[B, N, D]`, the hidden state at a stem's last token.
    """

    decoder: Any
    cache: ColumnCache
    writes: tuple[tuple[int, int], ...]
    visible: torch.Tensor
    lengths: torch.Tensor
    hidden: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """`(B, N)`."""
        return self.visible.shape[0], self.visible.shape[1]

    def fork(self, num_stems: int) -> Stems:
        """Each stem `num_stems` times, next to each other: `N` becomes `N * num_stems`."""
        return replace(
            self,
            visible=self.visible.repeat_interleave(num_stems, 1),
            lengths=self.lengths.repeat_interleave(num_stems, 1),
            hidden=self.hidden.repeat_interleave(num_stems, 1),
        )

    def append(self, tokens: torch.Tensor, token_mask: torch.Tensor | None = None) -> Stems:
        """Goes on with tokens `[B, N, S]`; each sees its stem and the tokens before it.

        Args:
            token_mask: bool `[B, N, S]`, True selects tokens to append (all by default). A row is True up to some
                place and False from there on; a stem without any stays as it is.
        """
        return self.feed(tokens, token_mask)[1]

    def feed(self, tokens: torch.Tensor, token_mask: torch.Tensor | None = None) -> tuple[torch.Tensor, Stems]:
        """As `append`; gives the hidden states `[B, N, S, D]` at the tokens too."""
        batch, num, steps = tokens.shape
        mask = torch.ones_like(tokens, dtype=torch.bool) if token_mask is None else token_mask
        device = tokens.device
        earlier = torch.ones(steps, steps, dtype=torch.bool, device=device).tril()
        same = torch.eye(num, dtype=torch.bool, device=device)
        # The new columns stand stem after stem; a token sees those of its own stem up to itself.
        block = (same[:, None, :, None] & earlier[None, :, None, :]).reshape(1, num * steps, num * steps)
        block = block & mask.reshape(batch, 1, num * steps)
        block = block | torch.eye(num * steps, dtype=torch.bool, device=device)  # no query may see nothing at all
        seen = torch.cat([self.visible.repeat_interleave(steps, 1), block], -1)  # [B, N * S, A + N * S]
        positions = self.lengths[..., None] + torch.arange(steps, device=device)  # [B, N, S]
        flat, writes = self.forward(tokens.reshape(batch, -1), positions.reshape(batch, -1), seen)
        hidden = flat.view(batch, num, steps, -1)
        count = mask.sum(-1)  # [B, N]
        place = (count - 1).clamp(min=0)[..., None, None].expand(-1, -1, 1, hidden.shape[-1])
        own = same[None, :, :, None] & mask[:, None]  # [B, N, N, S]
        stems = replace(
            self,
            writes=writes,
            visible=torch.cat([self.visible, own.reshape(batch, num, num * steps)], -1),
            lengths=self.lengths + count,
            hidden=torch.where((count > 0)[..., None], hidden.gather(2, place)[:, :, 0], self.hidden),
        )
        return hidden, stems

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, seen: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[tuple[int, int], ...]]:
        """Tokens `[B, Q]` behind these stems' columns -> hidden states `[B, Q, D]` and the cache's writes after them.

        Args:
            positions: int64 `[B, Q]`.
            seen: bool `[B, Q, A + Q]`; True selects what a token attends to.
        """
        self.cache.rewind(self.writes)
        hidden = _decode(self.decoder, tokens, positions, seen, self.cache, self.hidden.dtype)
        return hidden, self.cache.writes


@torch.no_grad()
def prefill(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, room: int = 0) -> Stems:
    """Runs the prompts once: one stem each.

    Args:
        model: a causal language model of transformers (or a PEFT model around one), in eval mode.
        input_ids: int64 `[B, T]`, padded on the left.
        attention_mask: `[B, T]`, 1 selects prompt tokens.
        room: columns that will be appended, set aside at once; more are found when they are needed.

    Raises:
        ConfigError: an empty prompt, or one padded on the right.
        ModelError: an attention implementation without 4D masks, or layers with another attention than the full one.
    """
    _check_prompts(input_ids, attention_mask)
    decoder, config = language_model(model).get_decoder(), model.config
    _check_attention(config)
    cache = ColumnCache(config.num_hidden_layers, room)
    out = decoder(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    )
    cache.record()
    return Stems(
        decoder,
        cache,
        cache.writes,
        attention_mask.bool()[:, None],
        attention_mask.sum(1, keepdim=True),
        out.last_hidden_state[:, -1:].clone(),
    )


def language_model(model: Any) -> Any:
    """The transformers model, also under PEFT."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def left_pad(prompts: Sequence[Sequence[int] | np.ndarray], pad_id: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Token lists -> `input_ids` and `attention_mask` (int64 `[B, T]`), padded on the left."""
    width = max(map(len, prompts), default=0)
    input_ids = np.full((len(prompts), width), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(prompts), width), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = prompt
        attention_mask[row, width - len(prompt) :] = 1
    return torch.from_numpy(input_ids), torch.from_numpy(attention_mask)


def check_prompt_lengths(model: Any, longest: int, room: int, thinking: bool = False) -> None:
    """`ConfigError` where a prompt and the `room` tokens behind it do not fit the model's positions."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and longest + room > limit:
        behind = "tokens of thought and answer" if thinking else "codes"
        way_out = "lower the thinking budget (--think-budget) or " if thinking else ""
        raise ConfigError(
            f"the longest prompt has {longest} tokens; with {room} {behind} behind it, it exceeds the model's "
            f"max_position_embeddings ({limit}); {way_out}shorten the histories (--max-history)."
        )


@contextlib.contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """Every module in eval mode inside; each module's own mode restored after."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def _decode(
    decoder: Any,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    seen: torch.Tensor,
    cache: ColumnCache,
    dtype: torch.dtype,
) -> torch.Tensor:
    bias = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
    out = decoder(
        input_ids=tokens, attention_mask=bias[:, None], position_ids=positions, past_key_values=cache, use_cache=True
    )
    cache.record()
    return out.last_hidden_state


def _check_prompts(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
    if input_ids.shape[0] == 0 or int(attention_mask.sum(1).min()) == 0:
        raise ConfigError("every prompt needs at least one token; got an empty batch or an empty prompt.")
    if bool((attention_mask[:, 1:] < attention_mask[:, :-1]).any()):
        raise ConfigError("prompts must be padded on the left: the attention mask falls from 1 to 0 inside a row.")


def _check_attention(config: Any) -> None:
    implementation = getattr(config, "_attn_implementation", "sdpa")
    if implementation not in ("sdpa", "eager"):
        raise ModelError(
            f"attention implementation {implementation!r} takes no 4D mask; load the model with "
            "attn_implementation='sdpa' or 'eager'."
        )
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    if layer_types != {"full_attention"}:
        raise ModelError(f"the search needs full attention in every layer; the model has {sorted(layer_types)}.")
