"""Several prototypes per cluster: K-means sub-memories, and what it costs to match clusters by them.

Source: Shi et al., Multi-Memory Matching, ECCV 2024, arXiv 2401.06825.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from reidassoc.ops.precision import full_float32


def sub_memories(x: Tensor, labels: Tensor, num_clusters: int, *, count: int, seed: int) -> Tensor:
    """Split every cluster by K-means into `count` centres, which are not re-normalised.

    A cluster with no more samples keeps its samples, padded by their mean. scikit-learn's `KMeans(n_init=1)`, on the host.

    Args:
        x: (N, D) floating.
        labels: (N,) int64 in [-1, num_clusters); -1 = outlier, ignored. No cluster is empty.
        num_clusters: K.
        count: n >= 1.
        seed: of K-means.

    Returns:
        (K, n, D) of x's dtype and device.

    Raises:
        ValueError: a cluster has no member, or count < 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    host, where = x.detach().cpu(), labels.cpu()
    order = torch.argsort(where, stable=True)[int((where < 0).sum()) :]
    sizes = torch.bincount(where[order], minlength=num_clusters)
    if bool((sizes == 0).any()):
        raise ValueError(f"cluster {int((sizes == 0).nonzero()[0])} has no member: number the clusters without gaps")
    centres = host.new_empty(num_clusters, count, host.shape[1])
    for cluster, rows in enumerate(torch.split(order, sizes.tolist()) if num_clusters else ()):
        members = host[rows]
        if len(members) <= count:
            centres[cluster] = members.mean(dim=0)
            centres[cluster, : len(members)] = members
        else:
            centres[cluster] = torch.from_numpy(_k_means(members.numpy(), count, seed))
    return centres.to(x.device)


def _k_means(members: npt.NDArray[np.float32], count: int, seed: int) -> npt.NDArray[np.float32]:
    with warnings.catch_warnings():
        # Fewer distinct samples than centres: some centres coincide.
        warnings.simplefilter("ignore", ConvergenceWarning)
        centres: npt.NDArray[np.float32] = KMeans(count, random_state=seed, n_init=1).fit(members).cluster_centers_
    return centres


def memory_cost(own: Tensor, other: Tensor) -> Tensor:
    """Sum over the sub-memories of `own` of the distance to the nearest sub-memory of `other`.

    Args:
        own: (K, n, D) floating.
        other: (L, m, D) floating.

    Returns:
        (K, L) float64 on the host, C_ij = Σ_a min_b ‖own_ia − other_jb‖₂.
    """
    (k, n, _), (others, m, _) = own.shape, other.shape
    if k == 0 or others == 0:
        return torch.zeros(k, others, dtype=torch.float64)
    with full_float32(own.device):
        a, b = own.detach().double().flatten(0, 1), other.detach().double().flatten(0, 1)
        square = (a * a).sum(dim=1)[:, None] + (b * b).sum(dim=1) - 2 * a @ b.T
        return square.clamp(min=0).sqrt().view(k, n, others, m).amin(dim=3).sum(dim=1).cpu()
