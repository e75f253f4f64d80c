"""The memory limit of a label stage: how large its blocks are, and what is held as a whole matrix.

The limit is no promise for the process: features, sparse affinities and labels come to it. It says how large one dense
array may be. A method that would need a larger one refuses, or keeps the nearest pairs alone; blocks take 1/32 of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reidassoc.errors import RecipeError

GIB = 1 << 30
DEFAULT_GIB = 2.0  # every public dataset's arrays fit: SYSU-MM01's cross-modality kernel has 1.0
SHARE = 32  # blocks that would fill the limit; several live at a time
FLOAT_BYTES = 4
_limit_gib = DEFAULT_GIB


@contextmanager
def memory_limit(gib: float | None) -> Iterator[None]:
    """Keep each dense array of the label stage below so many GiB inside this block; None changes nothing.

    Raises:
        ValueError: the limit is not positive.
    """
    global _limit_gib
    if gib is not None and not gib > 0:
        raise ValueError(f"the memory limit must be a positive number of GiB, got {gib}")
    before = _limit_gib
    _limit_gib = before if gib is None else gib
    try:
        yield
    finally:
        _limit_gib = before


def dense_fits(rows: int, columns: int) -> bool:
    """Whether a (rows, columns) float32 array stays within the limit; on every machine the same answer."""
    return rows * columns * FLOAT_BYTES <= _limit_gib * GIB


def require_dense(rows: int, columns: int, *, otherwise: str) -> None:
    """RecipeError with the associator to use instead, if a (rows, columns) array exceeds the limit."""
    if not dense_fits(rows, columns):
        gib = rows * columns * FLOAT_BYTES / GIB
        raise RecipeError(
            f"an array of {rows} x {columns} numbers takes {gib:.3g} GiB, more than the memory limit of {_limit_gib:g} GiB; "
            f"use associator {otherwise}, or a larger memory_limit"
        )


def block_rows(most: int, width: int) -> int:
    """Rows of ``width`` elements that make a block of work: of ``most`` elements, of fewer under a small limit."""
    elements = min(most, int(_limit_gib * GIB) // (SHARE * FLOAT_BYTES))
    return max(1, elements // max(1, width))
