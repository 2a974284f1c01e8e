"""Which float type a machine computes fast in."""

from __future__ import annotations

from typing import Any

import torch


def has_fast_bfloat16() -> bool:
    """Whether bfloat16 arithmetic is done by the hardware: the GPU where there is one, else the CPU.

    A CPU without bfloat16 instructions emulates them, about ten times slower than float32.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch cannot tell
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
