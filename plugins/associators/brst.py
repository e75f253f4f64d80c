"""BRST: the nearest centroid, if the centroid thinks so, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field

from reidassoc import OUTLIER, Association, Associator, Modality, Pair, Scene, SoftLabels
from reidassoc.ops.prototypes import inner_products


@dataclass(frozen=True, kw_only=True)
class Brst(Associator):
    """Give a sample the nearest centroid of the other modality, if it is one of the samples nearest to that centroid.

    Bidirectional Reverse Selection Transmission: Shi et al., "Hierarchical identity learning for unsupervised
    visible-infrared person re-identification", HIL, arXiv 2509.11587. Near enough is a cosine of at least ``ratio`` times the
    largest one that any sample has with the centroid; every other sample, and as published every outlier, has no cross label.
    Own labels are the clusterer's.

    >>> from reidassoc.testing import toy_scene
    >>> bool((Brst(ratio=1.0)(toy_scene()).cross.visible.hard >= 0).sum() <= 8)
    True
    """

    paper: ClassVar[str] = "Shi et al., HIL, arXiv 2509.11587"
    recipe: ClassVar[str] = "hil"

    ratio: Annotated[float, Field(ge=0, le=1, description="of the centroid's largest cosine that a sample needs")] = 0.5
    outliers: Annotated[bool, Field(description="label the clusterer's outliers, too")] = False

    def __call__(self, scene: Scene) -> Association:
        return Association(cross=Pair.build(lambda modality: self.label(modality, scene)))

    def label(self, modality: Modality, scene: Scene) -> SoftLabels:
        """Label one modality's samples in the other one's space."""
        mine, target = scene.clustering.own[modality], scene.clustering.own[modality.other]
        rows = torch.arange(len(mine.labels), device=mine.labels.device) if self.outliers else mine.clustered
        labels = torch.full_like(mine.labels, OUTLIER)
        if target.count and len(rows):
            x = scene.features[modality].x[rows]
            similarity = inner_products(x, F.normalize(target.centroids, dim=1))
            best, centroid = similarity.max(dim=1)
            near = best >= self.ratio * similarity.amax(dim=0)[centroid]
            labels = labels.index_copy(0, rows, torch.where(near, centroid, OUTLIER))
        return SoftLabels.one_hot(labels, target.count)
