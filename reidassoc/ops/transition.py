"""Row-stochastic matrices: whatever turns a sample's label into a mean of other samples' labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from reidassoc.ops.sparse import product, row_normalised
from reidassoc.ops.transport import Plan

MAX_DENSITY = 0.05  # above it the dense product of a plan is as fast as the sparse one (measured on 2 CPU cores)


@dataclass(frozen=True)
class TransitionMatrix:
    """A (N, M) matrix whose rows sum to 1 (or 0, where there is nothing to average): `matrix @ y` is (N, C).

    A transport plan averages distributions alone: rows of `y` that sum to 1.

    Args:
        source: a row-normalised sparse CSR matrix, or a transport plan, whose averages are normalised.
    """

    source: Tensor | Plan

    def __matmul__(self, y: Tensor) -> Tensor:
        if isinstance(self.source, Plan):
            return self.source.average(y)
        return product(self.source, y)

    @staticmethod
    def of_affinity(affinity: Tensor) -> TransitionMatrix:
        """Average over the stored neighbours of a sparse CSR affinity, by their similarity."""
        return TransitionMatrix(row_normalised(affinity))

    @staticmethod
    def of_plan(plan: Plan, *, lost: float = 0.0) -> TransitionMatrix:
        """Average along the rows of a plan.

        With `lost` > 0 the lightest entries of every row, together at most this share of its mass, may be left out;
        they are if the rest is sparse enough to be faster. With 0 it is exact.
        """
        sparse = plan.truncated(lost, max_density=MAX_DENSITY) if lost > 0 else None
        return TransitionMatrix(plan if sparse is None else sparse)
