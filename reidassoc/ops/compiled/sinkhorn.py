"""The compiled round of entropic transport, on a float32 or a bfloat16 kernel; see `compiled`."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from reidassoc.ops.compiled.affinity import FAST, Array


@intrinsic
def _widened(_context: Any, entry: Any) -> Any:
    """A kernel entry as float32: float32 as it is; a bfloat16, given as uint16, with zero bits behind it."""

    def code(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        if entry == types.float32:
            return args[0]
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(args[0], word), ir.Constant(word, 16)), ir.FloatType())

    return types.float32(entry), code


widened: Any = _widened  # the decorator hides from a type checker that the first argument is numba's


@njit(**FAST)  # type: ignore[untyped-decorator]
def relaxed(before: float, after: float, omega: float) -> Any:
    """The step from `before` to `after`, made `omega` times as long on the logarithmic scale."""
    return np.float32(after) if omega == 1.0 else np.float32(before * (after / before) ** omega)


@njit(**FAST)  # type: ignore[untyped-decorator]
def scaling_round(start: int, stop: int, kernel: Array, b: Array, mass: float, omega: float, a: Array) -> Array:
    """a = mass / (kernel b) for rows [start, stop), and their share of kernelᵀ a: the kernel is read once.

    With omega above 1 the step from the old a to the new one is made so many times as long, in logarithms.
    """
    width = kernel.shape[1]
    column = np.zeros(width, np.float64)
    partial = np.zeros(width, np.float32)
    pending = 0
    zero = np.float32(0.0)
    for i in range(start, stop, 4):  # four rows share every load of b and of the sums: the loop is bound by memory
        i1, i2, i3 = min(i + 1, stop - 1), min(i + 2, stop - 1), min(i + 3, stop - 1)
        r0, r1, r2, r3 = kernel[i], kernel[i1], kernel[i2], kernel[i3]
        t0, t1, t2, t3 = zero, zero, zero, zero
        for k in range(width):
            t0 += widened(r0[k]) * b[k]
            t1 += widened(r1[k]) * b[k]
            t2 += widened(r2[k]) * b[k]
            t3 += widened(r3[k]) * b[k]
        s0 = relaxed(a[i], mass / t0, omega)
        s1 = relaxed(a[i1], mass / t1, omega) if i + 1 < stop else zero
        s2 = relaxed(a[i2], mass / t2, omega) if i + 2 < stop else zero
        s3 = relaxed(a[i3], mass / t3, omega) if i + 3 < stop else zero
        for k in range(width):
            partial[k] += s0 * widened(r0[k]) + s1 * widened(r1[k]) + s2 * widened(r2[k]) + s3 * widened(r3[k])
        a[i] = s0
        for t, s in ((1, s1), (2, s2), (3, s3)):
            if i + t < stop:
                a[i + t] = s
        pending += 1
        if pending == 32 or i + 4 >= stop:  # short float32 sums, long float64 ones
            for k in range(width):
                column[k] += partial[k]
                partial[k] = 0.0
            pending = 0
    return column


@njit(**FAST)  # type: ignore[untyped-decorator]
def sparse_round(
    start: int,
    stop: int,
    pointer: Array,
    column: Array,
    value: Array,
    rest: Array,
    b: Array,
    mass: float,
    omega: float,
    a: Array,
) -> Array:
    """`scaling_round` on a CSR kernel, in float64; `rest` (N,) is what pairs that are not stored add to kernel b."""
    total = np.zeros(b.shape[0], np.float64)
    for i in range(start, stop):
        met = rest[i]
        for p in range(pointer[i], pointer[i + 1]):
            met += value[p] * b[column[p]]
        scale = mass / met
        if omega != 1.0:
            scale = a[i] * (scale / a[i]) ** omega
        for p in range(pointer[i], pointer[i + 1]):
            total[column[p]] += scale * value[p]
        a[i] = scale
    return total
