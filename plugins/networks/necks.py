"""The batch-norm neck between pooled features and losses."""

from __future__ import annotations

from torch import nn


def neck(width: int) -> nn.BatchNorm1d:
    """Return a batch norm over ``width`` features whose bias is frozen at zero. Source: Luo et al., BNNeck, CVPRW 2019."""
    norm = nn.BatchNorm1d(width)
    norm.bias.requires_grad_(False)
    return norm
