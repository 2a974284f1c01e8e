"""Greedy generation in vLLM, offline: the program that the serving environment's python runs.

    python vllm_greedy.py REQUEST.json RESPONSE.json

It stands alone: the environment that has vLLM need not have the toolkit. The request holds `model` (a folder),
`prompts` (lists of token ids), `num_tokens` and `unused` (ids that are never chosen); the response `tokens` and
`version`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def memory_share() -> float:
    """What vLLM may take of a GPU's memory: most of what is free; of a machine's, a share that leaves room."""
    import torch

    if not torch.cuda.is_available():
        return 0.3
    free, total = torch.cuda.mem_get_info()
    return 0.9 * free / total


def main(request_path: str, response_path: str) -> None:
    import vllm

    request = json.loads(Path(request_path).read_text())
    longest = max(len(prompt) for prompt in request["prompts"])
    engine = vllm.LLM(
        model=request["model"],
        dtype="float32",
        max_model_len=longest + request["num_tokens"] + 1,
        max_num_seqs=len(request["prompts"]),
        gpu_memory_utilization=memory_share(),
        enforce_eager=True,
        generation_config="vllm",  # the folder's own asks for sampling
        seed=0,
    )
    sampling = vllm.SamplingParams(
        temperature=0.0,
        max_tokens=request["num_tokens"],
        ignore_eos=True,
        logit_bias=dict.fromkeys(request["unused"], -100.0) or None,
        detokenize=False,
    )
    prompts = [{"prompt_token_ids": prompt} for prompt in request["prompts"]]
    found = engine.generate(prompts, sampling, use_tqdm=False)
    tokens = [list(answer.outputs[0].token_ids) for answer in found]
    Path(response_path).write_text(json.dumps({"tokens": tokens, "version": vllm.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
