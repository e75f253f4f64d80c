"""MyIdea: how the images of one modality are grouped into pseudo-identities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from reidassoc import OUTLIER, Clusterer, Clustering, Clusters, Features, Pair
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.prototypes import clusters_of


@dataclass(frozen=True, kw_only=True)
class MyIdea(Clusterer):
    """Join images that are among each other's nearest; groups that stay small are outliers."""

    neighbours: Annotated[int, Field(ge=1, description="of an image, itself left out")] = 3
    min_samples: Annotated[int, Field(ge=1, description="images of a group that is no outlier")] = 2

    def __call__(self, features: Pair[Features], *, epoch: int, seed: int, previous: Clustering | None) -> Clustering:
        return Clustering(own=features.map(self.cluster))

    def cluster(self, features: Features) -> Clusters:
        """Cluster one modality."""
        n = len(features)
        _, index = nearest(features.x, features.x, self.neighbours + 1)  # (N, k)
        row = torch.arange(n).repeat_interleave(index.shape[1]).numpy()
        directed = csr_matrix((np.ones(index.numel()), (row, index.flatten().cpu().numpy())), shape=(n, n))
        _, group = connected_components(directed.multiply(directed.T), directed=False)
        # Groups are numbered by their first member; those that are large enough keep a place of their own.
        large = np.bincount(group, minlength=1) >= self.min_samples
        number = np.where(large, np.cumsum(large) - 1, OUTLIER)
        labels = torch.from_numpy(number[group].astype(np.int64)).to(features.x.device)
        return clusters_of(features.x, labels)
