"""The alternate scaling of entropic transport, whatever holds the kernel.

Source: Cuturi, Sinkhorn Distances, NeurIPS 2013, with the stopping rule of MULT's and SALCR's published code; the
over-relaxed rounds are Thibault, Chizat, Dossal, Papadakis, Overrelaxed Sinkhorn–Knopp, Algorithms 2021.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

CHECK_EVERY = 10  # rounds between two looks at the change, the first round included
WARM_ROUNDS = 20  # plain rounds before the over-relaxed ones, which need a start not too far off
SETTLE_ROUNDS = 3  # plain rounds after them: columns become exact
OMEGA = 1.85  # step length of the over-relaxed rounds: the best one where plain rounds shrink the error by 0.6 %
WIDTH = 0.8  # part of a type's exponents that scales may have: 1e-30 to 1e30 in float32; their sums need the rest
LOST = 1e-3  # share of the mass that vanished kernel entries may have had


class Round(Protocol):
    """a <- mass / (kernel b), in a step ``omega`` times as long from the old a, and kernelᵀ a; b and the latter in float64."""

    def __call__(self, b: Tensor, mass: float, a: Tensor, omega: float = 1.0, /) -> tuple[Tensor, Tensor]: ...


def scales(
    step: Round, n: int, b: Tensor, *, tolerance: float, max_rounds: int, fast: bool
) -> tuple[Tensor, Tensor, int]:
    """The scales of the rows and of the columns, and the rounds that were made; see `in_range` for whether they can be used.

    Args:
        step: one round on the kernel.
        n: rows of the kernel.
        b: (K,) float64, the columns' scales to begin with.
        tolerance: stop once the change Σ_k |b_k / b'_k − 1| is no larger; it is looked at after rounds 1, 11, 21, …
        max_rounds: stop at the latest after so many rounds; fast ones may be followed by ``SETTLE_ROUNDS`` more.
        fast: make longer steps after ``WARM_ROUNDS``; where they run away, the plain rounds go on.
    """
    k = len(b)
    a = b.new_ones(n)
    change, done = torch.inf, 0
    while done < max_rounds:
        a, column = step(b, 1.0 / n, a)
        old, b = b, (1.0 / k) / column
        done += 1
        if done % CHECK_EVERY == 1:
            change = float((old / b - 1).abs().sum())
            if not change > tolerance:  # NaN, too: a scale has left the numbers' range
                break
        if fast and done == WARM_ROUNDS < max_rounds:
            quick = _overrelaxed(step, a, b, tolerance, max_rounds - done, 1e3 * change)
            if quick is not None:
                return quick[0], quick[1], quick[2] + done
    return a, b, done


def _overrelaxed(
    step: Round, a: Tensor, b: Tensor, tolerance: float, rounds: int, limit: float
) -> tuple[Tensor, Tensor, int] | None:
    """Rounds of longer steps until the change is within the tolerance; None if it grows beyond `limit`."""
    n, k = len(a), len(b)
    a = a.clone()
    for done in range(1, rounds + 1):
        a, column = step(b, 1.0 / n, a, OMEGA)
        plain = (1.0 / k) / column
        if done % CHECK_EVERY == 0 or done == rounds:
            change = float((b / plain - 1).abs().sum())
            if not change <= limit:
                return None
            if change <= tolerance or done == rounds:
                break
        b = b * (plain / b) ** OMEGA
    for _ in range(SETTLE_ROUNDS):
        a, column = step(b, 1.0 / n, a)
        b = (1.0 / k) / column
    return a, b, done + SETTLE_ROUNDS


def in_range(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    """Whether the scales make a plan of a kernel of this type: normal numbers, and vanished entries would have had no mass.

    An entry that vanished is below the type's smallest number, so that its mass is below that times max a times max b.
    """
    tiny, a, b = torch.finfo(dtype).tiny, a.double(), b.double()
    low, high = min(float(a.min()), float(b.min())), max(float(a.max()), float(b.max()))
    usable = low >= tiny**WIDTH and high <= tiny**-WIDTH  # of NaN, neither is true
    return usable and tiny * float(a.max()) * float(b.max()) * len(a) * len(b) <= LOST
