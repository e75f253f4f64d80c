"""Random matching: what an association is worth that knows nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reidassoc import OUTLIER, Association, Associator, Modality, Pair, Scene, SoftLabels
from reidassoc.ops.seeds import generator_for


@dataclass(frozen=True, kw_only=True)
class Random(Associator):
    """Match clusters across modalities at random: the lower bound.

    One-to-one as far as the smaller side goes; the larger side's other clusters share partners evenly. New each
    epoch from (seed, epoch). Outliers stay outliers.

    >>> from reidassoc.testing import toy_scene
    >>> bool((Random()(toy_scene()).cross.visible.hard == Random()(toy_scene()).cross.visible.hard).all())
    True
    """

    def __call__(self, scene: Scene) -> Association:
        generator = generator_for(scene.seed, scene.epoch, "random associator")
        order = scene.clustering.own.map(lambda clusters: torch.randperm(clusters.count, generator=generator))
        return Association(cross=Pair.build(lambda modality: self.label(modality, scene, order)))

    def label(self, modality: Modality, scene: Scene, order: Pair[Tensor]) -> SoftLabels:
        """Label one modality's samples by their clusters' partners: equal places in the two shuffled orders."""
        labels, target = scene.clustering.own[modality].labels, scene.clustering.own[modality.other]
        mine, theirs = order[modality], order[modality.other]
        if len(theirs) == 0 or len(mine) == 0:
            return SoftLabels.one_hot(torch.full_like(labels, OUTLIER), target.count)
        partner = torch.empty_like(mine)
        partner[mine] = theirs[torch.arange(len(mine)) % len(theirs)]
        partner = partner.to(labels.device)[labels.clamp(min=0)]
        return SoftLabels.one_hot(torch.where(labels == OUTLIER, OUTLIER, partner), target.count)
