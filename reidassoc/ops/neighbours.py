"""Exact nearest neighbours by inner product, in memory that does not grow with N x M."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reidassoc.ops.exact import full_float32

BLOCK_ELEMENTS = 1 << 24  # similarities held at once: 64 MiB of float32


def nearest(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k keys with the largest inner product, for every query: exact, and deterministic under ties.

    Where similarities are equal the smaller index comes first. Identical keys have equal similarities, and identical
    queries equal answers, however the matrix product is blocked. If `queries is keys` the symmetry saves half
    of the work.

    Args:
        queries: (N, D) floating.
        keys: (M, D) floating, same D and device.
        k: how many; at most M are returned.

    Returns:
        similarity (N, min(k, M)) float32, descending, and index (N, min(k, M)) int64.

    Raises:
        ValueError: shapes or devices that do not fit, or k < 1.
    """
    if queries.dim() != 2 or keys.dim() != 2 or queries.shape[1] != keys.shape[1]:
        raise ValueError(f"queries and keys must be (N, D) and (M, D), got {tuple(queries.shape)}, {tuple(keys.shape)}")
    if queries.device != keys.device:
        raise ValueError(f"queries are on {queries.device} and keys on {keys.device}: move one of them")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    symmetric = queries is keys
    k = min(k, keys.shape[0])
    if k == 0 or queries.shape[0] == 0:
        shape = (queries.shape[0], k)
        return queries.new_zeros(shape, dtype=torch.float32), queries.new_zeros(shape, dtype=torch.int64)
    keys = keys.detach().float().contiguous()
    queries = keys if symmetric else queries.detach().float().contiguous()
    # Copies get one product together: in different blocks of a matrix product they could differ in the last bit.
    key_copies = _copies(keys)
    query_copies = key_copies if symmetric else _copies(queries)
    distinct_keys = keys if key_copies is None else keys[key_copies.first]
    distinct_queries = queries if query_copies is None else queries[query_copies.first]
    with full_float32(keys.device):
        few = min(k, distinct_keys.shape[0])
        if symmetric:
            similarity, index = _nearest_symmetric(distinct_keys, few)
        else:
            similarity, index = _nearest_blocks(distinct_queries, distinct_keys, few)
    if key_copies is not None:
        similarity, index = _spread(similarity, index, key_copies, k)
    if query_copies is not None:
        similarity, index = similarity[query_copies.group], index[query_copies.group]
    return similarity, index


class _Copies(NamedTuple):
    first: Tensor  # (G,) int64 ascending: the first row of every group of identical rows
    group: Tensor  # (N,) int64: the group of every row, numbered as `first`


def _copies(x: Tensor) -> _Copies | None:
    """Which rows are identical; None if all are different."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (x.shape[1],), generator=generator).to(x.device)
    rows = max(1, BLOCK_ELEMENTS // 16 // max(1, x.shape[1]))
    # + 0.0 turns -0.0 into 0.0; the int64 products wrap, which is what a hash wants.
    digest = torch.cat(
        [((chunk + 0.0).view(torch.int32).long() * weights).sum(dim=1) for chunk in torch.split(x, rows)]
    )
    values, group = torch.unique(digest, return_inverse=True)
    if values.numel() == x.shape[0]:
        return None
    everyone = torch.arange(x.shape[0], device=x.device)
    chief = torch.full_like(values, x.shape[0]).scatter_reduce(0, group, everyone, "amin")[group]
    different = torch.cat([(x[rows_] != x[chief[rows_]]).any(dim=1) for rows_ in torch.split(everyone, rows)])
    chief = torch.where(different, everyone, chief)  # a hash collision makes no copy
    first, group = torch.unique(chief, return_inverse=True)
    return None if first.numel() == x.shape[0] else _Copies(first, group)


def _spread(similarity: Tensor, index: Tensor, copies: _Copies, k: int) -> tuple[Tensor, Tensor]:
    """Replace every distinct key by its copies, in order of (similarity, index), and cut at k again."""
    order = torch.argsort(copies.group, stable=True)
    count = torch.bincount(copies.group, minlength=copies.first.numel())
    start = count.cumsum(0) - count
    slot = torch.arange(min(k, int(count.max())), device=order.device)
    member = torch.where(slot < count[:, None], order[(start[:, None] + slot).clamp(max=order.numel() - 1)], -1)
    out_s, out_i = [], []
    for s, i in zip(torch.split(similarity, 4096), torch.split(index, 4096), strict=True):
        wide = member[i]  # (rows, few, copies)
        value = torch.where(wide >= 0, s[:, :, None], -torch.inf).flatten(1)
        wide, by_index = torch.sort(wide.flatten(1), dim=1)
        value, by_value = torch.sort(value.gather(1, by_index), dim=1, descending=True, stable=True)
        out_s.append(value[:, :k])
        out_i.append(wide.gather(1, by_value[:, :k]))
    return torch.cat(out_s), torch.cat(out_i)


def _nearest_blocks(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    rows = max(1, BLOCK_ELEMENTS // keys.shape[0])
    tops = [_top(chunk @ keys.T, k) for chunk in torch.split(queries, rows)]
    return torch.cat([s for s, _ in tops]), torch.cat([i for _, i in tops])


def _nearest_symmetric(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Strips of the upper triangle: each serves its rows, and, transposed, the columns to its right."""
    n = x.shape[0]
    rows = min(n, max(k, BLOCK_ELEMENTS // n, 256))
    best = x.new_full((n, k), -torch.inf)
    index = torch.full((n, k), n, dtype=torch.int64, device=x.device)
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        strip = x[start:stop] @ x[start:].T  # (rows, n - start)
        # The diagonal block is made symmetric to the bit, as the rest is by construction.
        square = strip[:, : stop - start]
        square.copy_(torch.triu(square) + torch.triu(square, 1).T)
        s, i = _top(strip, min(k, strip.shape[1]))
        best[start:stop], index[start:stop] = _merge(best[start:stop], index[start:stop], s, i + start, k)
        if stop < n:
            right = strip[:, stop - start :].T.contiguous()
            # A later row needs the sort only where this strip beats its k-th so far.
            todo = (right.amax(dim=1) > best[stop:, -1]).nonzero().flatten()
            if todo.numel():
                s, i = _top(right[todo], min(k, right.shape[1]))
                where = todo + stop
                best[where], index[where] = _merge(best[where], index[where], s, i + start, k)
    return best, index


def _merge(s1: Tensor, i1: Tensor, s2: Tensor, i2: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Best k of two lists; the first list holds the smaller indices, so that a stable sort keeps the tie rule."""
    s, order = torch.sort(torch.cat([s1, s2], dim=1), dim=1, descending=True, stable=True)
    return s[:, :k], torch.cat([i1, i2], dim=1).gather(1, order[:, :k])


def _top(block: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top k per row, the smaller column first among equals, also where the tie is cut at k."""
    width = block.shape[1]
    s, i = torch.topk(block, min(k + 1, width), dim=1)
    if k < width:
        cut = (s[:, k - 1] == s[:, k]).nonzero().flatten()
        s, i = s[:, :k].contiguous(), i[:, :k].contiguous()
        for few in torch.split(cut, max(1, BLOCK_ELEMENTS // (4 * width))):  # rare: only rows with a tie across the cut
            values, order = torch.sort(block[few], dim=1, descending=True, stable=True)
            s[few], i[few] = values[:, :k], order[:, :k]
    i, by_index = torch.sort(i, dim=1)
    s, by_value = torch.sort(s.gather(1, by_index), dim=1, descending=True, stable=True)
    return s, i.gather(1, by_value)
