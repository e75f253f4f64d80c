"""Matching the clusters of two modalities: cost tables, assignments, and what a matching says about samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from reidassoc.ops.memory_limit import block_rows
from reidassoc.ops.prototypes import BLOCK_ELEMENTS, inner_products
from reidassoc.types import OUTLIER, Clusters, Pair, SoftLabels

Partners = npt.NDArray[np.int64]


def cosine_table(rows: Tensor, columns: Tensor) -> Tensor:
    """(K, L) float64 cosine similarities of (K, D) and (L, D) centroids, on the host; 0 where one of them is zero."""
    a, b = (F.normalize(centroids.detach().double(), dim=1) for centroids in (rows, columns))
    return (a @ b.T).clamp(-1, 1).cpu()


def one_to_one(cost: Tensor) -> Pair[Tensor]:
    """Match rows and columns one-to-one at the least total cost; what is left over on the larger side has no partner.

    Args:
        cost: (K, L) floating, finite, on the host.

    Returns:
        the partner of each row (K,) as ``visible`` and of each column (L,) as ``infrared``, int64; −1 = nobody.
    """
    row, column = (np.full(size, OUTLIER, dtype=np.int64) for size in cost.shape)
    i, j = linear_sum_assignment(cost.numpy())
    row[i], column[j] = j, i
    return Pair(torch.from_numpy(row), torch.from_numpy(column))


def in_rounds(cost: Tensor) -> Pair[Tensor]:
    """Match one-to-one, then the leftovers of the larger side again with all of the smaller side, until all have a partner.

    The smaller side keeps its partner of the first round. Arguments and result as in :func:`one_to_one`; nobody is −1
    unless the other side is empty.
    """
    table = cost.numpy()
    if table.shape[0] >= table.shape[1]:
        larger, smaller = _rounds(table)
        return Pair(torch.from_numpy(larger), torch.from_numpy(smaller))
    larger, smaller = _rounds(table.T)
    return Pair(torch.from_numpy(smaller), torch.from_numpy(larger))


def _rounds(table: npt.NDArray[np.float64]) -> tuple[Partners, Partners]:
    """Partners of the rows and of the columns of a table that has at least as many rows as columns."""
    row, column = (np.full(size, OUTLIER, dtype=np.int64) for size in table.shape)
    left = np.arange(len(row) if len(column) else 0)
    while len(left):
        i, j = linear_sum_assignment(table[left])
        row[left[i]] = j
        column[j] = np.where(column[j] == OUTLIER, left[i], column[j])
        left = np.delete(left, i)
    return row, column


def tiled(cost: Tensor) -> Tensor:
    """Give every row a column at the least total cost, each column taken at most ⌊K / L⌋ + 1 times.

    Args:
        cost: (K, L) floating, finite, on the host.

    Returns:
        (K,) int64 columns; −1 if there are none.
    """
    k, width = cost.shape
    if k == 0 or width == 0:
        return torch.full((k,), OUTLIER, dtype=torch.int64)
    _, taken = linear_sum_assignment(np.tile(cost.numpy(), k // width + 1))
    return torch.from_numpy(taken % width)


def greedy_pairs(count: Tensor, preference: Tensor) -> Pair[Tensor]:
    """Accept pairs one-to-one in descending order of their count, which must be positive.

    Args:
        count: (K, L) int64, on the host.
        preference: (K, L) floating, decides between equal counts: the larger one first, then the smaller numbers.

    Returns:
        partners as in :func:`one_to_one`.
    """
    row, column = (np.full(size, OUTLIER, dtype=np.int64) for size in count.shape)
    i, j = np.nonzero(count.numpy() > 0)
    order = np.lexsort((-preference.numpy()[i, j], -count.numpy()[i, j]))
    for a, b in zip(i[order].tolist(), j[order].tolist(), strict=True):
        if row[a] == OUTLIER and column[b] == OUTLIER:
            row[a], column[b] = b, a
    return Pair(torch.from_numpy(row), torch.from_numpy(column))


def similar_pairs(x: Pair[Tensor], own: Pair[Clusters], *, floor: float) -> Tensor:
    """(K_v, K_r) int64: the pairs of images with a cosine of at least ``floor``, for each pair of clusters.

    Args:
        x: (N_v, D) and (N_r, D) unit rows.
        own: the clusters of each modality; outliers count for none.
    """
    # By cluster, so that a running sum along a row contains every cluster's count between two of its entries.
    rows, columns = own.map(lambda c: c.clustered[torch.sort(c.labels[c.clustered], stable=True).indices])
    sizes = torch.bincount(own.infrared.labels[columns], minlength=own.infrared.count)
    count = sizes.new_zeros(own.visible.count, own.infrared.count)
    if 0 in (len(rows), len(columns)):
        return count
    theirs, ends = x.infrared[columns], sizes.cumsum(0)
    for block in torch.split(rows, block_rows(BLOCK_ELEMENTS, len(columns))):
        alike = inner_products(x.visible[block], theirs) >= floor
        running = F.pad(alike.cumsum(dim=1, dtype=torch.int32), (1, 0)).long()
        count.index_add_(0, own.visible.labels[block], running[:, ends] - running[:, ends - sizes])
    return count


def of_samples(labels: Tensor, partner: Tensor) -> Tensor:
    """(N,) int64: the partner of each sample's cluster; −1 for outliers and for clusters without a partner.

    Args:
        labels: (N,) int64 in [−1, K).
        partner: (K,) int64, −1 = nobody, on any device.

    Raises:
        ValueError: ``partner`` has more dimensions, or none.
    """
    if partner.ndim != 1:
        raise ValueError(
            f"partner must be (K,), one number for each cluster, got {tuple(partner.shape)}; of a table (K, L), "
            "rows_of_samples(labels, table) takes each sample's row"
        )
    return F.pad(partner.to(labels.device), (0, 1), value=OUTLIER)[labels]  # label −1 meets the appended entry


def rows_of_samples(labels: Tensor, table: Tensor) -> Tensor:
    """(N, L) float32: the row of each sample's cluster; all 0, no label, for outliers.

    >>> rows_of_samples(torch.tensor([1, -1, 0]), torch.tensor([[0.8, 0.2], [0.5, 0.5]])).tolist()
    [[0.5, 0.5], [0.0, 0.0], [0.800000011920929, 0.20000000298023224]]

    Args:
        labels: (N,) int64 in [−1, K).
        table: (K, L), such as the shares of L clusters in the label of each of K, on any device. ``SoftLabels`` takes the
            answer if its rows sum to 1, or to 0.

    Raises:
        ValueError: ``table`` has not two dimensions.
    """
    if table.ndim != 2:
        raise ValueError(
            f"table must be (K, L), a row for each cluster, got {tuple(table.shape)}; of partners (K,), "
            "of_samples(labels, partner) takes each sample's"
        )
    return F.pad(table.to(labels.device, torch.float32), (0, 0, 0, 1))[labels]  # label −1 meets the appended row


def cross_labels(own: Pair[Clusters], partner: Pair[Tensor]) -> Pair[SoftLabels]:
    """Labels of the samples by a matching of clusters: each is given its cluster's partner, in the other modality's space.

    Args:
        own: the clusters of each modality, K_v and K_r of them.
        partner: (K_v,) and (K_r,) int64, as of :func:`one_to_one`; −1 = nobody.

    Returns:
        certain labels (N_v, K_r) and (N_r, K_v), for ``Association(cross=…)``; outliers and samples of clusters without a
        partner have no label.
    """
    return Pair.build(lambda m: SoftLabels.one_hot(of_samples(own[m].labels, partner[m]), own[m.other].count))


def mixed_prototypes(centroids: Pair[Tensor], partner: Pair[Tensor], *, own: float) -> Pair[Tensor]:
    """Unit centroids (K, D), of matched clusters ``own`` times themselves plus ``1 − own`` times their partner's.

    Both sides mix the centroids from before; sums are not re-normalised.
    """
    unit = centroids.map(lambda rows: F.normalize(rows, dim=1))

    def mixed(mine: Tensor, theirs: Tensor, match: Tensor) -> Tensor:
        match = match.to(mine.device)
        matched = (match != OUTLIER).nonzero().flatten()
        return mine.index_copy(0, matched, own * mine[matched] + (1 - own) * theirs[match[matched]])

    return Pair(
        mixed(unit.visible, unit.infrared, partner.visible), mixed(unit.infrared, unit.visible, partner.infrared)
    )
