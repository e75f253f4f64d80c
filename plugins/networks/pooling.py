"""Generalised-mean pooling."""

from __future__ import annotations

from torch import Tensor

from reidassoc.ops.precision import at_least_single

POWER = 3.0
FLOOR = 1e-12  # keeps the root differentiable where a channel is dead


def generalised_mean(x: Tensor) -> Tensor:
    """Pool a non-negative map (B, C, h, w) to (B, C), at least float32: ``(mean(x³) + 1e-12)^(1/3)`` over its positions.

    In float32 even under autocast: cubes leave float16's range. Source: Radenović et al., TPAMI 2019 (p fixed at 3).
    """
    return (at_least_single(x).pow(POWER).mean((2, 3)) + FLOOR).pow(1 / POWER)
