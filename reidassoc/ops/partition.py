"""Numbers for the clusters of a partition that some library made."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def by_first_member(labels: Tensor | npt.NDArray[np.integer], *, least: int = 1) -> Tensor:
    """Number the clusters from 0 without gaps, in the order of their first samples.

    So equal partitions get equal labels, whatever numbers a library gave them.

    Args:
        labels: (N,) whole numbers; negative = outlier.
        least: a cluster with fewer samples becomes outliers.

    Returns:
        (N,) int64 in [-1, K), on the device of `labels`.

    >>> by_first_member(torch.tensor([7, -1, 2, 7, 2, 0]), least=2).tolist()
    [0, -1, 1, 0, 1, -1]
    """
    given = torch.as_tensor(labels)
    host = given.cpu().numpy().astype(np.int64)
    _, first, inverse, size = np.unique(host, return_index=True, return_inverse=True, return_counts=True)
    kept = (host[first] >= 0) & (size >= least)
    number = np.full(len(first), -1, dtype=np.int64)
    number[kept] = np.argsort(np.argsort(first[kept]))
    return torch.from_numpy(number[inverse.reshape(-1)]).to(given.device)
