"""The item trie inside a vLLM server, as a logits processor of its plug-in interface.

    python -m vllm.entrypoints.openai.api_server --model MODEL_DIR --logprobs-mode processed_logprobs \\
        --logits-processors onereason.serving.vllm_trie:TrieProcessor

The state of a row is read off its newest tokens, prompt and output alike, so it is right for sampling, for the server's
own beam search (each step of which is a new request whose prompt holds the prefix), and for a client that searches step
by step. A request chooses by `vllm_xargs`; every key may be left out:

| key | value | |
|---|---|---|
| `items` | `legal` (default) | behind a begin token, the codes of an item of that domain; all other text is free |
| | `score` | the same, and what is admitted keeps its probability among all tokens |
| | `free` | no item is held back, e.g. for rollouts whose log-probabilities must be the policy's own |
| `deny`, `allow` | token ids | patterns (begin token where there is one, then codes): never admitted, or alone |
| `written` | a number | formats without begin tokens: codes of the item being written at the end of the prompt |

Under `score` the probability of all that is left out stands on one token that is no code, so that log-probabilities of
`processed_logprobs` are those of the in-process search, where a plain mask would renormalise them. The catalog is that
of the model folder, or of the folder in the environment variable `ONEREASON_CATALOG`; where its files are replaced, the
new one is used for the requests that come after. Rows of the head that are no token are closed to all but `score`.

Runs in the serving environment alone: nothing else of the toolkit imports it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor, MoveDirectionality

from onereason.errors import ConfigError
from onereason.itemic.vocabulary import ItemicVocabulary
from onereason.model.folder import load_tokenizer, unused_row_ids
from onereason.serving.catalog_watch import CatalogWatch
from onereason.serving.trie_rows import RowRequest, check_options, mask_logits, read_request

CATALOG_VARIABLE = "ONEREASON_CATALOG"


class TrieProcessor(LogitsProcessor):
    """Holds the rows of vLLM's persistent batch to the items of a catalog."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """`ValueError` (status 400) for options that make no sense."""
        try:
            check_options(sampling_params.extra_args or {})
        except ConfigError as error:
            raise ValueError(str(error)) from error

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        model = Path(vllm_config.model_config.model)
        folder = Path(os.environ.get(CATALOG_VARIABLE) or model)
        self.watch = CatalogWatch(folder, ItemicVocabulary.load(model)).start()
        self.rows: dict[int, RowRequest] = {}
        unused = unused_row_ids(vllm_config.model_config.get_vocab_size(), load_tokenizer(model))
        self.unused = torch.tensor(unused, dtype=torch.long, device=device)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        if batch_update is None:
            return
        for row in batch_update.removed:
            self.rows.pop(row, None)
        trie = self.watch.current.trie
        for row, params, prompt, output in batch_update.added:
            options = params.extra_args or {}
            try:
                self.rows[row] = read_request(trie, options, prompt or [], output)
            except ConfigError:  # lists that fit no sid of this format: an error here would end the server
                self.rows[row] = read_request(trie, {**options, "deny": None, "allow": []}, prompt or [], output)
        for source, target, direction in batch_update.moved:
            moved, displaced = self.rows.pop(source, None), self.rows.pop(target, None)
            if moved is not None:
                self.rows[target] = moved
            if direction == MoveDirectionality.SWAP and displaced is not None:
                self.rows[source] = displaced

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        return mask_logits(logits, self.rows, self.unused)
