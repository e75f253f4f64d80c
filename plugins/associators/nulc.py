"""N-ULC: hard labels are calibrated by the clusters of their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from reidassoc import OUTLIER, Association, Associator, Modality, Pair, Scene, SoftLabels
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.votes import vote
from reidassoc_plugins.associators.pgm import Pgm


@dataclass(frozen=True, kw_only=True)
class Nulc(Associator):
    """Match clusters as pgm does, then soften and weigh every label by the clusters of the sample's neighbours.

    Neighbor-guided Universal Label Calibration: Teng et al., "Relieving universal label noise for unsupervised
    visible-infrared person re-identification by inferring from neighbors", arXiv 2412.12220. In both spaces, a sample's
    ``neighbours`` most similar clustered images of that space's modality (in its own space itself included) overlap with each
    cluster by c = |both| / |either|, normalised over the clusters. The target is ``hard`` times the label plus the rest of c;
    its weight is exp(−sharpness (1 − c_label)²). Without a clustered neighbour the label stays as it is, with the least
    weight. RegDB's published setting is ``neighbours=20``; the paper trains the cross losses with weight 3. Outliers have
    neither label.

    >>> from reidassoc.testing import toy_scene
    >>> association = Nulc()(toy_scene())
    >>> bool((association.own.visible.weight <= 1).all())
    True
    """

    paper: ClassVar[str] = "Teng et al., N-ULC, arXiv 2412.12220"

    neighbours: Annotated[int, Field(ge=1, description="images asked (published: 30; RegDB: 20)")] = 30
    hard: Annotated[float, Field(ge=0, le=1, description="weight of the hard label in the target")] = 0.7
    sharpness: Annotated[float, Field(ge=0, description="how fast doubt lowers a sample's weight")] = 10.0

    def __call__(self, scene: Scene) -> Association:
        matched = Pgm()(scene).cross
        assert matched is not None  # pgm always gives cross labels
        cross = Pair.build(lambda m: self.labelled(scene, matched[m].hard, m, m.other))
        own = Pair.build(lambda m: self.labelled(scene, scene.clustering.own[m].labels, m, m))
        return Association(cross=cross, own=own)

    def labelled(self, scene: Scene, labels: Tensor, modality: Modality, space: Modality) -> SoftLabels:
        """The calibrated labels of a modality's samples in a space."""
        target = scene.clustering.own[space]
        rows = target.clustered
        _, index = nearest(scene.features[modality].x, scene.features[space].x[rows], self.neighbours)
        ballots, size = target.labels[rows][index], torch.bincount(target.labels[rows], minlength=target.count)
        return self.calibrate(labels, overlap(ballots, size))

    def calibrate(self, labels: Tensor, share: Tensor) -> SoftLabels:
        """Soft labels and weights from hard labels (N,), −1 = none, and shares (N, K)."""
        sure = SoftLabels.one_hot(labels, share.shape[1]).prob
        backed = share.sum(dim=1, keepdim=True) > 0
        target = torch.where(backed, self.hard * sure + (1 - self.hard) * share, sure)
        target = torch.where((labels == OUTLIER)[:, None], sure, target)
        weight = torch.exp(-self.sharpness * (1 - (sure * share).sum(dim=1)) ** 2)
        return SoftLabels(target, weight)


def overlap(ballots: Tensor, size: Tensor) -> Tensor:
    """How much each sample's neighbours overlap with every cluster.

    Args:
        ballots: (N, n) int64, the clusters of the neighbours.
        size: (K,) int64, images of each cluster.

    Returns:
        (N, K) float32, rows sum to 1, or to 0 where there is no neighbour.
    """
    count = vote(ballots, len(size))
    share = count / (ballots.shape[1] - count + size).clamp(min=1)
    return (share / share.sum(dim=1, keepdim=True).clamp(min=1e-12)).float()
