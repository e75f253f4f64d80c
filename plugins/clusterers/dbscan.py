"""DBSCAN on the k-reciprocal Jaccard distance: the clusterer of most published methods."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from reidassoc import Clusterer, Clustering, Clusters, Features, Pair
from reidassoc.errors import DataError
from reidassoc.ops.affinity import affinity
from reidassoc.ops.dbscan import dbscan
from reidassoc.ops.prototypes import clusters_of
from reidassoc.ops.tracklets import pooled

EPS_STEP, EPS_LIMIT = 0.1, 0.7  # of the fall-back for an epoch without clusters


@dataclass(frozen=True, kw_only=True)
class Dbscan(Clusterer):
    """Group images of one modality where their k-reciprocal neighbourhoods are dense; the rest are outliers.

    DBSCAN (Ester et al., KDD 1996) on the Jaccard distance of Zhong et al. (CVPR 2017), each modality by itself. Labels
    equal scikit-learn's. The affinity is remembered with the features, so that associators get it for nothing.
    With ``tracklets``, the images of one tracklet are one sample, at the unit mean of their features: neighbours and
    ``min_samples`` count tracklets, and all images of a tracklet get its label.

    Raises:
        DataError: (when called) ``tracklets`` is asked for, and no image has one.

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
    tracklets: Annotated[bool, Field(description="the images of a tracklet are one sample")] = False

    def __call__(self, features: Pair[Features], *, epoch: int, seed: int, previous: Clustering | None) -> Clustering:
        if self.tracklets and not any(bool((f.tracklet >= 0).any()) for f in features):
            raise DataError(
                "dbscan(tracklets=true): no image has a tracklet; give the manifest a column 'tracklet', "
                "a feature file 'tracklet_visible' and 'tracklet_infrared', or leave the option out"
            )
        return Clustering(own=features.map(self.cluster), k1=self.k1, k2=self.k2)

    def cluster(self, features: Features) -> Clusters:
        """Cluster one modality."""
        samples, member = pooled(features) if self.tracklets else (features, None)
        similarity = affinity(samples, k1=self.k1, k2=self.k2)
        labels = dbscan(similarity, eps=self.eps, min_samples=self.min_samples)
        labels = labels if member is None else labels[member]
        return clusters_of(features.x, labels)

    def relaxed(self) -> Clusterer | None:
        """The same with eps 0.1 larger, at most 0.7."""
        return replace(self, eps=min(self.eps + EPS_STEP, EPS_LIMIT)) if self.eps < EPS_LIMIT else None
