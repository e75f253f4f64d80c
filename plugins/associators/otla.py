"""OTLA: optimal transport of samples to the clusters of the other modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from reidassoc import OUTLIER, Association, Associator, Modality, Pair, Scene, SoftLabels
from reidassoc.ops.transport import transport


@dataclass(frozen=True, kw_only=True)
class Otla(Associator):
    """Give every sample the cluster of the other modality to which optimal transport moves most of its mass.

    Optimal-Transport Label Assignment: Wang et al., "Optimal transport for label-efficient visible-infrared person
    re-identification", ECCV 2022. Samples and clusters have uniform mass, so that no cluster takes all; the cost is the
    squared distance of unit feature and un-normalised centroid. Own labels are the clusterer's. As published, outliers
    are left out before, and have no cross label.

    >>> from reidassoc.testing import toy_scene
    >>> cross = Otla()(toy_scene()).cross
    >>> len(cross.visible) == len(toy_scene().features.visible)
    True
    """

    paper: ClassVar[str] = "Wang et al., ECCV 2022"

    strength: Annotated[float, Field(gt=0, description="λ of the optimal transport")] = 25.0
    outliers: Annotated[bool, Field(description="transport the clusterer's outliers, too")] = False

    def __call__(self, scene: Scene) -> Association:
        return Association(cross=Pair.build(lambda modality: self.label(modality, scene)))

    def label(self, modality: Modality, scene: Scene) -> SoftLabels:
        """Label one modality's samples in the other one's space."""
        x, mine, target = (
            scene.features[modality].x,
            scene.clustering.own[modality],
            scene.clustering.own[modality.other],
        )
        rows = torch.arange(len(x), device=x.device) if self.outliers else mine.clustered
        moved = transport(x[rows], target.centroids, strength=self.strength).row_argmax()
        return SoftLabels.one_hot(torch.full_like(mine.labels, OUTLIER).index_copy(0, rows, moved), target.count)
