"""Exact nearest neighbours by inner product, in memory that does not grow with N x M.

Where the processor multiplies bfloat16, large searches are screened in it first. Each rounding is bounded, so every
key that may be among the k nearest is a candidate, and the candidates are ranked in float32: the answer is exact.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reidassoc.ops.bfloat16 import bfloat16_pays
from reidassoc.ops.compiled.dispatch import compiled_search, over_rows
from reidassoc.ops.memory_limit import block_rows
from reidassoc.ops.precision import full_float32
from reidassoc.ops.sparse import pointers

BLOCK_ELEMENTS = 1 << 24  # similarities held at once, at most: 64 MiB of float32
SCREEN_FROM = 1 << 32  # multiplications from which screening pays
SCREEN_LIMIT = 1024  # candidates of a row; with more it is searched in float32
HALF = 2.0**-8  # largest relative rounding to bfloat16


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
    if queries.shape[0] * keys.shape[0] * keys.shape[1] >= SCREEN_FROM and bfloat16_pays(keys.device):
        screened = _nearest_screened(queries, keys, k)
        if screened is not None:
            return screened
    return _nearest_exact(queries, keys, k)


def _nearest_exact(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """All inner products in float32; `queries is keys` saves half of them."""
    symmetric = queries is keys
    # Copies get one product together: in different blocks of a matrix product they could differ in the last bit.
    key_copies = _copies(keys)
    query_copies = key_copies if symmetric else _copies(queries)
    distinct_keys = keys if key_copies is None else keys[key_copies.first]
    distinct_queries = queries if query_copies is None else queries[query_copies.first]
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


def _nearest_screened(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """The same from bfloat16 products, whose candidates are ranked in float32; None without compiled loops.

    With x = h + l, h in bfloat16: |<x, y> - <h_x, h_y>| <= |h_x| |l_y| + |l_x| |y|. To it come the float32 sums, of
    relative error D 2^-23, and the rounding of the product, relative to itself. If t is the k-th largest product of a
    row and e that bound, k keys have a similarity of at least t - e, and no key below t - 2 e has.
    """
    length = torch.linalg.vector_norm(keys, dim=1)
    if compiled_search(keys.device) is None or not 1e-3 < float(length.max()) < 1e3:  # products could leave its range
        return None
    similarity, index, unknown = _screened_blocks(queries, keys, k)
    if len(unknown):
        similarity[unknown], index[unknown] = _nearest_exact(queries[unknown], keys, k)
    return similarity, index


def _screened_blocks(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return similarity, index, and the rows with too many candidates, which remain to be searched."""
    kernels = compiled_search(keys.device)
    assert kernels is not None
    width, rows = keys.shape[1], min(len(queries), block_rows(BLOCK_ELEMENTS, len(keys)))
    half = keys.bfloat16()
    longest, rest = float(torch.linalg.vector_norm(keys, dim=1).max()), float(_rounded_off(keys, half).max())
    similarity = torch.empty(len(queries), k)
    index = torch.empty(len(queries), k, dtype=torch.int64)
    products = torch.empty(rows, keys.shape[0], dtype=torch.bfloat16)
    left = [torch.empty(0, dtype=torch.int64)]
    for begin in range(0, len(queries), rows):
        part = queries[begin : begin + rows]
        half_part = half[begin : begin + rows] if queries is keys else part.bfloat16()
        out = torch.mm(half_part, half.T, out=products[: len(part)])
        own = torch.linalg.vector_norm(part, dim=1)
        slack = own * (1 + HALF) * rest + _rounded_off(part, half_part) * longest + own * longest * width * 2.0**-22
        arrays = (out.view(torch.uint16).numpy(), slack.numpy(), 1.01 * HALF, k, SCREEN_LIMIT)
        found = over_rows(lambda start, stop, a=arrays: kernels.screen_rows(start, stop, *a), len(part))  # type: ignore[misc]
        count, column = (torch.cat([torch.from_numpy(f) for f in piece]) for piece in zip(*found, strict=True))
        told = (count >= 0).nonzero().flatten()
        best, which = torch.empty(len(told), k), torch.empty(len(told), k, dtype=torch.int64)
        if len(told) == len(part):
            known = part
        else:
            known = part[told]
            left.append((count < 0).nonzero().flatten() + begin)
        tables = (known.numpy(), keys.numpy(), pointers(count[told]).numpy(), column.numpy())
        answer = (best.numpy(), which.numpy())
        over_rows(lambda start, stop, a=(*tables, *answer): kernels.rank_rows(start, stop, *a), len(told))  # type: ignore[misc]
        similarity[begin + told], index[begin + told] = best, which
    return similarity, index, torch.cat(left)


def _rounded_off(x: Tensor, half: Tensor) -> Tensor:
    """(N,) lengths of what rounding to bfloat16 took away."""
    pieces = zip(torch.split(x, 4096), torch.split(half, 4096), strict=True)
    return torch.cat([torch.linalg.vector_norm(whole - part.float(), dim=1) for whole, part in pieces])


class _Copies(NamedTuple):
    first: Tensor  # (G,) int64 ascending: the first row of every group of identical rows
    group: Tensor  # (N,) int64: the group of every row, numbered as `first`


def _copies(x: Tensor) -> _Copies | None:
    """Which rows are identical; None if all are different."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (x.shape[1],), generator=generator).to(x.device)
    rows = block_rows(BLOCK_ELEMENTS // 16, x.shape[1])
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
    with full_float32(keys.device):
        chunks = torch.split(queries, block_rows(BLOCK_ELEMENTS, keys.shape[0]))
        tops = [_top(chunk @ keys.T, k) for chunk in chunks]
    return torch.cat([s for s, _ in tops]), torch.cat([i for _, i in tops])


def _nearest_symmetric(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Strips of the upper triangle: each serves its rows, and, transposed, the columns to its right."""
    n = len(x)
    rows = min(n, max(k, block_rows(BLOCK_ELEMENTS, n), 256))
    best = x.new_full((n, k), -torch.inf)
    index = torch.full((n, k), n, dtype=torch.int64, device=x.device)
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        with full_float32(x.device):
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
        for few in torch.split(cut, block_rows(BLOCK_ELEMENTS, 4 * width)):  # rare: only rows with a tie across the cut
            values, order = torch.sort(block[few], dim=1, descending=True, stable=True)
            s[few], i[few] = values[:, :k], order[:, :k]
    i, by_index = torch.sort(i, dim=1)
    s, by_value = torch.sort(s.gather(1, by_index), dim=1, descending=True, stable=True)
    return s, i.gather(1, by_value)
