"""Cross-entropies against soft labels and between predictions, and their weighted mean Σ w·ℓ / Σ w over rows with an opinion."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from reidassoc.types import SoftLabels


def soft_cross_entropy(logits: Tensor, labels: SoftLabels, *, per_row: bool = False) -> Tensor:
    """Return −Σ w·y·log softmax(logits) / Σ w, over the rows with an opinion; 0 without gradient if there is none.

    Args:
        logits: (B, K), already divided by the temperature.
        labels: B rows over the same K clusters.
        per_row: divide by the number of rows instead of Σ w: rows that are doubted make the whole loss smaller.
    """
    return mean_over_opinions(-(labels.prob * F.log_softmax(logits, dim=1)).sum(1), labels, per_row=per_row)


def mean_over_opinions(loss: Tensor, labels: SoftLabels, *, per_row: bool = False) -> Tensor:
    """Average a per-row loss (B,) with the labels' weights, over the rows with an opinion; `per_row` as above."""
    weight = labels.weight * labels.labelled
    total = labels.labelled.sum() if per_row else weight.sum()
    return (weight * loss).sum() / total.clamp_min(1 if per_row else 1e-12)


def cross_prediction(logits: Tensor, target: Tensor, *, sharpening: float = 0.2) -> Tensor:
    """Return S(p | q), the cross-entropy (B,) of softmax(p) against softmax(q / sharpening).

    Gradients flow into both; detach ``target`` to stop its own. Source: MULT, IJCV 2024, the online refinement.

    Args:
        logits: p (B, K), already divided by the temperature.
        target: q (B, K), likewise.
    """
    return -(F.softmax(target / sharpening, dim=1) * F.log_softmax(logits, dim=1)).sum(1)
