"""The compiled loops over labels that keep the largest entries of each row; see `compiled`."""

from __future__ import annotations

import numpy as np
from numba import njit

from reidassoc.ops.compiled.affinity import EXACT, Array


@njit(**EXACT)  # type: ignore[untyped-decorator]
def added(cluster: int, value: float, total: Array, touched: Array, met: int) -> int:
    """Add to a cluster's total; return how many clusters have one, of which `touched` keeps a list."""
    if total[cluster] == 0.0:
        touched[met] = cluster
        met += 1
    total[cluster] += value
    return met


@njit(**EXACT)  # type: ignore[untyped-decorator]
def blend_rows(
    start: int,
    stop: int,
    pointer: Array,
    column: Array,
    weight: Array,
    index: Array,
    value: Array,
    anchor_index: Array,
    anchor_value: Array,
    hold: float,
    width: int,
    out_index: Array,
    out_value: Array,
) -> None:
    """Rows [start, stop) of (1 - hold) * average @ labels + hold * anchor: the largest entries, descending.

    What a row leaves out is given to what it keeps, in proportion.
    """
    total = np.zeros(width, np.float32)
    touched = np.empty(width, np.int64)
    share = np.float32(1.0 - hold)
    held = np.float32(hold)
    keep = out_index.shape[1]
    for i in range(start, stop):
        met = 0
        for p in range(pointer[i], pointer[i + 1]):
            j = column[p]
            w = share * weight[p]
            for q in range(index.shape[1]):
                v = w * value[j, q]
                if not v > 0.0:  # they descend
                    break
                met = added(index[j, q], v, total, touched, met)
        for q in range(anchor_index.shape[1]):
            v = held * anchor_value[i, q]
            if not v > 0.0:
                break
            met = added(anchor_index[i, q], v, total, touched, met)
        size = 0
        whole = 0.0
        kept = 0.0
        for t in range(met):
            c = touched[t]
            v = total[c]
            total[c] = 0.0
            whole += v
            at = size
            while at > 0 and (out_value[i, at - 1] < v or (out_value[i, at - 1] == v and out_index[i, at - 1] > c)):
                if at < keep:
                    out_value[i, at] = out_value[i, at - 1]
                    out_index[i, at] = out_index[i, at - 1]
                at -= 1
            if at < keep:
                out_value[i, at] = v
                out_index[i, at] = c
                size = min(size + 1, keep)
        if met > keep:
            for q in range(keep):
                kept += out_value[i, q]
            for q in range(keep):
                out_value[i, q] = np.float32(out_value[i, q] * (whole / kept))
        for q in range(size, keep):
            out_value[i, q] = 0.0
            out_index[i, q] = 0


@njit(**EXACT)  # type: ignore[untyped-decorator]
def change_rows(
    start: int, stop: int, index: Array, value: Array, old_index: Array, old_value: Array, width: int
) -> float:
    """The sum of |new - old| over rows [start, stop)."""
    before = np.zeros(width, np.float32)
    total = 0.0
    for i in range(start, stop):
        for q in range(old_index.shape[1]):
            before[old_index[i, q]] += old_value[i, q]
        for q in range(index.shape[1]):
            if value[i, q] > 0.0:
                c = index[i, q]
                total += abs(value[i, q] - before[c])
                before[c] = 0.0
        for q in range(old_index.shape[1]):
            c = old_index[i, q]
            total += before[c]
            before[c] = 0.0
    return total
