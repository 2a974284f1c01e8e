"""An itemic format placed in a tokenizer: which id each itemic token has. Written into model folders as `itemic.json`.

Ids are contiguous: token `i` of `format.tokens()` has id `first_token_id + i`. Everything here is arithmetic on that.

Notation: `N` items, `L` levels, `P` tokens of a rendered pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onereason.errors import FormatError, ModelError
from onereason.io import read_json, write_json
from onereason.itemic.format import ANY_DOMAIN, ItemicFormat

ITEMIC_FILE = "itemic.json"


@dataclass(frozen=True)
class ItemicVocabulary:
    """The ids of a format's tokens in one tokenizer."""

    format: ItemicFormat
    first_token_id: int

    @property
    def num_tokens(self) -> int:
        return self.format.num_tokens

    @property
    def end_token_id(self) -> int:
        """One past the last itemic token."""
        return self.first_token_id + self.num_tokens

    def level_start(self, level: int) -> int:
        """Id of code 0 of a level."""
        before = len(self.format.marker_tokens) if self.format.markers_first else 0
        return self.first_token_id + before + sum(self.format.codes_per_level[:level])

    def marker_ids(self, domain: str = ANY_DOMAIN) -> tuple[int | None, int | None]:
        """Ids of a domain's begin and end tokens, `None` where the format has none."""
        marker = self.format.marker(domain)
        first = self.first_token_id + (0 if self.format.markers_first else self.format.num_codes)
        ids = {token: first + i for i, token in enumerate(self.format.marker_tokens)}
        return (
            None if marker.begin is None else ids[marker.begin],
            None if marker.end is None else ids[marker.end],
        )

    def prefix_ids(self, domain: str = ANY_DOMAIN) -> list[int]:
        """What stands before the codes: the begin token, or nothing."""
        begin, _ = self.marker_ids(domain)
        return [] if begin is None else [begin]

    def code_ids(self, codes: np.ndarray) -> np.ndarray:
        """Codes `[N, L]` -> token ids of the codes `[N, L]` (int64), without begin and end tokens."""
        codes = np.asarray(codes, dtype=np.int64)
        starts = np.array([self.level_start(level) for level in range(self.format.num_levels)])
        return codes + starts

    def pattern_ids(self, codes: np.ndarray, domains: Sequence[str]) -> np.ndarray:
        """Codes `[N, L]` and a domain each -> token ids of whole patterns `[N, P]` (int64)."""
        parts = [self.code_ids(codes)]
        table = {domain: self.marker_ids(domain) for domain in set(domains)}
        if self.format.has_begin:
            parts.insert(0, np.array([table[d][0] for d in domains], dtype=np.int64).reshape(-1, 1))
        if self.format.render_end:
            parts.append(np.array([table[d][1] for d in domains], dtype=np.int64).reshape(-1, 1))
        return np.concatenate(parts, axis=1)

    def is_itemic(self, token_ids: np.ndarray) -> np.ndarray:
        """Boolean array: True where a token id is an itemic token."""
        return (token_ids >= self.first_token_id) & (token_ids < self.end_token_id)

    # -- storage --------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        return {"version": 1, "first_token_id": self.first_token_id, "format": self.format.to_dict()}

    def save(self, model_dir: str | Path) -> None:
        write_json(Path(model_dir) / ITEMIC_FILE, self.to_dict())

    @classmethod
    def load(cls, model_dir: str | Path) -> ItemicVocabulary:
        """Reads `itemic.json` of a model folder; `ModelError` where the folder has none."""
        path = Path(model_dir) / ITEMIC_FILE
        if not path.parent.is_dir():
            raise ModelError(f"{model_dir} not found: expected a model folder.")
        if not path.is_file():
            raise ModelError(
                f"{model_dir} holds no {ITEMIC_FILE}: it is not an extended model folder; "
                f"run `onereason extend --base {model_dir} --format FORMAT --out DIR` first."
            )
        value = read_json(path, "itemic vocabulary")
        if not isinstance(value, dict) or not isinstance(value.get("first_token_id"), int):
            raise ModelError(f"{path} is malformed: expected the keys version, first_token_id, format.")
        return cls(ItemicFormat.from_dict(value.get("format", {}), source=str(path)), value["first_token_id"])

    def check_tokenizer(self, tokenizer: Any) -> None:
        """`ModelError` unless the tokenizer (transformers) gives the itemic tokens these ids."""
        tokens = self.format.tokens()
        for index, found in enumerate(tokenizer.convert_tokens_to_ids(tokens)):
            if found != self.first_token_id + index:
                raise ModelError(
                    f"format {self.format.name!r} does not match the tokenizer: {tokens[index]} should be id "
                    f"{self.first_token_id + index}, the tokenizer has {found}; the folder's {ITEMIC_FILE} and "
                    "tokenizer come from different runs of `onereason extend`."
                )


def require_same_format(expected: ItemicFormat, found: ItemicFormat, what: str) -> None:
    """`FormatError` naming both where two artefacts were made with different formats."""
    if expected != found:
        raise FormatError(
            f"{what} uses format {found.name!r} with codes a level {list(found.codes_per_level)}, the model uses "
            f"{expected.name!r} with {list(expected.codes_per_level)}; build both with the same --format."
        )
