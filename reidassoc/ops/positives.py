"""Rows of a bank that count as the same as a query, and the loss that draws a query to all of them together."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def near_rows(logits: Tensor, k: int) -> Tensor:
    """(B, N) bool: the entries strictly greater than their row's (k + 1)-th largest; all of them where N ≤ k.

    These are the k largest, but for ties with the (k + 1)-th, which are all left out. Source: SALCR's released code.
    """
    if logits.shape[1] <= k:
        return torch.ones_like(logits, dtype=torch.bool)
    return logits > torch.topk(logits, k + 1, dim=1, sorted=False).values.amin(dim=1, keepdim=True)


def positive_loss(logits: Tensor, positive: Tensor) -> Tensor:
    """Return the mean of −log Σ_{positives} softmax(logits), over the rows that have a positive; 0 if there is none.

    Args:
        logits: (M, N), already divided by the temperature.
        positive: (M, N) bool.
    """
    if logits.shape[1] == 0:
        return logits.sum()  # an empty bank: 0, and still part of the graph
    some = positive.any(dim=1, keepdim=True)
    # A row without positives takes all of them instead: its loss is 0 and its gradient finite, and it isn't counted.
    kept = logits.masked_fill(some & ~positive, -torch.inf)
    loss = torch.logsumexp(logits, dim=1) - torch.logsumexp(kept, dim=1)
    counted = some.squeeze(1)
    return (loss * counted).sum() / counted.sum().clamp_min(1)
