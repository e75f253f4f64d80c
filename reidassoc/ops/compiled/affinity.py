"""Loops that torch can't fuse, compiled by numba. Import through `reidassoc.ops.compiled.dispatch.compiled` only.

Every kernel has a torch twin beside its caller, and a test that both give the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any  # numba decides the dtypes at the call: float32 values, int64 indices

EXACT: dict[str, Any] = {"nogil": True, "cache": True, "boundscheck": False, "error_model": "numpy"}  # 1 / 0 = infinity
FAST: dict[str, Any] = EXACT | {"fastmath": {"reassoc", "contract", "nsz"}}


@njit(**EXACT)  # type: ignore[untyped-decorator]
def grown(array: Array, used: int, capacity: int) -> Array:
    """The first `used` entries in an array with room for more."""
    more = np.empty(capacity, array.dtype)
    more[:used] = array[:used]
    return more


@njit(**EXACT)  # type: ignore[untyped-decorator]
def overlap_rows(
    start: int,
    stop: int,
    pointer: Array,
    column: Array,
    value: Array,
    t_pointer: Array,
    t_row: Array,
    t_value: Array,
    width: int,
) -> tuple[Array, Array, Array]:
    """Rows [start, stop) of m_ij = sum over k of min(V_ik, V_jk): (entries per row, columns ascending, m)."""
    total = np.zeros(width, np.float32)
    touched = np.empty(width, np.int64)
    count = np.zeros(stop - start, np.int64)
    capacity = 256 * (stop - start) + width
    out_column = np.empty(capacity, np.int64)
    out_value = np.empty(capacity, np.float32)
    used = 0
    for i in range(start, stop):
        met = 0
        for p in range(pointer[i], pointer[i + 1]):
            mine = value[p]
            k = column[p]
            for q in range(t_pointer[k], t_pointer[k + 1]):
                j = t_row[q]
                if total[j] == 0.0:
                    touched[met] = j
                    met += 1
                total[j] += min(mine, t_value[q])
        if used + met > capacity:
            capacity = 2 * capacity + met
            out_column = grown(out_column, used, capacity)
            out_value = grown(out_value, used, capacity)
        row = np.sort(touched[:met])
        for t in range(met):
            j = row[t]
            out_column[used + t] = j
            out_value[used + t] = total[j]
            total[j] = 0.0
        used += met
        count[i - start] = met
    return count, out_column[:used].copy(), out_value[:used].copy()


@njit(**FAST)  # type: ignore[untyped-decorator]
def pair_dots(start: int, stop: int, x: Array, row: Array, column: Array, out: Array) -> None:
    """out[p] = <x[row[p]], x[column[p]]> for p in [start, stop)."""
    for p in range(start, stop):
        a = x[row[p]]
        b = x[column[p]]
        total = np.float32(0.0)
        for d in range(a.shape[0]):
            total += a[d] * b[d]
        out[p] = total


@njit(**FAST)  # type: ignore[untyped-decorator]
def csr_dense(start: int, stop: int, pointer: Array, column: Array, value: Array, dense: Array, out: Array) -> None:
    """Rows [start, stop) of out = CSR @ dense; dense (M, K) and out (N, K) are C-contiguous."""
    width = dense.shape[1]
    for i in range(start, stop):
        total = out[i]
        total[:] = 0.0
        for p in range(pointer[i], pointer[i + 1]):
            weight = value[p]
            source = dense[column[p]]
            for k in range(width):
                total[k] += weight * source[k]


@njit(**EXACT)  # type: ignore[untyped-decorator]
def heaviest(start: int, stop: int, kernel: Array, b: Array, lost: float) -> tuple[Array, Array, Array]:
    """Rows [start, stop) of kernel * b: the heavy entries that leave out at most `lost` of a row's sum.

    A histogram over each value's leading bits finds the threshold in one pass: (entries per row, columns, values).
    """
    width = kernel.shape[1]
    weight = np.empty(width, np.float32)
    bits = weight.view(np.int32)
    mass = np.zeros(1 << 11, np.float64)  # sign 0, 8 bits of exponent, 3 of mantissa: steps of at most 12.5 %
    count = np.zeros(stop - start, np.int64)
    capacity = 64 * (stop - start) + width
    out_column = np.empty(capacity, np.int64)
    out_value = np.empty(capacity, np.float32)
    used = 0
    for i in range(start, stop):
        row = kernel[i]
        mass[:] = 0.0
        for k in range(width):
            weight[k] = row[k] * b[k]
        for k in range(width):
            mass[bits[k] >> 20] += weight[k]
        allowed = lost * mass.sum()
        gone = 0.0
        cut = 0
        while cut < mass.shape[0] - 1 and gone + mass[cut] <= allowed:
            gone += mass[cut]
            cut += 1
        if used + width > capacity:
            capacity = 2 * capacity + width
            out_column = grown(out_column, used, capacity)
            out_value = grown(out_value, used, capacity)
        before = used
        for k in range(width):
            if bits[k] >> 20 >= cut and weight[k] > 0.0:
                out_column[used] = k
                out_value[used] = weight[k]
                used += 1
        count[i - start] = used - before
    return count, out_column[:used].copy(), out_value[:used].copy()
