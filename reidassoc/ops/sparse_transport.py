"""Entropic transport on the nearest pairs alone, for sets whose whole kernel is too large to hold.

A far pair's entry in the kernel, exp(-strength * cost), is next to nothing beside a near pair's. Kept are, for every
point of either set, its nearest of the other one. All other pairs are taken at the cost that their points have on
average: they add a matrix of rank one, which costs nothing, and without which an island of points with more mass on one
side than on the other could not be served. The scaling is that of :mod:`reidassoc.ops.transport`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reidassoc.ops.compiled.dispatch import SMALL, compiled_scaling, over_rows
from reidassoc.ops.memory_limit import dense_fits
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.precision import check_features, full_float32
from reidassoc.ops.sinkhorn import Round, in_range, scales
from reidassoc.ops.sparse import csr, csr_from_counts, row_normalised, rows_of, transposed
from reidassoc.ops.transport import transport

NEIGHBOURS = 100  # pairs of a point that a sparse kernel keeps
SAME_LENGTH = 1e-4  # squared lengths that differ by no more are those of unit vectors


@dataclass(frozen=True)
class SparsePlan:
    """A transport plan diag(row) kernel diag(column) on a sparse kernel.

    Args:
        row: (N,) float64.
        kernel: (N, K) sparse CSR float32, columns ascending, no row or column empty.
        column: (K,) float64.
        rounds: scaling rounds that were made.
    """

    row: Tensor
    kernel: Tensor
    column: Tensor
    rounds: int

    def averages(self, lost: float = 0.0) -> tuple[Tensor, Tensor]:
        """The row-normalised plan (N, K), and its row-normalised transpose (K, N), both sparse CSR.

        Args:
            lost: share of a row's mass, in [0, 1), that may be left out with its lightest entries.
        """
        kernel = self.kernel
        back = transposed(kernel)
        return _weighted(kernel, self.column, lost), _weighted(back, self.row, lost)

    def row_argmax(self) -> Tensor:
        """(N,) int64: where most of each row's mass goes."""
        pointer, column = self.kernel.crow_indices(), self.kernel.col_indices()
        weight = self.kernel.values() * self.column[column]
        row = rows_of(self.kernel)
        heaviest = (weight == torch.segment_reduce(weight, "max", offsets=pointer)[row]).nonzero().flatten()
        everyone = torch.arange(len(pointer) - 1, device=row.device)
        return column[heaviest[torch.searchsorted(row[heaviest], everyone)]]  # of equals the first


def sparse_transport(
    x: Tensor,
    y: Tensor,
    *,
    strength: float,
    neighbours: int = NEIGHBOURS,
    tolerance: float = 0.1,
    max_rounds: int = 500,
) -> SparsePlan:
    """The fast plan of :func:`reidassoc.ops.transport.transport`, on the nearest pairs of either side.

    Memory: about N * neighbours + K * neighbours entries of 12 bytes, a few times.

    Args:
        x: (N, D) floating, N > 0.
        y: (K, D) floating, K > 0.
        strength: lambda > 0, the inverse of the entropy's weight.
        neighbours: pairs that each point keeps at least; more where a point has to take the mass of many.
        tolerance: stop once the change of the columns' scales is no larger.
        max_rounds: stop at the latest after so many rounds.

    Raises:
        ValueError: an option out of range, shapes that do not fit, an empty set, values that are not finite, or a plan that
            leaves the numbers' range.
    """
    if not strength > 0:
        raise ValueError(f"strength must be positive, got {strength}")
    if neighbours < 1 or max_rounds < 1:
        raise ValueError(f"neighbours and max_rounds must be at least 1, got {neighbours} and {max_rounds}")
    check_features("x", x)
    check_features("y", y)
    if x.shape[1] != y.shape[1] or 0 in (len(x), len(y)):
        raise ValueError(f"x and y must be (N, D) and (K, D), neither empty, got {tuple(x.shape)}, {tuple(y.shape)}")
    x, y = x.detach().float(), y.detach().float()
    n, k = len(x), len(y)
    with full_float32(x.device):
        kernel, row_shift, shift = _kernel(x, y, strength, neighbours)
        start = torch.exp(-strength * shift) / k
        far = None if kernel.values().numel() == n * k else _far(x, y, row_shift, shift, strength)
        a, b, rounds = scales(_rounds(kernel, far), n, start, tolerance=tolerance, max_rounds=max_rounds, fast=True)
    vanished = float(kernel.values().amin()) < torch.finfo(torch.float32).tiny
    if not in_range(a, b, torch.float32 if vanished else torch.float64):
        raise ValueError(f"the transport plan leaves the numbers' range at strength {strength}; use a smaller strength")
    return SparsePlan(a, kernel, b, rounds)


def destinations(x: Tensor, y: Tensor, *, strength: float) -> Tensor:
    """(N,) int64: to which of y a plan moves most of each x; on the nearest pairs where the kernel exceeds the limit."""
    if dense_fits(len(x), len(y)):
        return transport(x, y, strength=strength).row_argmax()
    return sparse_transport(x, y, strength=strength).row_argmax()


def _kernel(x: Tensor, y: Tensor, strength: float, neighbours: int) -> tuple[Tensor, Tensor, Tensor]:
    """CSR of exp(-strength (cost - row shift - column shift)), and the shifts (N,), (K,) float64: the least costs."""
    pairs = _near_pairs(x, y, neighbours)
    pointer, column = pairs.crow_indices(), pairs.col_indices()
    row = rows_of(pairs)
    cost = (y * y).sum(dim=1)[column] - 2 * pairs.values()  # the rows' own squares go with the row shift
    row_shift = torch.segment_reduce(cost, "min", offsets=pointer)
    cost -= row_shift[row]
    shift = torch.full((len(y),), torch.inf, device=x.device).scatter_reduce(0, column, cost, "amin")
    value = cost.sub_(shift[column]).mul_(-strength).exp_()
    return csr(pointer, column, value, (len(x), len(y))), row_shift.double(), shift.double()


def _far(x: Tensor, y: Tensor, row_shift: Tensor, shift: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """The rank-one kernel of the average costs: (N,) and (K,) float64, in the same shifts."""
    middle_x, middle_y = (points.mean(dim=0, dtype=torch.float64).float() for points in (x, y))
    row = (2 * (middle_x @ middle_y) - 2 * x @ middle_y).double()
    column = ((y * y).sum(dim=1) - 2 * y @ middle_x).double()
    return torch.exp(-strength * (row - row_shift)), torch.exp(-strength * (column - shift))


def _near_pairs(x: Tensor, y: Tensor, neighbours: int) -> Tensor:
    """CSR (N, K) of the inner products of the pairs in which either is among the nearest of the other."""
    n, k = len(x), len(y)
    there, back = max(neighbours, 2 * math.ceil(k / n)), max(neighbours, 2 * math.ceil(n / k))
    found, index = _closest(x, y, min(there, k))
    place, product = index.add_(torch.arange(n, device=x.device)[:, None] * k).flatten(), found.flatten()
    found, index = _closest(y, x, min(back, n))
    place = torch.cat([place, index.mul_(k).add_(torch.arange(k, device=x.device)[:, None]).flatten()])
    product = torch.cat([product, found.flatten()])
    del found, index  # large, as all that follows
    kept, order = torch.sort(place, stable=True)
    del place
    first = torch.ones_like(kept, dtype=torch.bool)
    first[1:] = kept[1:] != kept[:-1]
    kept, value = kept[first], product[order[first]]
    del order, product
    return csr_from_counts(torch.bincount(kept // k, minlength=n), kept % k, value, k)


def _closest(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k keys at the smallest distance of every query: (inner products, index), (N, k)."""
    square = (keys * keys).sum(dim=1)
    lack = (square.max() - square) / 2  # added to the inner product: a long key is not near for its length
    if float(lack.max()) <= SAME_LENGTH:
        return nearest(queries, keys, k)
    ones = queries.new_ones(len(queries), 1)
    score, index = nearest(torch.cat([queries, ones], dim=1), torch.cat([keys, lack[:, None]], dim=1), k)
    return score - lack[index], index


def _rounds(kernel: Tensor, far: tuple[Tensor, Tensor] | None) -> Round:
    """The round on a sparse kernel plus one of rank one, in float64: compiled, or as two products."""
    pointer, column = kernel.crow_indices(), kernel.col_indices()
    kernels = compiled_scaling(kernel.device)
    value = kernel.values() if kernels is not None else kernel.values().double()
    shape = (kernel.shape[0], kernel.shape[1])
    wide = csr(pointer, column, value, shape)
    back = transposed(wide) if kernels is None else wide
    nothing = torch.zeros(shape[0], dtype=torch.float64, device=kernel.device)

    def rest(b: Tensor) -> Tensor:
        return nothing if far is None else far[0] * (far[1] @ b)

    def to_columns(total: Tensor, a: Tensor) -> Tensor:
        return total if far is None else total + far[1] * (far[0] @ a)

    def compiled_round(b: Tensor, mass: float, a: Tensor, omega: float = 1.0) -> tuple[Tensor, Tensor]:
        a = a.clone()
        given = (pointer, column, value, rest(b), b)
        arrays = (*(t.numpy() for t in given), mass, omega, a.numpy())
        parts = over_rows(
            lambda start, stop: kernels.sparse_round(start, stop, *arrays),  # type: ignore[union-attr]
            len(a),
            pieces_per_thread=1,
            serial=value.numel() < SMALL,
        )
        return a, to_columns(torch.from_numpy(sum(parts[1:], parts[0])), a)

    def torch_round(b: Tensor, mass: float, a: Tensor, omega: float = 1.0) -> tuple[Tensor, Tensor]:
        step = mass / (wide @ b + rest(b))
        a = step if omega == 1.0 else a * (step / a) ** omega
        return a, to_columns(back @ a, a)

    return torch_round if kernels is None else compiled_round


def _weighted(kernel: Tensor, scale: Tensor, lost: float) -> Tensor:
    """Rows of kernel * scale, without entries that together hold at most `lost` of a row, normalised to sum 1."""
    pointer, column = kernel.crow_indices(), kernel.col_indices()
    shape = (kernel.shape[0], kernel.shape[1])
    whole = row_normalised(csr(pointer, column, kernel.values() * scale[column], shape))  # float64 until normalised
    if lost == 0:
        return whole
    row = rows_of(whole)
    heavy = whole.values() * pointer.diff()[row] > lost  # each light entry below its part of what may be lost
    count = torch.bincount(row[heavy], minlength=shape[0])
    return row_normalised(csr_from_counts(count, column[heavy], whole.values()[heavy], shape[1]))
