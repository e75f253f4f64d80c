"""DBSCAN on a sparse similarity graph.

Source: Ester et al., A Density-Based Algorithm for Discovering Clusters, KDD 1996; labels as scikit-learn numbers them.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from reidassoc.ops.sparse import rows_of
from reidassoc.types import OUTLIER


def dbscan(similarity: Tensor, *, eps: float, min_samples: int) -> Tensor:
    """Cluster by density: the labels of scikit-learn's `DBSCAN(metric="precomputed")`, without the dense distance.

    The distance of a stored pair is 1 - similarity, of any other pair exactly 1, of a sample to itself 0. Clusters are
    numbered by their smallest core sample; a border sample joins the lowest-numbered cluster that reaches it.

    Args:
        similarity: (N, N) sparse CSR in [0, 1], symmetric.
        eps: largest distance of neighbours, in (0, 1].
        min_samples: neighbours, the sample itself included, that make a core sample.

    Returns:
        (N,) int64 labels on the device of `similarity`, -1 = outlier.

    Raises:
        ValueError: eps or min_samples out of range, or a matrix that is not square CSR.
    """
    if not 0 < eps <= 1:
        raise ValueError(f"eps must be in (0, 1] for a Jaccard distance, got {eps}")
    if min_samples < 1:
        raise ValueError(f"min_samples must be at least 1, got {min_samples}")
    if similarity.layout != torch.sparse_csr or similarity.shape[0] != similarity.shape[1]:
        raise ValueError(f"similarity must be square sparse CSR, got {similarity.layout}, {tuple(similarity.shape)}")
    n, device = similarity.shape[0], similarity.device
    if eps >= 1:  # every pair is near, the absent ones too
        return torch.full((n,), 0 if n >= min_samples else OUTLIER, dtype=torch.int64, device=device)
    row, column = rows_of(similarity), similarity.col_indices()
    near = (1 - similarity.values() <= eps) & (row != column)
    row, column = row[near], column[near]
    core = torch.bincount(row, minlength=n) + 1 >= min_samples

    dense = core[row] & core[column]
    labels = torch.full((n,), OUTLIER, device=device)
    first = smallest_of_component(row[dense], column[dense], n)[core]
    labels[core] = torch.unique(first, return_inverse=True)[1]  # numbered by smallest core index

    border = ~core[row] & core[column]
    lowest = torch.full((n,), n, device=device).scatter_reduce(0, row[border], labels[column[border]], "amin")
    return torch.where(lowest < n, lowest, labels)


def smallest_of_component(row: Tensor, column: Tensor, n: int) -> Tensor:
    """(n,) int64: the smallest number in the connected component of each of n nodes, by symmetric edges (E,), (E,)."""
    if row.device.type == "cpu":
        graph = csr_matrix((np.ones(len(row), dtype=np.int8), (row.numpy(), column.numpy())), shape=(n, n))
        _, first, component = np.unique(
            connected_components(graph, directed=False)[1], return_index=True, return_inverse=True
        )
        return torch.from_numpy(first[component])
    smallest = torch.arange(n, device=row.device)
    # About log n times each node takes its neighbours' smallest, and so do the roots; then paths are halved.
    while True:
        least = smallest.scatter_reduce(0, row, smallest[column], "amin")
        least = least.scatter_reduce(0, smallest[row], least[column], "amin")
        least = least[least]
        if torch.equal(least, smallest):
            return smallest
        smallest = least
