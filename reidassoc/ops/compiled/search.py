"""The compiled loops of the screened neighbour search and of the k-reciprocal encoding; see `compiled`."""

from __future__ import annotations

import numpy as np
from numba import njit

from reidassoc.ops.compiled.affinity import EXACT, FAST, Array, grown
from reidassoc.ops.compiled.sinkhorn import widened

POSITIVE = 0x8000  # bfloat16 patterns below this are the positive numbers, in their order


@njit(**EXACT)  # type: ignore[untyped-decorator]
def screen_rows(
    start: int, stop: int, similarity: Array, slack: Array, relative: float, k: int, limit: int
) -> tuple[Array, Array]:
    """Columns of rows [start, stop) that may be among the k largest: (how many of each row, columns ascending).

    `similarity` holds bfloat16 patterns, each within slack[row] + relative * |value| of the truth. A row of which this
    can't be told, or with more than `limit` candidates, gets count -1 and no columns.
    """
    width = similarity.shape[1]
    tally = np.zeros(POSITIVE, np.int32)
    count = np.empty(stop - start, np.int64)
    capacity = 4 * k * (stop - start) + limit
    out = np.empty(capacity, np.int64)
    used = 0
    for i in range(start, stop):
        row = similarity[i]
        top = 0
        for j in range(width):
            code = np.int64(row[j])
            if code < POSITIVE:
                tally[code] += 1
                top = max(top, code)
        met = 0
        code = top + 1
        while met < k and code > 0:
            code -= 1
            met += tally[code]
        tally[: top + 1] = 0
        kth = widened(np.uint16(code))
        floor = (kth * (1.0 - relative) - 2.0 * slack[i]) / (1.0 + relative)
        if met < k or not floor > 0.0:
            count[i - start] = -1
            continue
        least = code
        while least > 0 and widened(np.uint16(least - 1)) >= floor:
            least -= 1
        if used + width > capacity:
            capacity = 2 * capacity + width
            out = grown(out, used, capacity)
        before = used
        for j in range(width):
            code = np.int64(row[j])
            if least <= code < POSITIVE:
                out[used] = j
                used += 1
        count[i - start] = used - before
        if used - before > limit:
            used = before
            count[i - start] = -1
    return count, out[:used].copy()


@njit(**FAST)  # type: ignore[untyped-decorator]
def rank_rows(
    start: int,
    stop: int,
    queries: Array,
    keys: Array,
    pointer: Array,
    column: Array,
    similarity: Array,
    index: Array,
) -> None:
    """The nearest of each row's candidates by float32 inner product, the smaller index first among equals."""
    k = index.shape[1]
    for i in range(start, stop):
        a = queries[i]
        first = pointer[i]
        size = pointer[i + 1] - first
        minus = np.empty(size, np.float32)
        for p in range(size):
            b = keys[column[first + p]]
            total = np.float32(0.0)
            for d in range(a.shape[0]):
                total += a[d] * b[d]
            minus[p] = -total
        order = np.argsort(minus, kind="mergesort")
        for p in range(k):
            similarity[i, p] = -minus[order[p]]
            index[i, p] = column[first + order[p]]


@njit(**EXACT)  # type: ignore[untyped-decorator]
def mutual_rows(start: int, stop: int, rank: Array, mutual: Array) -> None:
    """mutual[i, p] for rows [start, stop): does my p-th neighbour have me among its own?"""
    k = rank.shape[1]
    for i in range(start, stop):
        for p in range(k):
            theirs = rank[rank[i, p]]
            found = False
            for q in range(k):
                found |= theirs[q] == i
            mutual[i, p] = found


@njit(**EXACT)  # type: ignore[untyped-decorator]
def reciprocal_rows(
    start: int, stop: int, rank: Array, half: Array, mutual: Array, half_mutual: Array, half_size: Array
) -> tuple[Array, Array]:
    """The expanded reciprocal sets of rows [start, stop): (their sizes, members ascending)."""
    n, k = rank.shape
    h = half.shape[1]
    mine = np.full(n, -1, np.int64)  # mine[j] == i: j is in N(i)
    taken = np.full(n, -1, np.int64)
    members = np.empty(k + k * h, np.int64)
    count = np.empty(stop - start, np.int64)
    capacity = 2 * k * (stop - start) + members.shape[0]
    out = np.empty(capacity, np.int64)
    used = 0
    for i in range(start, stop):
        size = 0
        for p in range(k):
            if mutual[i, p]:
                j = rank[i, p]
                mine[j] = i
                if taken[j] != i:
                    taken[j] = i
                    members[size] = j
                    size += 1
        for p in range(k):
            if not mutual[i, p]:
                continue
            friend = rank[i, p]
            shared = 0
            for q in range(h):
                shared += half_mutual[friend, q] and mine[half[friend, q]] == i
            if 3 * shared > 2 * half_size[friend]:
                for q in range(h):
                    j = half[friend, q]
                    if half_mutual[friend, q] and taken[j] != i:
                        taken[j] = i
                        members[size] = j
                        size += 1
        if used + size > capacity:
            capacity = 2 * capacity + size
            out = grown(out, used, capacity)
        out[used : used + size] = np.sort(members[:size])
        used += size
        count[i - start] = size
    return count, out[:used].copy()


@njit(**EXACT)  # type: ignore[untyped-decorator]
def mean_rows(
    start: int, stop: int, pointer: Array, column: Array, value: Array, rank: Array, weight: Array
) -> tuple[Array, Array, Array]:
    """Rows [start, stop) of sum over p of weight[i, p] V[rank[i, p]]: (entries per row, columns ascending, values)."""
    n, k = pointer.shape[0] - 1, rank.shape[1]
    total = np.zeros(n, np.float32)
    seen = np.full(n, -1, np.int64)
    touched = np.empty(n, np.int64)
    count = np.empty(stop - start, np.int64)
    capacity = 128 * (stop - start) + n
    out_column = np.empty(capacity, np.int64)
    out_value = np.empty(capacity, np.float32)
    used = 0
    for i in range(start, stop):
        met = 0
        for p in range(k):
            source, share = rank[i, p], weight[i, p]
            for q in range(pointer[source], pointer[source + 1]):
                j = column[q]
                if seen[j] != i:
                    seen[j] = i
                    touched[met] = j
                    met += 1
                total[j] += value[q] * share
        if used + met > capacity:
            capacity = 2 * capacity + met
            out_column = grown(out_column, used, capacity)
            out_value = grown(out_value, used, capacity)
        row = np.sort(touched[:met])
        for t in range(met):
            out_column[used + t] = row[t]
            out_value[used + t] = total[row[t]]
            total[row[t]] = 0.0
        used += met
        count[i - start] = met
    return count, out_column[:used].copy(), out_value[:used].copy()


@njit(**EXACT)  # type: ignore[untyped-decorator]
def largest_rows(values: Array, k: int, out: Array) -> None:
    """The k-th largest value of each row, by a list of the k largest so far, ascending."""
    best = np.empty(k, values.dtype)
    for i in range(len(values)):
        row = values[i]
        best[:] = -np.inf
        for j in range(len(row)):
            value = row[j]
            if value > best[0]:
                at = 1
                while at < k and best[at] < value:
                    best[at - 1] = best[at]
                    at += 1
                best[at - 1] = value
        out[i] = best[0]
