"""Cluster prototypes: the centroids that labels make, and the samples' nearest ones."""

from __future__ import annotations

import torch
from torch import Tensor

from reidassoc.ops.memory_limit import block_rows
from reidassoc.ops.precision import full_float32
from reidassoc.types import OUTLIER, Clusters

BLOCK_ELEMENTS = 1 << 24  # inner products held at once, at most: 64 MiB of float32


def centroids(x: Tensor, labels: Tensor, num_clusters: int) -> Tensor:
    """The mean of every cluster's members, not re-normalised: the centroid that the published methods work on.

    Deterministic on every device: members are summed in the order of their rows, in float64.

    Args:
        x: (N, D) floating.
        labels: (N,) int64 in [-1, num_clusters); -1 = outlier, ignored.
        num_clusters: K.

    Returns:
        (K, D) of x's dtype; a cluster without members is a row of zeros.

    Raises:
        ValueError: shapes that do not fit, or a label out of range.
    """
    if x.dim() != 2 or labels.shape != x.shape[:1]:
        raise ValueError(f"x must be (N, D) and labels (N,), got {tuple(x.shape)} and {tuple(labels.shape)}")
    if labels.numel() and (int(labels.min()) < -1 or int(labels.max()) >= num_clusters):
        raise ValueError(f"labels must be in [-1, {num_clusters}), got {int(labels.min())} to {int(labels.max())}")
    members = (labels >= 0).nonzero().flatten()
    count = torch.bincount(labels[members], minlength=num_clusters)
    if members.numel() == 0:
        return x.new_zeros(num_clusters, x.shape[1])
    order = members[torch.sort(labels[members], stable=True).indices]
    total = torch.stack([x[rows].sum(dim=0, dtype=torch.float64) for rows in torch.split(order, count.tolist())])
    return (total / count.clamp(min=1)[:, None]).to(x.dtype)


def clusters_of(x: Tensor, labels: Tensor) -> Clusters:
    """The clusters that the labels of a clusterer make: as many as the largest label says, with their centroids.

    Args:
        x: (N, D) unit features.
        labels: (N,) int64, -1 = outlier, the others from 0 without gaps, as :func:`reidassoc.ops.partition.by_first_member`
            numbers them.
    """
    return Clusters(labels, centroids(x, labels, int(labels.max()) + 1 if len(labels) else 0))


def updated_centroids(x: Tensor, labels: Tensor, before: Tensor) -> Tensor:
    """(K, D): the centroids of new labels (N,) in [-1, K); a label that nobody has keeps its centroid from before (K, D)."""
    used = torch.bincount(labels[labels != OUTLIER], minlength=len(before)) > 0
    return torch.where(used[:, None], centroids(x, labels, len(before)), before)


def inner_products(x: Tensor, prototypes: Tensor) -> Tensor:
    """(N, K) inner products of (N, D) samples with (K, D) prototypes, in full float32 on every device."""
    with full_float32(x.device):
        return x @ prototypes.T


def nearest_prototype(x: Tensor, prototypes: Tensor) -> Tensor:
    """(N,) int64: the prototype of (K, D) with the largest inner product; K > 0 if there are samples."""
    blocks = torch.split(x, block_rows(BLOCK_ELEMENTS, len(prototypes)))
    index = [inner_products(block, prototypes).argmax(dim=1) for block in blocks if len(block)]
    return torch.cat(index) if index else torch.zeros(0, dtype=torch.int64, device=x.device)
