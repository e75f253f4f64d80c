"""Labels that keep the largest entries of each row: a softmax over many clusters, and averages of such rows."""

from __future__ import annotations

import torch
from torch import Tensor

from reidassoc.ops.compiled.dispatch import SMALL, compiled_labels, over_rows
from reidassoc.ops.memory_limit import block_rows
from reidassoc.ops.precision import full_float32
from reidassoc.ops.sparse import pointers, ranges, sum_equal
from reidassoc.types import TopLabels

BLOCK_ELEMENTS = 1 << 23  # numbers held at once by a chunked step, at most
KEPT = 32  # clusters of a sample that its label may spread over


def top_softmax(x: Tensor, prototypes: Tensor, *, temperature: float, keep: int = KEPT) -> TopLabels:
    """The `keep` largest entries of softmax(<x, prototype> / temperature), scaled to sum 1 again.

    Args:
        x: (N, D).
        prototypes: (K, D), K > 0.
    """
    count = len(prototypes)
    keep = min(keep, count)
    index, value = x.new_empty(len(x), keep, dtype=torch.int64), x.new_empty(len(x), keep)
    rows = block_rows(BLOCK_ELEMENTS, count)
    with full_float32(x.device):
        for part, i, v in zip(*(torch.split(t, rows) for t in (x, index, value)), strict=True):
            logits, which = _largest(part @ prototypes.T, keep)
            i.copy_(which)
            v.copy_(torch.softmax(logits / temperature, dim=1))
    return TopLabels(index, value, count)


def blend(average: Tensor, labels: TopLabels, anchor: TopLabels, *, hold: float, keep: int = KEPT) -> TopLabels:
    """(1 - hold) * average @ labels + hold * anchor, of which every row keeps its largest entries.

    What a row leaves out is given to the entries that it keeps, in proportion: sums stay as they are.

    Args:
        average: (N, M) sparse CSR, entries >= 0.
        labels: M rows over K clusters.
        anchor: N rows over the same.
        hold: in [0, 1].
        keep: entries of a row, at most.

    Returns:
        N rows over K clusters, with the weights of `anchor`.
    """
    keep, device = min(keep, labels.count), average.device
    pointer, column, weight = average.crow_indices(), average.col_indices(), average.values()
    kernels = compiled_labels(device)
    if kernels is None:
        return _blended(average, labels, anchor, hold, keep)
    index, value = torch.empty(len(anchor), keep, dtype=torch.int64), torch.empty(len(anchor), keep)
    given = (pointer, column, weight, labels.index, labels.value, anchor.index, anchor.value)
    arrays = (*(t.contiguous().numpy() for t in given), hold, labels.count, index.numpy(), value.numpy())
    over_rows(lambda start, stop: kernels.blend_rows(start, stop, *arrays), len(anchor), pieces_per_thread=16)
    return TopLabels(index, value, labels.count, anchor.weight)


def change(new: TopLabels, old: TopLabels) -> float:
    """The sum of |new - old|, as a share of the sum of old."""
    total = old.value.double().sum().clamp(min=1e-12)
    kernels = compiled_labels(new.value.device)
    if kernels is not None:
        arrays = [t.contiguous().numpy() for t in (new.index, new.value, old.index, old.value)]
        parts = over_rows(
            lambda start, stop: kernels.change_rows(start, stop, *arrays, new.count),
            len(new),
            serial=new.value.numel() < SMALL,
        )
        return float(sum(parts) / total)
    both = new.value.double().sum() + old.value.double().sum()
    rows = block_rows(BLOCK_ELEMENTS, new.index.shape[1] * old.index.shape[1])
    for i, v, j, w in zip(*(torch.split(t, rows) for t in (new.index, new.value, old.index, old.value)), strict=True):
        shared = torch.minimum(v[:, :, None], w[:, None, :]) * (i[:, :, None] == j[:, None, :])
        both -= 2 * shared.double().sum()
    return float(both.clamp(min=0) / total)


def _largest(scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Top `keep` of each row, descending, the smaller column first among equals that are kept."""
    value, index = torch.topk(scores, keep, dim=1)
    index, order = torch.sort(index, dim=1)
    value, again = torch.sort(value.gather(1, order), dim=1, descending=True, stable=True)
    return value, index.gather(1, again)


def _blended(average: Tensor, labels: TopLabels, anchor: TopLabels, hold: float, keep: int) -> TopLabels:
    """`blend` in torch: expand every product, add up those of the same cluster, sort."""
    n, count = len(anchor), labels.count
    pointer, column, weight = average.crow_indices(), average.col_indices(), average.values()
    index, value = anchor.index.new_zeros(n, keep), anchor.value.new_zeros(n, keep)
    per_row = (weight.numel() // max(1, n) + 1) * labels.index.shape[1] + anchor.index.shape[1]
    for rows in torch.split(torch.arange(n, device=average.device), block_rows(BLOCK_ELEMENTS, per_row)):
        where, local = ranges(pointer[rows], pointer.diff()[rows])
        theirs = column[where]
        place = torch.cat([labels.index[theirs].flatten(), anchor.index[rows].flatten()])
        part = (1 - hold) * weight[where][:, None] * labels.value[theirs]
        part = torch.cat([part.flatten(), hold * anchor.value[rows].flatten()])
        mine = torch.arange(len(rows), device=average.device)
        row = torch.cat([local.repeat_interleave(labels.index.shape[1]), mine.repeat_interleave(anchor.index.shape[1])])
        some = part > 0
        sizes, cluster, total = sum_equal(row[some], place[some], part[some], len(rows), count)
        row = torch.repeat_interleave(mine, sizes)
        whole = torch.segment_reduce(total, "sum", offsets=pointers(sizes))
        order = torch.sort(total, descending=True, stable=True).indices
        order = order[torch.sort(row[order], stable=True).indices]
        slot = torch.arange(len(row), device=row.device) - pointers(sizes)[row]
        first = slot < keep
        at = rows[row[first]], slot[first]
        index[at], value[at] = cluster[order[first]], total[order[first]]
        kept = value[rows].sum(dim=1)
        scale = torch.where(sizes > keep, whole / kept.clamp(min=torch.finfo(kept.dtype).tiny), 1.0)
        value[rows] *= scale[:, None]
    return TopLabels(index, value, count, anchor.weight)
