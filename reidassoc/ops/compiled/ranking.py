"""The compiled walk of the evaluation: one sorted gallery, read off for each trial; see `compiled`."""

from __future__ import annotations

import numpy as np
from numba import njit

from reidassoc.ops.compiled.affinity import EXACT, Array


@njit(**EXACT)  # type: ignore[untyped-decorator]
def score_rows(
    start: int,
    stop: int,
    rows: Array,
    order: Array,
    distance: Array,
    place: Array,
    query_identity: Array,
    query_camera: Array,
    gallery_identity: Array,
    gallery_camera: Array,
    ignored: Array,
    ignore_same: bool,
    first_occurrence: bool,
    first: Array,
    average_precision: Array,
    inverse_penalty: Array,
) -> None:
    """Score queries [start, stop) of one trial.

    rows: (Q,) the query's row in `order` and `distance` (R, G); place: (G,) a column's place in the trial's gallery,
    -1 if it is not in it; order and place are int32, and stay in the cache; gallery_identity: (G,) codes from 0;
    ignored: (P, 2) camera pairs. The last three are (Q,).
    """
    columns = order.shape[1]
    met = np.full(gallery_identity.max() + 1, -1, np.int64)
    chosen = np.empty(columns + 1, np.int32)
    for q in range(start, stop):
        row, me, camera = rows[q], query_identity[q], query_camera[q]
        size = 0
        for p in range(columns):  # without a branch, which could not be foretold
            j = order[row, p]
            chosen[size] = j
            size += place[j] >= 0
        for p in range(1, size):
            j = chosen[p]
            d = distance[row, j]
            at = p
            while at > 0 and distance[row, chosen[at - 1]] == d and place[chosen[at - 1]] > place[j]:
                chosen[at] = chosen[at - 1]  # equal distances come in the order of the trial's gallery
                at -= 1
            chosen[at] = j
        kept, found, others, last = 0, 0, 0, 0
        total = 0.0
        for p in range(size):
            j = chosen[p]
            same = gallery_identity[j] == me
            hidden = ignore_same and same and gallery_camera[j] == camera and camera >= 0
            for r in range(ignored.shape[0]):
                hidden |= ignored[r, 0] == camera and ignored[r, 1] == gallery_camera[j]
            if hidden:
                continue
            kept += 1
            if same:
                found += 1
                total += found / kept
                last = kept
                if found == 1:
                    first[q] = others + 1 if first_occurrence else kept
            elif found == 0 and met[gallery_identity[j]] != q:
                met[gallery_identity[j]] = q
                others += 1
        if found == 0:
            first[q] = 0
            average_precision[q] = np.nan
            inverse_penalty[q] = np.nan
        else:
            average_precision[q] = total / found
            inverse_penalty[q] = found / last
