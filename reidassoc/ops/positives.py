"""Rows of a bank that count as the same as a query, and the loss that draws a query to all of them together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reidassoc.ops.compiled.dispatch import compiled_search


@dataclass(frozen=True)
class Near:
    """The nearest rows of a bank to each of B queries: entry j is near if its logit is above the query's ``floor``.

    Args:
        index: (B, min(k, N)) int64, all near rows, and perhaps some that tie with the next one and are not near.
        floor: (B, 1), the (k + 1)-th largest logit; −inf where N ≤ k: all rows are near.
    """

    index: Tensor
    floor: Tensor

    def has(self, logits: Tensor, index: Tensor) -> Tensor:
        """Which entries ``index`` (B, M) of the logits (B, N), from which this was made, are near: (B, M) bool."""
        return logits.detach().gather(1, index) > self.floor


@torch.no_grad()
def near_rows(logits: Tensor, k: int) -> Near:
    """The entries of each row strictly greater than its (k + 1)-th largest: the k largest, but for ties with the next.

    Source: SALCR's released code.

    Args:
        logits: (B, N).
        k: at least 1.
    """
    rows, count = logits.shape
    if count <= k:
        everything = torch.arange(count, device=logits.device).expand(rows, count)
        return Near(everything, logits.new_full((rows, 1), -torch.inf))
    value, index = torch.topk(logits, k + 1, dim=1)
    return Near(index[:, :k], value[:, k:])


@torch.no_grad()
def near_floor(logits: Tensor, k: int) -> Tensor:
    """(B, 1): the ``floor`` of `near_rows` alone."""
    rows, count = logits.shape
    if count <= k:
        return logits.new_full((rows, 1), -torch.inf)
    kernels = compiled_search(logits.device)
    if kernels is None:
        return torch.topk(logits, k + 1, dim=1).values[:, k:]
    floor = logits.new_empty(rows)
    kernels.largest_rows(logits.contiguous().numpy(), k + 1, floor.numpy())
    return floor[:, None]


def positive_loss(logits: Tensor, index: Tensor, positive: Tensor) -> Tensor:
    """Return the mean of −log Σ_{positives} softmax(logits), over the rows that have a positive; 0 if there is none.

    Args:
        logits: (M, N), already divided by the temperature.
        index: (M, k) int64, columns among which the positives are.
        positive: (M, k) bool, which of them are.
    """
    if logits.shape[1] == 0:
        return logits.sum()  # an empty bank: 0, and still part of the graph
    some = positive.any(dim=1, keepdim=True)
    # A row without positives takes all candidates instead: its loss and gradient are finite, and it isn't counted.
    chosen = logits.gather(1, index).masked_fill(some & ~positive, -torch.inf)
    loss = torch.logsumexp(logits, dim=1) - torch.logsumexp(chosen, dim=1)
    counted = some.squeeze(1)
    return (loss * counted).sum() / counted.sum().clamp_min(1)
