"""CLU: the neighbours across the modalities vote, then those within."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from reidassoc import OUTLIER, Association, Associator, Modality, Pair, Scene, SoftLabels
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.votes import vote, winner


@dataclass(frozen=True, kw_only=True)
class Clu(Associator):
    """Label every sample by its nearest images of the other modality, then by the majority of its own neighbours.

    Cross-modality Label Unification: Yang, Chen, Ye, "Towards grand unified representation learning for unsupervised
    visible-infrared person re-identification", GUR, ICCV 2023. Each of the ``across`` most similar clustered images votes for
    its cluster with weight exp(cosine / τ): the row's softmax, of which the top is kept. The answer is the most frequent one
    among the ``within`` most similar images of the sample's own modality, itself included. Of equals the smaller number wins.
    Own labels are the clusterer's. As published, outliers are left out before, and have no cross label.

    >>> from reidassoc.testing import toy_scene
    >>> bool((Clu()(toy_scene()).cross.visible.hard >= -1).all())
    True
    """

    paper: ClassVar[str] = "Yang et al., GUR, ICCV 2023"
    recipe: ClassVar[str] = "gur"

    across: Annotated[int, Field(ge=1, description="voting images of the other modality")] = 20
    within: Annotated[int, Field(ge=1, description="voting images of the own modality; 1 = no second vote")] = 20
    temperature: Annotated[float, Field(gt=0, description="τ of the softmax")] = 1.0
    outliers: Annotated[bool, Field(description="label the clusterer's outliers, too")] = False

    def __call__(self, scene: Scene) -> Association:
        return Association(cross=Pair.build(lambda modality: self.label(modality, scene)))

    def label(self, modality: Modality, scene: Scene) -> SoftLabels:
        """Label one modality's samples in the other one's space."""
        mine, target = scene.clustering.own[modality], scene.clustering.own[modality.other]
        rows = torch.arange(len(mine.labels), device=mine.labels.device) if self.outliers else mine.clustered
        x, voters = scene.features[modality].x[rows], target.clustered
        similarity, index = nearest(x, scene.features[modality.other].x[voters], self.across)
        weight = torch.exp((similarity - 1) / self.temperature)  # at most 1, whatever the temperature
        first = winner(vote(target.labels[voters][index], target.count, weight))
        if len(voters) and self.within > 1:
            _, index = nearest(x, x, self.within)
            first = winner(vote(first[index], target.count))
        return SoftLabels.one_hot(torch.full_like(mine.labels, OUTLIER).index_copy(0, rows, first), target.count)
