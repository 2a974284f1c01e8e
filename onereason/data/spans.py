"""Where the items of tokenised rows stand, which tokens take a loss, and which history gives way to a length limit.

Pure functions over *packed rows*: all token ids of several rows in one array, and the offsets of the rows.

Notation: `R` rows, `T` tokens of all rows, `M` itemic patterns of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onereason.itemic.vocabulary import ItemicVocabulary

LOSSES = ("all", "assistant", "target_items", "next_items", "none")
"""What a row supervises: every token; the assistant's spans; the items in them; these and all items but the first;
nothing (text that only balances a mixture)."""

_BEGIN, _END = 100, 1000  # kinds of marker tokens: this plus the domain's number (levels are at most 26)


@dataclass(frozen=True)
class PatternSpans:
    """Whole itemic patterns: pattern `m` is `ids[starts[m]:ends[m]]`, in row `rows[m]` (int64 `[M]` each)."""

    starts: np.ndarray
    ends: np.ndarray
    rows: np.ndarray

    def cover(self, num_tokens: int, chosen: np.ndarray) -> np.ndarray:
        """Boolean `[T]`: True on the tokens of the chosen (boolean `[M]`) patterns."""
        steps = np.zeros(num_tokens + 1, dtype=np.int64)
        steps[self.starts[chosen]] += 1
        np.subtract.at(steps, self.ends[chosen], 1)
        return np.cumsum(steps[:-1]) > 0


def find_patterns(ids: np.ndarray, offsets: np.ndarray, vocabulary: ItemicVocabulary) -> PatternSpans:
    """Every whole pattern in packed rows, in order.

    An end token after a whole pattern belongs to it, also in formats that do not render it. Broken patterns are not
    reported, nor are patterns across the border of two rows.

    Args:
        ids: int `[T]` token ids.
        offsets: int64 `[R + 1]`; row `r` is `ids[offsets[r]:offsets[r + 1]]`.
    """
    format = vocabulary.format
    levels, has_begin = format.num_levels, format.has_begin
    padded = np.full(len(ids) + format.num_levels + 2, -1, dtype=np.int64)
    inside = vocabulary.is_itemic(ids)
    padded[: len(ids)][inside] = _token_kinds(vocabulary)[ids[inside] - vocabulary.first_token_id]

    is_begin = (padded >= _BEGIN) & (padded < _END)
    starts = np.flatnonzero(is_begin if has_begin else padded == 0)
    whole = np.ones(len(starts), dtype=bool)
    for level in range(levels):
        whole &= padded[starts + has_begin + level] == level
    starts = starts[whole]
    ends = starts + has_begin + levels
    domains = padded[starts] - _BEGIN if has_begin else np.zeros(len(starts), dtype=np.int64)
    rows = np.searchsorted(offsets, starts, side="right") - 1
    row_ends = offsets[rows + 1]
    kept = ends <= row_ends
    closed = (padded[ends] == _END + domains) & (ends < row_ends)
    ends = ends + closed
    if format.render_end:
        kept &= closed
    return PatternSpans(starts[kept], ends[kept], rows[kept])


def _token_kinds(vocabulary: ItemicVocabulary) -> np.ndarray:
    """Int64 `[num_tokens]`: the level of a code token; `_BEGIN` or `_END` plus the domain's number of a marker."""
    kinds = np.full(vocabulary.num_tokens, -1, dtype=np.int64)
    for level, size in enumerate(vocabulary.format.codes_per_level):
        start = vocabulary.level_start(level) - vocabulary.first_token_id
        kinds[start : start + size] = level
    for number, domain in enumerate(vocabulary.format.domains):
        for kind, token_id in zip((_BEGIN, _END), vocabulary.marker_ids(domain), strict=True):
            if token_id is not None:
                kinds[token_id - vocabulary.first_token_id] = kind + number
    return kinds


def build_loss_mask(
    losses: np.ndarray, offsets: np.ndarray, in_assistant: np.ndarray, patterns: PatternSpans
) -> np.ndarray:
    """Boolean `[T]`: True where a token takes a loss.

    Args:
        losses: `[R]` strings out of `LOSSES`.
        offsets: int64 `[R + 1]`.
        in_assistant: boolean `[T]`, True on what the model must generate.
        patterns: of these rows.
    """
    num_tokens = int(offsets[-1])
    token_losses = np.repeat(losses, np.diff(offsets))
    answers = in_assistant[patterns.starts] & in_assistant[patterns.ends - 1]
    follows = np.zeros(len(patterns.rows), dtype=bool)
    follows[1:] = patterns.rows[1:] == patterns.rows[:-1]
    pattern_losses = losses[patterns.rows]
    chosen = answers & (pattern_losses == "target_items") | (answers | follows) & (pattern_losses == "next_items")
    mask = patterns.cover(num_tokens, chosen)
    mask |= token_losses == "all"
    mask |= (token_losses == "assistant") & in_assistant
    return mask


def cut_history(
    excess: int, starts: np.ndarray, turns: np.ndarray, protected: np.ndarray, num_last: int = 1
) -> list[tuple[int, int]] | None:
    """The token spans to take out of one row so that it loses at least `excess` tokens, oldest history first.

    A history gives way item by item: from the start of a pattern to the start of the next one in the same turn, so
    words that belong to an item (its caption, a separator) leave with it and the text on both sides stays whole. The
    last item of a turn therefore never leaves.

    Args:
        excess: tokens too many.
        starts: int64 `[m]`, where the row's patterns begin.
        turns: int64 `[m]`, the turn each stands in.
        protected: boolean `[m]`, True for patterns that must stay (answers, instructions).
        num_last: how many patterns at the end of the row must stay.

    Returns:
        Spans in order, or None where the history is too short to give way.
    """
    free = (turns[1:] == turns[:-1]) & ~protected[1:] & ~protected[:-1]
    free[max(len(starts) - num_last, 0) :] = False
    units = np.flatnonzero(free)
    gained = np.cumsum(starts[units + 1] - starts[units])
    needed = int(np.searchsorted(gained, excess)) + 1
    if needed > len(units):
        return None
    return [(int(starts[i]), int(starts[i + 1])) for i in units[:needed]]
