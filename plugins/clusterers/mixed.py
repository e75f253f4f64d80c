"""Clusters of each modality, and of both together by a distance that weighs the modalities alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from reidassoc import OUTLIER, Clusterer, Clustering, Clusters, Features, Pair
from reidassoc.ops.dbscan import dbscan
from reidassoc.ops.jaccard import jaccard_similarity
from reidassoc.ops.prototypes import centroids
from reidassoc_plugins.clusterers.dbscan import EPS_LIMIT, EPS_STEP, Dbscan


@dataclass(frozen=True, kw_only=True)
class Mixed(Clusterer):
    """Group each modality by itself, and both together where modality-balanced neighbourhoods are dense.

    Three times DBSCAN on a k-reciprocal Jaccard distance: visible, infrared, and their union, where query expansion
    averages the means of the two modalities. The space ``shared`` holds the union's clusters that have samples of both
    modalities; the others are outliers there, and still clusters of their own modality if that finds them. A shared
    cluster's prototype is the average of its two modality means. Published k1 / k2 of the union: 40 / 32 on SYSU-MM01,
    38 / 18 on RegDB. Source: Shi et al., "Multi-Memory Matching for unsupervised visible-infrared person
    re-identification", ECCV 2024, arXiv 2401.06825, cross-modality clustering.

    >>> from reidassoc.testing import toy_features
    >>> clustering = Mixed(k1=10, mixed_k1=14, mixed_k2=6)(toy_features(), epoch=0, seed=0, previous=None)
    >>> clustering.shared.visible.count == clustering.shared.infrared.count
    True
    """

    paper: ClassVar[str] = "Shi et al., ECCV 2024, arXiv 2401.06825"
    gives: ClassVar[frozenset[str]] = frozenset({"shared"})

    eps: Annotated[float, Field(gt=0, le=1, description="largest Jaccard distance of neighbours")] = 0.6
    min_samples: Annotated[int, Field(ge=1, description="neighbours, itself included, of a core sample")] = 4
    k1: Annotated[int, Field(ge=1, description="neighbours that make up a neighbourhood, within a modality")] = 30
    k2: Annotated[int, Field(ge=1, description="neighbours over which those are averaged")] = 6
    mixed_k1: Annotated[int, Field(ge=1, description="k1 of both modalities together")] = 40
    mixed_k2: Annotated[int, Field(ge=1, description="k2 of both modalities together")] = 32

    def __call__(self, features: Pair[Features], *, epoch: int, seed: int, previous: Clustering | None) -> Clustering:
        own, shared = features.map(self.cluster), self.cluster_both(features)
        return Clustering(own, shared, k1=self.k1, k2=self.k2)

    def cluster(self, features: Features) -> Clusters:
        """Cluster one modality."""
        return Dbscan(eps=self.eps, min_samples=self.min_samples, k1=self.k1, k2=self.k2).cluster(features)

    def cluster_both(self, features: Pair[Features]) -> Pair[Clusters]:
        """Cluster the union; keep the clusters that hold both modalities, renumbered without gaps."""
        x = features.map(lambda f: f.x)
        sizes = [len(rows) for rows in x]
        union = torch.cat(list(x))
        group = torch.repeat_interleave(torch.tensor(sizes, device=union.device))
        similarity = jaccard_similarity(union, k1=self.mixed_k1, k2=self.mixed_k2, group=group)
        labels = dbscan(similarity, eps=self.eps, min_samples=self.min_samples)
        count = int(labels.max()) + 1 if len(labels) else 0
        there = torch.zeros(2, count + 1, dtype=torch.bool, device=labels.device)  # the last column takes the outliers
        there[group, labels] = True
        both = there.all(dim=0)
        both[count] = False
        kept = Pair(*torch.split(torch.where(both[labels], both.cumsum(0)[labels] - 1, OUTLIER), sizes))
        shared = int(both.sum())
        return Pair.build(lambda m: Clusters(kept[m], centroids(x[m], kept[m], shared)))

    def relaxed(self) -> Clusterer | None:
        """The same with eps 0.1 larger, at most 0.7."""
        return replace(self, eps=min(self.eps + EPS_STEP, EPS_LIMIT)) if self.eps < EPS_LIMIT else None
