"""bfloat16 as a shortcut on processors that multiply it several times faster than float32.

Labels are decided in float32 (`exact.full_float32`). What is made here is either checked again in float32 (candidates
of a neighbour search) or an average of so many entries that their rounding, 0.2 % each, does not show (a transport
plan). On a GPU float32 is fast enough, and nothing here is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from reidassoc.ops.precision import products

_disabled = 0


def bfloat16_pays(device: torch.device) -> bool:
    """Does this processor have instructions for bfloat16 products (AVX-512 BF16 or AMX)?"""
    if _disabled or device.type != "cpu":
        return False
    asks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(ask()) for ask in asks if ask is not None)


@contextmanager
def without_bfloat16() -> Iterator[None]:
    """Stay in float32 inside this block, for tests and comparisons."""
    global _disabled
    _disabled += 1
    try:
        yield
    finally:
        _disabled -= 1


def bfloat16_inputs(device: torch.device) -> AbstractContextManager[None]:
    """Float32 products round their inputs to bfloat16 inside this block, and add up and answer in float32."""
    return products("medium", device)
