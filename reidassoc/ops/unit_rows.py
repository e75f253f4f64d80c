"""Unit rows: features are scaled to length 1 whatever their magnitude, and rows that are not of that length are named."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reidassoc.ops.precision import at_least_single

UNIT = (0.99, 1.01)  # a unit row in half precision may be 1.001 long


def unit_rows(x: Tensor) -> Tensor:
    """Scale the vectors along the last axis to length 1: float32, of any magnitude that the dtype of ``x`` can write.

    Each vector is divided by a power of two first, so that its largest entry lies in [1, 2): squares then neither overflow
    nor vanish, and no digit changes. A vector of zeros stays one; NaN and infinite values make the whole vector NaN.

    Args:
        x: (…, D) floating, D > 0.

    >>> unit_rows(torch.tensor([[3e-30, 4e-30], [3e30, 4e30]])).mul(10).round().tolist()
    [[6.0, 8.0], [6.0, 8.0]]
    """
    x = at_least_single(x.detach())
    peak = torch.linalg.vector_norm(x, ord=torch.inf, dim=-1, keepdim=True)
    power = peak / (2 * torch.frexp(peak).mantissa)  # exact: the largest power of two up to the peak; NaN of 0
    scaled = (x / torch.where(torch.isfinite(power), power, 1.0)).float()
    return F.normalize(scaled, dim=-1, out=scaled)


def zero_rows(x: Tensor) -> str:
    """``"only zeros in 2 of 10 rows (first: row 4)"`` of an (N, D) matrix; empty if each row has another value."""
    rows = (~(x != 0).any(dim=1)).nonzero().flatten()
    return f"only zeros in {len(rows)} of {len(x)} rows (first: row {int(rows[0])})" if len(rows) else ""


def rows_off_unit(x: Tensor) -> str:
    """``"a row of length 8.13 (row 4)"`` where a row of (N, D) features is not of length 1; empty if all are."""
    length = torch.linalg.vector_norm(x, dim=1, dtype=torch.float32)
    rows = ((length < UNIT[0]) | (length > UNIT[1])).nonzero().flatten()
    return f"a row of length {float(length[rows[0]]):.3g} (row {int(rows[0])})" if len(rows) else ""
