"""Full float32 products, whatever the training loop allowed itself.

Training may run with TF32, bfloat16 or autocast. Labels must not: a neighbour list computed at ten bits is another
neighbour list. Every product in `reidassoc.ops` that decides a label is made inside `full_float32`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor


def full_float32(device: torch.device) -> AbstractContextManager[None]:
    """Matrix products on `device` keep all 24 bits inside this block; the caller's settings come back after it."""
    return products("highest", device)


@contextmanager
def products(precision: Literal["highest", "medium"], device: torch.device) -> Iterator[None]:
    """Float32 matrix products on `device` are as precise as torch's word says inside this block; no gradients, no autocast."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.no_grad(), no_autocast(device):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Products on `device` keep the type of their operands inside this block."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def check_features(name: str, x: Tensor) -> None:
    """Refuse what no label can come from: a wrong shape, a wrong dtype, a NaN or an infinity.

    Raises:
        ValueError: `x` is not a floating (N, D) matrix of finite numbers.
    """
    if x.dim() != 2 or not x.is_floating_point():
        raise ValueError(f"{name} must be a floating (N, D) matrix, got {x.dtype} of shape {tuple(x.shape)}")
    if where := broken_rows(x):
        raise ValueError(
            f"{name} has {where}; the network has diverged or the file is damaged: look at the loss before clustering"
        )


def broken_rows(x: Tensor) -> str:
    """``"NaN or infinite values in 1 of 10 rows (first: row 4)"`` of an (N, D) matrix; empty if all are finite."""
    # A sum is finite iff (barring overflow, which is refused rightly) every term is; it needs no N x D mask, nor a wider copy.
    rows = (~torch.isfinite(at_least_single(x).sum(dim=1))).nonzero().flatten()
    if not len(rows):
        return ""
    return f"NaN or infinite values in {len(rows)} of {len(x)} rows (first: row {int(rows[0])})"


def at_least_single(x: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay what they are.

    >>> at_least_single(torch.zeros(2, dtype=torch.bfloat16)).dtype, at_least_single(torch.zeros(2).double()).dtype
    (torch.float32, torch.float64)
    """
    return x.float() if x.element_size() < 4 else x
