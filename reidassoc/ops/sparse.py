"""Sparse row matrices (torch CSR, float32 values, int64 indices): build, normalise rows, multiply."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from reidassoc.ops.compiled.dispatch import SMALL, compiled, over_rows
from reidassoc.ops.precision import full_float32


def csr(pointer: Tensor, column: Tensor, value: Tensor, shape: tuple[int, int]) -> Tensor:
    """A sparse CSR tensor (without torch's reminder that this layout is in beta)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(pointer, column, value, shape, check_invariants=False)


def pointers(count: Tensor) -> Tensor:
    """(N + 1,) int64: where each row begins, and the last one ends, from the number of entries of each row."""
    pointer = torch.zeros(count.numel() + 1, dtype=torch.int64, device=count.device)
    torch.cumsum(count, 0, out=pointer[1:])
    return pointer


def csr_from_counts(count: Tensor, column: Tensor, value: Tensor, width: int) -> Tensor:
    """CSR from the number of entries of each row, and the entries row by row."""
    return csr(pointers(count), column, value, (count.numel(), width))


def rows_of(matrix: Tensor) -> Tensor:
    """(nnz,) int64 row number of every stored entry of a CSR matrix."""
    count = matrix.crow_indices().diff()
    return torch.repeat_interleave(torch.arange(count.numel(), device=count.device), count)


def add_at(index: Tensor, value: Tensor, size: int) -> Tensor:
    """(size,) sums of the values that share an index, the same to the bit every time, on a GPU too."""
    if value.device.type == "cpu":
        return torch.zeros(size, dtype=value.dtype).scatter_add_(0, index, value)
    return value.new_zeros(size).index_put_((index,), value, accumulate=True)  # sorts; scatter_add_ would race


def ranges(start: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate the ranges [start, start + size), and say for each number from which range it came."""
    slot = torch.repeat_interleave(torch.arange(size.numel(), device=size.device), size)
    first = torch.cumsum(size, 0) - size
    return torch.arange(slot.numel(), device=size.device) - first[slot] + start[slot], slot


def sum_equal(row: Tensor, column: Tensor, value: Tensor, rows: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Add up entries of the same place: (entries per row, columns, sums), places ascending. No atomics."""
    place = row * width + column
    if place.numel() * 16 > rows * width:  # dense scratch is cheaper than a sort
        total = add_at(place, value, rows * width)
        place = total.nonzero().flatten()
        total = total[place]
    else:
        place, slot = torch.unique(place, return_inverse=True)
        total = add_at(slot, value, place.numel())
    return torch.bincount(place // width, minlength=rows), place % width, total


def row_normalised(matrix: Tensor) -> Tensor:
    """Scale every row of a CSR matrix to sum 1; an empty row stays empty."""
    value = matrix.values()
    total = torch.segment_reduce(value.double(), "sum", offsets=matrix.crow_indices())  # no atomics: deterministic
    scale = torch.where(total > 0, 1.0 / total, 0.0)
    value = (value * scale[rows_of(matrix)]).float()
    return csr(matrix.crow_indices(), matrix.col_indices(), value, (matrix.shape[0], matrix.shape[1]))


def transposed(matrix: Tensor) -> Tensor:
    """The transpose, again in CSR, its columns ascending."""
    order = torch.sort(matrix.col_indices(), stable=True).indices
    count = torch.bincount(matrix.col_indices(), minlength=matrix.shape[1])
    return csr_from_counts(count, rows_of(matrix)[order], matrix.values()[order], matrix.shape[0])


def product(matrix: Tensor, dense: Tensor) -> Tensor:
    """CSR (N, M) @ dense (M, K) -> (N, K) float32."""
    dense = dense.contiguous()
    pointer, column, value = matrix.crow_indices(), matrix.col_indices(), matrix.values()
    kernels = compiled(dense.device)
    if kernels is not None and dense.shape[1] > 0:
        out = torch.empty(matrix.shape[0], dense.shape[1])
        arrays = (pointer.numpy(), column.numpy(), value.numpy(), dense.numpy(), out.numpy())
        over_rows(
            lambda start, stop: kernels.csr_dense(start, stop, *arrays),
            matrix.shape[0],
            pieces_per_thread=16,
            serial=value.numel() * dense.shape[1] < SMALL,
        )
        return out
    if 0 in (*matrix.shape, dense.shape[1], value.numel()):
        return dense.new_zeros(matrix.shape[0], dense.shape[1])
    with full_float32(dense.device):
        return matrix @ dense
