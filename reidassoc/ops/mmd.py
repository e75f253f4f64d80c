"""Maximum mean discrepancy: how far apart two sets of features lie, label by label.

Source: Gretton et al., A Kernel Two-Sample Test, JMLR 2012, with the five Gaussian kernels of Long et al., ICML 2015,
as MMM (Shi et al., ECCV 2024, arXiv 2401.06825) uses it.
"""

from __future__ import annotations

import torch
from torch import Tensor

KERNELS = 5  # widths h, 2h, 4h, 8h, 16h
NARROWING: int = 2 ** (KERNELS // 2)  # the narrowest width is so much smaller than the mean squared distance
TINY = 1e-12  # of a squared distance between unit vectors


def mmd(source: Tensor, target: Tensor) -> Tensor:
    """Return MMD² of two sets (N, D) and (M, D): mean K_ss + mean K_tt − 2 mean K_st, K the sum of the Gaussian kernels.

    exp(−d² / h), h = h₀·2^i for i = 0 … 4, h₀ a quarter of the mean squared distance of the pooled set's pairs, through
    which no gradient flows. 0 if a set is empty.
    """
    labels = [torch.zeros(len(rows), dtype=torch.int64, device=rows.device) for rows in (source, target)]
    return mmd_by_label(source, target, labels[0], labels[1])


def mmd_by_label(
    source: Tensor, target: Tensor, source_label: Tensor, target_label: Tensor, *, width: Tensor | None = None
) -> Tensor:
    """Return the mean of :func:`mmd` over the labels that both sets have; 0 if there is none. Never waits for the device.

    Args:
        source: (N, D) floating.
        target: (M, D) floating.
        source_label: (N,) int64, −1 = no label, left out.
        target_label: (M,) int64.
        width: (N + M,) the h₀ of each row's label; by default as in :func:`kernel_width`.
    """
    label = torch.cat([source_label, target_label])
    z = torch.cat([source, target])
    same = same_label(label).to(z.dtype)
    in_source = torch.cat([torch.ones_like(source_label), torch.zeros_like(target_label)]).to(z.dtype)
    of_source, of_target = same @ in_source, same @ (1 - in_source)
    both = (of_source > 0) & (of_target > 0)
    sign = (in_source / of_source.clamp_min(1) - (1 - in_source) / of_target.clamp_min(1)) * both
    square = squared_distances(z)
    h = kernel_width(square, same) if width is None else width
    kernel = torch.stack([torch.exp(-square / (h[:, None] * 2**i)) for i in range(KERNELS)]).sum(0)
    labels = (both / (of_source + of_target).clamp_min(1)).sum().round()  # each label's rows add up to 1
    total: Tensor = sign @ (kernel * same) @ sign
    return total / labels.clamp_min(1)


def same_label(label: Tensor) -> Tensor:
    """(N, N) bool: do two rows have the same label, and one at all?"""
    return (label[:, None] == label) & (label[:, None] >= 0)


def squared_distances(z: Tensor) -> Tensor:
    """(N, N) squared Euclidean distances of the rows."""
    norm = (z * z).sum(1)
    square: Tensor = norm[:, None] + norm - 2 * z @ z.T
    return square.clamp_min(0)


@torch.no_grad()
def kernel_width(square: Tensor, same: Tensor) -> Tensor:
    """(N,): h₀ of each row's label, a quarter of the mean squared distance of its ordered pairs."""
    size = same.sum(1)
    total: Tensor = ((same @ square) * same).sum(1)
    mean = total / (size * (size - 1)).clamp_min(1)
    return (mean / NARROWING).clamp_min(TINY)
