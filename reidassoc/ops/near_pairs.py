"""Entropic transport on the nearest pairs alone, and label rows of few entries, where whole matrices don't fit in memory.

A far pair's entry in the kernel, exp(-strength * cost), is next to nothing compared with a near pair's. Kept are, for every
point of either set, its nearest of the other one. All other pairs are taken at the cost that their points have on
average: they add a matrix of rank one, which costs nothing, and without which an island of points with more mass on one
side than on the other could not be served. The scaling is that of :mod:`reidassoc.ops.transport`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from reidassoc.ops.compiled.dispatch import SMALL, compiled_labels, compiled_scaling, over_rows
from reidassoc.ops.memory_limit import block_rows, dense_fits
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.precision import check_features, full_float32
from reidassoc.ops.sinkhorn import Round, in_range, scales
from reidassoc.ops.sparse import csr, csr_from_counts, pointers, ranges, row_normalised, rows_of, sum_equal, transposed
from reidassoc.ops.transport import transport

ENTRIES = 32  # clusters of a sample that its label may spread over
BLOCK_ELEMENTS = 1 << 23  # numbers in memory at once in a chunked step, at most
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
    neighbours: int = 100,
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


class TopRows(NamedTuple):
    """Rows over K clusters, of which the largest entries are kept: `SoftLabels(value, index=cluster, count=K)`."""

    cluster: Tensor  # (N, k) int64 in [0, K), different ones along a row wherever the value is not 0
    value: Tensor  # (N, k) float32, descending along a row, of equal ones the smaller cluster first


def top_softmax(x: Tensor, prototypes: Tensor, *, temperature: float, keep: int = ENTRIES) -> TopRows:
    """The `keep` largest entries of softmax(<x, prototype> / temperature), scaled to sum 1 again.

    Args:
        x: (N, D).
        prototypes: (K, D), K > 0.
    """
    keep = min(keep, len(prototypes))
    rows = block_rows(BLOCK_ELEMENTS, len(prototypes))
    index, value = x.new_empty(len(x), keep, dtype=torch.int64), x.new_empty(len(x), keep)
    with full_float32(x.device):
        for part, i, v in zip(*(torch.split(t, rows) for t in (x, index, value)), strict=True):
            logits, which = _largest(part @ prototypes.T, keep)
            i.copy_(which)
            v.copy_(torch.softmax(logits / temperature, dim=1))
    return TopRows(index, value)


def blend(
    average: Tensor, labels: TopRows, anchor: TopRows, *, hold: float, count: int, keep: int = ENTRIES
) -> TopRows:
    """(1 - hold) * average @ labels + hold * anchor, of which every row keeps its largest entries.

    What a row leaves out is given to the entries that it keeps, in proportion: the row's sum does not change.

    Args:
        average: (N, M) sparse CSR, entries >= 0.
        labels: M rows over K clusters.
        anchor: N rows over the same.
        hold: in [0, 1].
        count: K.
        keep: entries of a row, at most.
    """
    keep, n = min(keep, count), len(anchor.cluster)
    kernels = compiled_labels(average.device)
    if kernels is None:
        return _blend(average, labels, anchor, hold, count, keep)
    cluster, value = torch.empty(n, keep, dtype=torch.int64), torch.empty(n, keep)
    matrix = average.crow_indices(), average.col_indices(), average.values()
    arrays = (
        *(t.contiguous().numpy() for t in (*matrix, *labels, *anchor)),
        hold,
        count,
        cluster.numpy(),
        value.numpy(),
    )
    over_rows(lambda start, stop: kernels.blend_rows(start, stop, *arrays), n, pieces_per_thread=16)
    return TopRows(cluster, value)


def _blend(average: Tensor, labels: TopRows, anchor: TopRows, hold: float, count: int, keep: int) -> TopRows:
    """`blend` in torch: expand every product, add up those of the same cluster, sort."""
    n = len(anchor.cluster)
    pointer, column, weight = average.crow_indices(), average.col_indices(), average.values()
    index, value = anchor.cluster.new_zeros(n, keep), anchor.value.new_zeros(n, keep)
    per_row = (weight.numel() // max(1, n) + 1) * labels.cluster.shape[1] + anchor.cluster.shape[1]
    for rows in torch.split(torch.arange(n, device=average.device), block_rows(BLOCK_ELEMENTS, per_row)):
        where, local = ranges(pointer[rows], pointer.diff()[rows])
        source = column[where]
        place = torch.cat([labels.cluster[source].flatten(), anchor.cluster[rows].flatten()])
        part = (1 - hold) * weight[where][:, None] * labels.value[source]
        part = torch.cat([part.flatten(), hold * anchor.value[rows].flatten()])
        mine = torch.arange(len(rows), device=average.device)
        row = torch.cat(
            [local.repeat_interleave(labels.cluster.shape[1]), mine.repeat_interleave(anchor.cluster.shape[1])]
        )
        positive = part > 0
        sizes, cluster, total = sum_equal(row[positive], place[positive], part[positive], len(rows), count)
        row = torch.repeat_interleave(mine, sizes)
        whole = torch.segment_reduce(total, "sum", offsets=pointers(sizes))
        order = torch.sort(total, descending=True, stable=True).indices
        order = order[torch.sort(row[order], stable=True).indices]
        slot = torch.arange(len(row), device=row.device) - pointers(sizes)[row]
        first = slot < keep
        at = rows[row[first]], slot[first]
        index[at], value[at] = cluster[order[first]], total[order[first]]
        rest = value[rows].sum(dim=1)
        scale = torch.where(sizes > keep, whole / rest.clamp(min=torch.finfo(rest.dtype).tiny), 1.0)
        value[rows] *= scale[:, None]
    return TopRows(index, value)


def change(new: TopRows, old: TopRows) -> float:
    """The sum of |new - old|, as a share of the sum of old."""
    total = old.value.double().sum().clamp(min=1e-12)
    kernels = compiled_labels(new.value.device)
    if kernels is not None:
        arrays = [t.contiguous().numpy() for t in (*new, *old)]
        width = 1 + int(max(new.cluster.max(), old.cluster.max()))
        parts = over_rows(
            lambda start, stop: kernels.change_rows(start, stop, *arrays, width),
            len(new.cluster),
            serial=new.value.numel() < SMALL,
        )
        return float(sum(parts) / total)
    both = new.value.double().sum() + old.value.double().sum()
    rows = block_rows(BLOCK_ELEMENTS, new.cluster.shape[1] * old.cluster.shape[1])
    for i, v, j, w in zip(*(torch.split(t, rows) for t in (*new, *old)), strict=True):
        shared = torch.minimum(v[:, :, None], w[:, None, :]) * (i[:, :, None] == j[:, None, :])
        both -= 2 * shared.double().sum()
    return float(both.clamp(min=0) / total)


def _largest(scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Top `keep` of each row, descending, the smaller column first among equals that are kept."""
    value, index = torch.topk(scores, keep, dim=1)
    index, order = torch.sort(index, dim=1)
    value, again = torch.sort(value.gather(1, order), dim=1, descending=True, stable=True)
    return value, index.gather(1, again)
