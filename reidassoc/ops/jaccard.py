"""The k-reciprocal Jaccard affinity, sparse from the first step to the last.

Source: Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017, in the variant of the
cluster-contrast line of work; modality-balanced expansion: Shi et al., Multi-Memory Matching, ECCV 2024.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from reidassoc.ops.compiled.dispatch import compiled, compiled_search, over_rows
from reidassoc.ops.memory_limit import block_rows
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.precision import check_features, full_float32
from reidassoc.ops.sparse import csr_from_counts, pointers, ranges, sum_equal, transposed
from reidassoc.ops.unit_rows import rows_off_unit

BLOCK_ELEMENTS = 1 << 23  # numbers held at once by a chunked step, at most


def jaccard_similarity(features: Tensor, *, k1: int = 30, k2: int = 6, group: Tensor | None = None) -> Tensor:
    """1 - Jaccard distance of the k-reciprocal neighbourhoods, as a sparse matrix.

    Two samples are similar if they have the same reciprocal neighbours. A pair that shares none is not stored: its
    similarity is 0, its distance exactly 1. An N x N array is never made.

    Args:
        features: (N, D) floating, unit rows.
        k1: neighbours of a sample, itself included; at most N are used.
        k2: neighbours over which the encodings are averaged (query expansion), itself included; 1 = none.
        group: (N,) int64, or None. With it the expansion averages the means of the groups found among the k2
            neighbours, so that a rare modality counts as much as a frequent one.

    Returns:
        (N, N) sparse CSR float32 in (0, 1], symmetric, diagonal included, columns ascending.

    Raises:
        ValueError: k1 or k2 below 1, a wrong shape, or features that are not finite, or rows that are not of length 1.
    """
    if k1 < 1 or k2 < 1:
        raise ValueError(f"k1 and k2 must be at least 1, got k1={k1}, k2={k2}")
    if group is not None and group.shape != features.shape[:1]:
        raise ValueError(f"group must be ({features.shape[0]},), got {tuple(group.shape)}")
    check_features("features", features)
    if found := rows_off_unit(features):
        raise ValueError(f"features must have unit rows, got {found}: torch.nn.functional.normalize(features, dim=1)")
    x = features.detach().float().contiguous()
    n = x.shape[0]
    if n == 0:
        return csr_from_counts(torch.zeros(0, dtype=torch.int64), x.new_zeros(0).long(), x.new_zeros(0), 0)
    rank = _self_first(nearest(x, x, max(k1, k2))[1])
    k_half = round(k1 / 2) + 1  # Python rounds half to even, as the published code does: 25 -> 13, 27 -> 15
    encoding = _encode(x, rank[:, :k1], rank[:, :k_half])
    if k2 > 1:
        encoding = _expand(encoding, rank[:, :k2], group)
    overlap = _overlap(encoding)
    m = overlap.values()
    return csr_from_counts(overlap.crow_indices().diff(), overlap.col_indices(), (m / (2 - m)).clamp(max=1.0), n)


def _self_first(rank: Tensor) -> Tensor:
    """Put every sample at the head of its own list, where copies of it, or rounding, pushed it back or out."""
    me = torch.arange(rank.shape[0], device=rank.device)[:, None]
    found = rank == me
    found[:, -1] |= ~found.any(dim=1)  # more than k copies: the last of them gives way
    order = torch.sort((~found).to(torch.uint8), dim=1, stable=True).indices
    rank = rank.gather(1, order)
    rank[:, 0] = me[:, 0]
    return rank


def _reciprocal(rank: Tensor) -> Tensor:
    """(N, k) bool: does the neighbour have me among its k, too?"""
    kernels = compiled_search(rank.device)
    if kernels is not None:
        mutual = torch.empty(rank.shape, dtype=torch.bool)
        arrays = (rank.contiguous().numpy(), mutual.numpy())
        over_rows(lambda first, last: kernels.mutual_rows(first, last, *arrays), len(rank))
        return mutual
    me = torch.arange(len(rank), device=rank.device)
    rows = block_rows(BLOCK_ELEMENTS, rank.shape[1] ** 2)
    return torch.cat([(rank[rank[i]] == i[:, None, None]).any(dim=2) for i in torch.split(me, rows)])


def _encode(x: Tensor, rank: Tensor, half: Tensor) -> Tensor:
    """Steps 2 to 4: CSR rows V_i = softmax of -d² over the expanded reciprocal set of i."""
    mutual, half_mutual = _reciprocal(rank), _reciprocal(half)
    count, column = _reciprocal_sets(rank, half, mutual, half_mutual)
    row = torch.repeat_interleave(torch.arange(len(count), device=x.device), count)
    weight = torch.exp(2.0 * _pair_similarity(x, row, column) - 2.0)
    total = torch.segment_reduce(weight, "sum", offsets=pointers(count))
    return csr_from_counts(count, column, weight / total[row], len(rank))


def _reciprocal_sets(rank: Tensor, half: Tensor, mutual: Tensor, half_mutual: Tensor) -> tuple[Tensor, Tensor]:
    """Steps 2 and 3, the expanded reciprocal sets: (their sizes, members ascending)."""
    n, k = rank.shape
    half_size = half_mutual.sum(dim=1)
    kernels = compiled_search(rank.device)
    if kernels is not None:
        arrays = [t.contiguous().numpy() for t in (rank, half, mutual, half_mutual, half_size)]
        parts = over_rows(lambda first, last: kernels.reciprocal_rows(first, last, *arrays), n)
        sizes, members = (torch.cat([torch.from_numpy(p) for p in part]) for part in zip(*parts, strict=True))
        return sizes, members
    counts, columns = [], []
    block = block_rows(BLOCK_ELEMENTS, k * half.shape[1])
    for rows in torch.split(torch.arange(n, device=rank.device), block):
        mine = torch.where(mutual[rows], rank[rows], n).sort(dim=1).values  # N(i), padded by n
        friend = half[rank[rows]]  # (rows, k, k_half): the candidates H(j), for j in R(i)
        in_half = half_mutual[rank[rows]] & mutual[rows][:, :, None]
        place = torch.searchsorted(mine, friend.flatten(1)).clamp(max=k - 1)
        shared = (mine.gather(1, place) == friend.flatten(1)).view_as(friend) & in_half
        joins = 3 * shared.sum(dim=2) > 2 * half_size[rank[rows]]  # strictly more than two thirds, in integers
        added = torch.where(in_half & joins[:, :, None], friend, n).flatten(1)
        members = torch.cat([mine, added], dim=1).sort(dim=1).values
        keep = members < n
        keep[:, 1:] &= members[:, 1:] != members[:, :-1]
        counts.append(keep.sum(dim=1))
        columns.append(members[keep])
    return torch.cat(counts), torch.cat(columns)


def _pair_similarity(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """(P,) inner products of given pairs of rows."""
    kernels = compiled(x.device)
    if kernels is not None:
        out = torch.empty(row.numel())
        arrays = (x.numpy(), row.numpy(), column.numpy(), out.numpy())
        over_rows(lambda start, stop: kernels.pair_dots(start, stop, *arrays), row.numel())
        return out
    size = block_rows(BLOCK_ELEMENTS, x.shape[1])
    pieces = zip(torch.split(row, size), torch.split(column, size), strict=True)
    with full_float32(x.device):
        return torch.cat([(x[i] * x[j]).sum(dim=1) for i, j in pieces])


def _expand(encoding: Tensor, rank: Tensor, group: Tensor | None) -> Tensor:
    """Step 5: V_i <- weighted mean of V_j over the nearest neighbours j of i."""
    n, k = rank.shape
    weight = torch.full(rank.shape, 1.0 / k, device=rank.device)
    if group is not None:  # each group present shares alike, and so does each neighbour within its group
        theirs = group[rank]
        peers = (theirs[:, :, None] == theirs[:, None, :]).sum(dim=2)
        weight = 1.0 / peers
        weight = weight / weight.sum(dim=1, keepdim=True)  # the sum of 1/peers counts the groups
    pointer, column, value = encoding.crow_indices(), encoding.col_indices(), encoding.values()
    kernels = compiled_search(value.device)
    if kernels is not None:
        arrays = [t.contiguous().numpy() for t in (pointer, column, value, rank, weight)]
        return _stack(over_rows(lambda first, last: kernels.mean_rows(first, last, *arrays), n))
    size = pointer.diff()
    pieces = []
    entries = max(1, int(size[rank].sum()) // n)
    for rows in torch.split(torch.arange(n, device=rank.device), block_rows(BLOCK_ELEMENTS, entries)):
        source = rank[rows].flatten()
        where, slot = ranges(pointer[source], size[source])
        local = slot // k
        pieces.append(sum_equal(local, column[where], value[where] * weight[rows].flatten()[slot], rows.numel(), n))
    return _stack(pieces)


def _overlap(encoding: Tensor) -> Tensor:
    """Step 6: CSR of m_ij = sum over k of min(V_ik, V_jk)."""
    n, back = encoding.shape[0], transposed(encoding)
    pointer, column, value = encoding.crow_indices(), encoding.col_indices(), encoding.values()
    b_pointer, b_row, b_value = back.crow_indices(), back.col_indices(), back.values()
    kernels = compiled(value.device)
    if kernels is not None:
        arrays = [t.numpy() for t in (pointer, column, value, b_pointer, b_row, b_value)]
        return _stack(over_rows(lambda first, last: kernels.overlap_rows(first, last, *arrays, n), n))
    row = torch.repeat_interleave(torch.arange(n, device=value.device), pointer.diff())
    size = b_pointer.diff()
    work = torch.cumsum(torch.segment_reduce(size[column].double(), "sum", offsets=pointer), 0)
    pieces = []
    start = 0
    while start < n:  # rows of equal work, as long as their dense scratch also fits
        done = float(work[start - 1]) if start else 0.0
        stop = int(torch.searchsorted(work, done + block_rows(BLOCK_ELEMENTS, 1) / 2, right=True))
        stop = min(max(stop, start + 1), start + block_rows(BLOCK_ELEMENTS, n), n)
        span = slice(int(pointer[start]), int(pointer[stop]))
        where, slot = ranges(b_pointer[column[span]], size[column[span]])
        m = torch.minimum(value[span][slot], b_value[where])
        pieces.append(sum_equal(row[span][slot] - start, b_row[where], m, stop - start, n))
        start = stop
    return _stack(pieces)


def _stack(pieces: Iterable[tuple[Any, Any, Any]]) -> Tensor:
    """The square CSR of consecutive rows: of each piece, the entries of its rows, their columns, their values."""
    count, column, value = (torch.cat([torch.as_tensor(part) for part in parts]) for parts in zip(*pieces, strict=True))
    return csr_from_counts(count, column, value, len(count))
