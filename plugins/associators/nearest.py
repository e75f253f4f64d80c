"""Nearest centroid: the simplest association there is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from reidassoc import OUTLIER, Association, Associator, Modality, Pair, Scene, SoftLabels
from reidassoc.ops.precision import full_float32


@dataclass(frozen=True, kw_only=True)
class Nearest(Associator):
    """Give every sample the nearest centroid of the other modality, by cosine similarity.

    Baseline. Outliers get a label, too; own labels are the clusterer's. Where two centroids are equally near the
    smaller number wins.

    >>> from reidassoc.testing import toy_scene
    >>> Nearest()(toy_scene()).cross.visible.hard.shape == (len(toy_scene().features.visible),)
    True
    """

    def __call__(self, scene: Scene) -> Association:
        return Association(cross=Pair.build(lambda modality: self.label(modality, scene)))

    def label(self, modality: Modality, scene: Scene) -> SoftLabels:
        """Label one modality's samples in the other one's space."""
        x, target = scene.features[modality].x, scene.clustering.own[modality.other]
        if target.count == 0 or len(x) == 0:
            nobody = torch.full((len(x),), OUTLIER, dtype=torch.int64, device=x.device)
            return SoftLabels.one_hot(nobody, target.count)
        with full_float32(x.device):
            similarity = x @ F.normalize(target.centroids, dim=1).T
        return SoftLabels.one_hot(similarity.argmax(dim=1), target.count)
