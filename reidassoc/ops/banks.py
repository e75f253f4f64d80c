"""The momentum update of a cluster bank, vectorised over labels, with a loop only over a label's repeats.

Source: the ClusterNCE memory of Dai et al., Cluster Contrast, ACCV 2022.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor


def plan_rounds(labels: npt.NDArray[np.int64]) -> Tensor:
    """Plan, on the host, in which order rows enter a bank: round r holds every label's r-th row.

    Args:
        labels: (M,) label of each row in the order of feeding; −1 rows are left out.

    Returns:
        (R, L) int64 row numbers, R = most repeats of a label, L = labels present, padded with −1.
    """
    rows = np.flatnonzero(labels >= 0)
    if len(rows) == 0:
        return torch.empty((0, 0), dtype=torch.int64)
    _, slot = np.unique(labels[rows], return_inverse=True)
    order = np.argsort(slot, kind="stable")
    starts = np.searchsorted(slot[order], np.arange(slot.max() + 1))
    repeat = np.empty_like(slot)
    repeat[order] = np.arange(len(slot)) - starts[slot[order]]
    plan = np.full((int(repeat.max()) + 1, int(slot.max()) + 1), -1, dtype=np.int64)
    plan[repeat, slot] = rows
    return torch.from_numpy(plan)


def update_bank(vectors: Tensor, features: Tensor, labels: Tensor, rounds: Tensor, momentum: float) -> Tensor:
    """Return the bank after ``vectors[y] ← normalise(μ vectors[y] + (1 − μ) f)`` for each row, in the planned order.

    Args:
        vectors: (K, D) unit rows.
        features: (M, D) unit rows.
        labels: (M,) int64.
        rounds: (R, L) from :func:`plan_rounds`, on the device of the features.
        momentum: μ in [0, 1].
    """
    if rounds.numel() == 0:
        return vectors
    scratch = len(vectors)  # padded places write into one extra row, so that no mask is ever indexed with
    bank = torch.cat([vectors, vectors.new_zeros(1, vectors.shape[1])])
    target = torch.where(rounds >= 0, labels[rounds.clamp_min(0)], scratch)
    for row, label in zip(rounds.clamp_min(0), target, strict=True):
        mixed = momentum * bank[label] + (1 - momentum) * features[row]
        bank = bank.index_copy(0, label, F.normalize(mixed, dim=1))
    return bank[:scratch]
