"""Entropic optimal transport between two sets of points, kept as two scales and a kernel.

Source: Cuturi, Sinkhorn Distances, NeurIPS 2013, with the stopping rule of MULT's and SALCR's published code; the
over-relaxed rounds are Thibault, Chizat, Dossal, Papadakis, Overrelaxed Sinkhorn–Knopp, Algorithms 2021. Every other
variant (unbalanced, partial) is POT's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from reidassoc.ops.bfloat16 import bfloat16_inputs, bfloat16_pays
from reidassoc.ops.compiled.dispatch import SMALL, compiled, compiled_scaling, over_rows
from reidassoc.ops.memory_limit import block_rows
from reidassoc.ops.precision import check_features, full_float32
from reidassoc.ops.sinkhorn import Round, in_range, scales
from reidassoc.ops.sparse import add_at, csr_from_counts, row_normalised

BLOCK_ELEMENTS = 1 << 24  # kernel entries handled at once: 64 MiB of float32
PROBE_ROWS = 128
FAST_FROM = 1 << 22  # kernel entries from which shortcuts pay; below, a fast plan is the plain one
TILE = 32  # columns that bfloat16 products take at once
REACH = 70.0  # e^70: how far the entries of a bfloat16 kernel may rise above 1; float32 ends at e^88
STRONGEST = 1e6  # float32 holds the costs of unit vectors to 1e-7: beyond, their rounding decides
HALVINGS = 20  # of a strength whose scales leave float32's range: from the strongest down to 1
Scaling = Callable[[Round, int, Tensor], tuple[Tensor, Tensor, int]]


@dataclass(frozen=True)
class Plan:
    """A transport plan diag(row) kernel diag(column), never multiplied out unless asked.

    Args:
        row: (N,) float32.
        kernel: (N, K) float32, or bfloat16 if the plan was made fast.
        column: (K,) float32.
        rounds: scaling rounds that were made.
    """

    row: Tensor
    kernel: Tensor
    column: Tensor
    rounds: int

    @property
    def transposed(self) -> Plan:
        """The plan seen from the other side; the kernel is shared."""
        return Plan(self.column, self.kernel.T, self.row, self.rounds)

    def dense(self) -> Tensor:
        """(N, K) float32: the plan itself, its entries summing to 1."""
        return self.row[:, None] * self.kernel * self.column

    def row_argmax(self) -> Tensor:
        """(N,) int64: where most of each row's mass goes; -1 if there are no columns."""
        if self.kernel.shape[1] == 0:
            return torch.full((self.kernel.shape[0],), -1, dtype=torch.int64, device=self.kernel.device)
        return torch.cat([(block * self.column).argmax(dim=1) for block in self._blocks()])

    def average(self, dense: Tensor) -> Tensor:
        """(N, C): means of distributions along the plan's rows, themselves distributions; `transposed` serves the columns.

        Each row is divided by its own sum, so that it has sum 1 to float32's accuracy, whatever the product's.

        Args:
            dense: (K, C) float32, rows that sum to 1.
        """
        weighted = self.column[:, None] * dense
        if self.kernel.dtype == torch.bfloat16:
            mean = self._bfloat16_product(weighted)
        else:
            with full_float32(dense.device):
                mean = self.kernel @ weighted
        total = mean.sum(dim=1, keepdim=True)
        return mean / torch.where(total > 0, total, 1.0)  # 0 only where there are no columns

    def _bfloat16_product(self, weighted: Tensor) -> Tensor:
        """(N, C) float32: the kernel times `weighted` (K, C), every number of 8 bits."""
        classes = weighted.shape[1]
        tiles = torch.nn.functional.pad(weighted.bfloat16(), (0, -classes % TILE))  # whole tiles: a quarter faster
        with torch.no_grad():  # along the kernel's memory: a transposed one would first be copied
            half = self.kernel @ tiles if self.kernel.is_contiguous() else (tiles.T @ self.kernel.T).T
        return half[:, :classes].float()

    def truncated(self, lost: float, *, max_density: float = 1.0) -> Tensor | None:
        """The row-normalised plan as sparse CSR (N, K), without the lightest entries of every row.

        Args:
            lost: share of a row's mass, in [0, 1), that may be left out; what is kept is normalised to 1 again.
            max_density: give up, and return None, if more than this share of all entries must be kept.

        Raises:
            ValueError: `lost` is out of range.
        """
        if not 0 <= lost < 1:
            raise ValueError(f"lost must be in [0, 1), got {lost}")
        n, width = self.kernel.shape
        if max_density < 1 and n > 4 * PROBE_ROWS:  # a sample of rows tells, before the whole kernel is read
            _, probe, _ = _heaviest(self.kernel[:: n // PROBE_ROWS].contiguous().float(), self.column, lost)
            if probe.numel() > 2 * max_density * PROBE_ROWS * width:
                return None
        pieces, kept = [], 0
        for block in self._blocks():
            piece = _heaviest(block.contiguous().float(), self.column, lost)
            kept += piece[1].numel()
            if kept > max_density * n * width:
                return None
            pieces.append(piece)
        if not pieces:
            nothing = torch.zeros(0, dtype=torch.int64, device=self.kernel.device)
            return csr_from_counts(nothing, nothing, self.row, width)
        count, column, value = (torch.cat(part) for part in zip(*pieces, strict=True))
        return row_normalised(csr_from_counts(count, column, value, width))

    def _blocks(self) -> tuple[Tensor, ...]:
        return torch.split(self.kernel, block_rows(BLOCK_ELEMENTS, self.kernel.shape[1]))


def transport(
    x: Tensor, y: Tensor, *, strength: float, tolerance: float = 0.1, max_rounds: int = 500, fast: bool = False
) -> Plan:
    """The plan that moves uniform mass from x to y at small squared Euclidean cost, blurred by entropy.

    Kernel exp(-strength * cost), scaled in turn by rows and by columns; so column sums are exact and row sums nearly.
    The change sum_k |b_k / b'_k - 1| is looked at after rounds 1, 11, 21, ... The cost is shifted per row and per
    column before the exponential, which the scales take up again: the plan is the same, and no row or column of the
    kernel can vanish in float32. Memory: one N x K float32.

    A fast plan is nearer to the converged one than the plain one is, in a fifth of the rounds: after a few plain
    rounds the steps are made longer. Where the processor multiplies bfloat16, the kernel is kept in it: half the
    memory, entries rounded by 0.2 %. Below `FAST_FROM` kernel entries it is the plain plan.

    Where the scales leave float32's range, as they do at a strength of some hundreds, the plan of half the strength is
    made first, and its column scales are absorbed into the cost (Schmitzer, Stabilized sparse scaling algorithms, SIAM J.
    Sci. Comput. 2019).

    Args:
        x: (N, D) floating.
        y: (K, D) floating.
        strength: lambda > 0, the inverse of the entropy's weight.
        tolerance: stop once the change is no larger.
        max_rounds: stop at the latest after so many rounds.
        fast: take the shortcuts. What is stopped early by the plain rules is then further converged.

    Raises:
        ValueError: strength or max_rounds out of range, shapes that do not fit, values that are not finite, or a plan that
            even so leaves float32's range.
    """
    if not strength > 0:
        raise ValueError(f"strength must be positive, got {strength}")
    if strength > STRONGEST:
        raise ValueError(
            f"strength must be at most {STRONGEST:g}, beyond which float32 rounds the costs; got {strength}"
        )
    if max_rounds < 1:
        raise ValueError(f"max_rounds must be at least 1, got {max_rounds}")
    check_features("x", x)
    check_features("y", y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must have the same width, got {x.shape[1]} and {y.shape[1]}")
    n, k = x.shape[0], y.shape[0]
    x, y = x.detach().float(), y.detach().float()
    if n == 0 or k == 0:
        return Plan(x.new_zeros(n), x.new_zeros(n, k), x.new_zeros(k), 0)
    fast = fast and n * k >= FAST_FROM
    scale: Scaling = partial(scales, tolerance=tolerance, max_rounds=max_rounds, fast=fast)
    cost = (y * y).sum(dim=1)
    if fast and bfloat16_pays(x.device) and compiled(x.device):
        made = _half_kernel(x, y, cost, strength)
        if made and (found := _scaled(*made, strength, scale)):
            return found[0]
    found = _absorbed(x, y, cost, strength, scale, HALVINGS)
    if found is None:
        raise ValueError(f"the transport plan leaves float32's range at strength {strength}; use a smaller strength")
    return found[0]


def _absorbed(
    x: Tensor, y: Tensor, cost: Tensor, strength: float, scale: Scaling, halvings: int
) -> tuple[Plan, Tensor] | None:
    """`_scaled`, if need be from the potential of a weaker plan; `cost` (K,) is the columns' own part of the costs."""
    found = _scaled(*_kernel(x, y, cost, strength), strength, scale)
    if found or not halvings:
        return found
    weaker = _absorbed(x, y, cost, strength / 2, scale, halvings - 1)
    again = weaker and _scaled(*_kernel(x, y, (cost - weaker[1]).float(), strength), strength, scale)
    return (again[0], again[1] + weaker[1]) if weaker and again else None


def _scaled(kernel: Tensor, shift: Tensor, strength: float, scale: Scaling) -> tuple[Plan, Tensor] | None:
    """The plan, and the columns' potential (K,) float64 in units of cost; None if float32 can't hold the scales."""
    n, k = kernel.shape
    shift = shift.double()
    with full_float32(kernel.device):
        a, b, rounds = scale(partial(_round, kernel), n, torch.exp(-strength * shift) / k)
    return (
        (Plan(a, kernel, b.float(), rounds), shift + torch.log(b) / strength) if in_range(a, b, torch.float32) else None
    )


def _kernel(x: Tensor, y: Tensor, cost: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """exp(-strength (cost - 2 x y - row minimum - column shift)) and the column shift (K,), in one N x K array."""
    kernel = x.new_empty(x.shape[0], y.shape[0])
    shift = x.new_full((y.shape[0],), torch.inf)
    rows = block_rows(BLOCK_ELEMENTS, y.shape[0])
    with full_float32(x.device):
        for part, out in zip(torch.split(x, rows), torch.split(kernel, rows), strict=True):
            torch.addmm(cost, part, y.T, alpha=-2.0, out=out)  # the rows' own squares go with the row minimum
            out -= out.amin(dim=1, keepdim=True)
            shift = torch.minimum(shift, out.amin(dim=0))
    for out in torch.split(kernel, rows):
        out.sub_(shift).mul_(-strength).exp_()
    return kernel, shift


def _half_kernel(x: Tensor, y: Tensor, cost: Tensor, strength: float) -> tuple[Tensor, Tensor] | None:
    """The same in bfloat16, from products of bfloat16 inputs; None if its entries would leave the range.

    The column shift comes from a sample of the rows, less what other rows may be nearer by: a float32 kernel, from
    which the exact one could be taken, is never made.
    """
    n, k = x.shape[0], y.shape[0]
    kernel = torch.empty(n, k, dtype=torch.bfloat16, device=x.device)
    rows = min(n, block_rows(BLOCK_ELEMENTS, k))
    scratch = x.new_empty(rows, k)

    def strip(part: Tensor) -> Tensor:
        out = torch.addmm(cost, part, y.T, alpha=-2.0, out=scratch[: len(part)])
        return out.sub_(out.amin(dim=1, keepdim=True))

    with bfloat16_inputs(x.device):
        sample = x[:: max(1, n // rows)][:rows]
        shift = (strip(sample).amin(dim=0) - REACH / (2 * strength)).clamp(min=0.0)
        for part, out in zip(torch.split(x, rows), torch.split(kernel, rows), strict=True):
            power = strip(part).sub_(shift).mul_(-strength)
            if float(power.amax()) > REACH:
                return None
            out.copy_(power.exp_())
    return kernel, shift


def _round(kernel: Tensor, b: Tensor, mass: float, a: Tensor, omega: float = 1.0) -> tuple[Tensor, Tensor]:
    """a <- mass / (kernel b), in a step `omega` times as long from the old a, and kernelᵀ a in float64."""
    kernels = compiled_scaling(kernel.device)
    b, a = b.float(), a.float()
    if kernels is None:
        step = mass / (kernel @ b)
        a = step if omega == 1.0 else a * (step / a) ** omega
        return a, (kernel.T @ a).double()
    a = a.clone()
    entries = kernel.numpy() if kernel.dtype == torch.float32 else kernel.view(torch.uint16).numpy()
    arrays = (entries, b.numpy(), mass, omega, a.numpy())
    parts = over_rows(
        lambda start, stop: kernels.scaling_round(start, stop, *arrays),
        len(a),
        pieces_per_thread=1,
        serial=kernel.numel() < SMALL,
    )
    return a, torch.from_numpy(sum(parts[1:], parts[0]))


def _heaviest(block: Tensor, b: Tensor, lost: float) -> tuple[Tensor, Tensor, Tensor]:
    """Entries of block * b that hold all but `lost` of each row: (entries per row, columns, values)."""
    rows = block.shape[0]
    kernels = compiled(block.device)
    if kernels is not None:
        arrays = (block.numpy(), b.numpy(), lost)
        parts = over_rows(
            lambda start, stop: kernels.heaviest(start, stop, *arrays), rows, serial=block.numel() < SMALL
        )
        count, column, value = (torch.cat([torch.from_numpy(p) for p in part]) for part in zip(*parts, strict=True))
        return count, column, value
    weight = block * b
    level = weight.view(torch.int32).bitwise_right_shift(20).long()  # exponent and three bits: steps of 12.5 %
    offset = torch.arange(rows, device=block.device)[:, None] << 11
    mass = add_at((level + offset).flatten(), weight.double().flatten(), rows << 11).view(rows, -1)
    light = mass.cumsum(dim=1) <= lost * mass.sum(dim=1, keepdim=True)
    light[:, -1] = False
    keep = (level >= light.sum(dim=1, keepdim=True)) & (weight > 0)
    return keep.sum(dim=1), keep.nonzero()[:, 1], weight[keep]
