"""SALCR's dual association: transport to the other modality's centroids, on propagated features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from reidassoc import OUTLIER, Association, Associator, Modality, Pair, Scene, SoftLabels
from reidassoc.ops.near_pairs import destinations
from reidassoc.ops.propagation import propagate
from reidassoc.ops.prototypes import centroids, nearest_prototype


@dataclass(frozen=True, kw_only=True)
class Salcr(Associator):
    """Move each modality's features onto the other's centroids by optimal transport, after spreading them over both.

    Dual Association with Global Learning (DAGI) and Cross-Modality Feature Propagation (CMFP): SALCR, IJCV 2025,
    arXiv 2504.19244. Outliers are left out, of propagation too, and get no label. Centroids are recomputed from the
    propagated features, not re-normalised. Cross labels: for each modality one plan against the other's centroids, the row
    argmax of it. Own labels: the argmax of the inner product with the own centroids (released code, default) or the
    clusterer's (paper, ``relabel_own=False``). Banks start from the clusterer's centroids of the raw features.

    >>> from reidassoc.testing import toy_scene
    >>> association = Salcr(k=5)(toy_scene())
    >>> bool((association.cross.visible.hard[:48] >= 0).all())
    True
    """

    paper: ClassVar[str] = "SALCR, IJCV 2025, arXiv 2504.19244"

    k: Annotated[int, Field(ge=1, description="neighbours of either modality in propagation (RegDB: 8)")] = 30
    strength: Annotated[float, Field(gt=0, description="λ of the optimal transport")] = 5.0
    relabel_own: Annotated[bool, Field(description="renew own labels (code) or keep the clusterer's (paper)")] = True
    propagate: Annotated[bool, Field(description="spread features over both modalities first")] = True

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own
        rows = own.map(lambda clusters: clusters.clustered)
        x = Pair.build(lambda m: scene.features[m].x[rows[m]])
        x = propagate(x, k=self.k) if self.propagate else x
        means = Pair.build(lambda m: centroids(x[m], own[m].labels[rows[m]], own[m].count))

        def spread(modality: Modality, clustered: Tensor, space: Modality) -> SoftLabels:
            """Labels of all samples from those of the clustered ones."""
            labels = torch.full_like(own[modality].labels, OUTLIER)
            return SoftLabels.one_hot(labels.index_copy(0, rows[modality], clustered), own[space].count)

        def cross(modality: Modality) -> SoftLabels:
            moved = destinations(x[modality], means[modality.other], strength=self.strength)
            return spread(modality, moved, modality.other)

        def relabel(modality: Modality) -> SoftLabels:
            return spread(modality, nearest_prototype(x[modality], means[modality]), modality)

        return Association(cross=Pair.build(cross), own=Pair.build(relabel) if self.relabel_own else None)
