"""The triplet loss with the hardest examples of the batch. Source: Hermans et al., arXiv 1703.07737."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-12  # of a squared distance, so that its root has a gradient


def hardest_triplet(x: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """Return the mean of max(0, margin + farthest same − nearest other) over the rows; 0 without gradient if none counts.

    Distances are Euclidean. A row counts if another one has its label and a third one has a different label. Never waits
    for the device.

    Args:
        x: (B, D) floating.
        labels: (B,) int64, −1 = no label, left out.
    """
    square = x.square().sum(1)
    distance = (square[:, None] + square[None, :] - 2 * x @ x.T).clamp_min(TINY).sqrt()
    known = labels >= 0
    same = labels[:, None] == labels[None, :]
    positive = same & known[:, None] & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    negative = ~same & known[:, None] & known[None, :]
    farthest = torch.where(positive, distance, 0.0).amax(1)
    nearest = torch.where(negative, distance, torch.inf).amin(1)
    counts = positive.any(1) & negative.any(1)
    loss = F.relu(margin + farthest - torch.where(counts, nearest, 0.0)) * counts
    return loss.sum() / counts.sum().clamp_min(1)
