"""What the neighbours of a sample say about its label."""

from __future__ import annotations

import torch
from torch import Tensor

from reidassoc.ops.sparse import add_at
from reidassoc.types import OUTLIER


def vote(ballots: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """(N, K) float64: for every row the summed weight of its ballots for each label; the same to the bit every time.

    Args:
        ballots: (N, M) int64 labels in [−1, K); −1 abstains.
        count: K.
        weight: (N, M) ≥ 0; all 1 if not given.
    """
    rows = torch.arange(len(ballots), device=ballots.device)[:, None] * (count + 1)
    box = torch.where(ballots == OUTLIER, count, ballots) + rows
    value = torch.ones_like(ballots, dtype=torch.float64) if weight is None else weight.double()
    return add_at(box.flatten(), value.flatten(), len(ballots) * (count + 1)).view(len(ballots), count + 1)[:, :count]


def winner(votes: Tensor) -> Tensor:
    """(N,) int64: the label with most votes, the smaller one of equals; −1 where nobody voted."""
    if votes.shape[1] == 0:
        return torch.full((len(votes),), OUTLIER, dtype=torch.int64, device=votes.device)
    most, label = votes.max(dim=1)
    return torch.where(most > 0, label, OUTLIER)
