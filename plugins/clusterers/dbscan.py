"""DBSCAN on the k-reciprocal Jaccard distance: the clusterer of most published methods."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from reidassoc import Clusterer, Clustering, Clusters, Features, Pair
from reidassoc.ops.affinity import affinity
from reidassoc.ops.dbscan import dbscan
from reidassoc.ops.prototypes import centroids

EPS_STEP, EPS_LIMIT = 0.1, 0.7  # of the fall-back for an epoch without clusters


@dataclass(frozen=True, kw_only=True)
class Dbscan(Clusterer):
    """Group images of one modality where their k-reciprocal neighbourhoods are dense; the rest are outliers.

    DBSCAN (Ester et al., KDD 1996) on the Jaccard distance of Zhong et al. (CVPR 2017), each modality by itself. Labels
    equal scikit-learn's. The affinity is remembered with the features, so that associators get it for nothing.

    >>> from reidassoc.testing import toy_features
    >>> clustering = Dbscan(k1=10)(toy_features(), epoch=0, seed=0, previous=None)
    >>> clustering.usable
    True
    """

    paper = "Ester et al., KDD 1996; Zhong et al., CVPR 2017"

    eps: Annotated[float, Field(gt=0, le=1, description="largest Jaccard distance of neighbours")] = 0.6
    min_samples: Annotated[int, Field(ge=1, description="neighbours, itself included, of a core sample")] = 4
    k1: Annotated[int, Field(ge=1, description="neighbours that make up a neighbourhood")] = 30
    k2: Annotated[int, Field(ge=1, description="neighbours over which neighbourhoods are averaged")] = 6

    def __call__(self, features: Pair[Features], *, epoch: int, seed: int, previous: Clustering | None) -> Clustering:
        return Clustering(own=features.map(self.cluster))

    def cluster(self, features: Features) -> Clusters:
        """Cluster one modality."""
        similarity = affinity(features, k1=self.k1, k2=self.k2)
        labels = dbscan(similarity, eps=self.eps, min_samples=self.min_samples)
        count = int(labels.max()) + 1 if len(labels) else 0
        return Clusters(labels, centroids(features.x, labels, count))

    def relaxed(self) -> Clusterer | None:
        """The same with eps 0.1 larger, at most 0.7."""
        return replace(self, eps=min(self.eps + EPS_STEP, EPS_LIMIT)) if self.eps < EPS_LIMIT else None
