"""PGM: progressive graph matching of clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from reidassoc import Association, Associator, Scene
from reidassoc.ops.assignment import cosine_table, cross_labels, in_rounds


@dataclass(frozen=True, kw_only=True)
class Pgm(Associator):
    """Match clusters one-to-one at the least total cost, and the leftovers in further rounds, until all are matched.

    Progressive Graph Matching: Wu and Ye, "Unsupervised visible-infrared person re-identification via progressive graph
    matching and alternate learning", CVPR 2023. The cost of two clusters is exp(−cosine) of their centroids. The clusters
    of the larger side that a round leaves over meet all clusters of the smaller side in the next; the smaller side keeps its
    first partner. Own labels are the clusterer's; outliers have no cross label.

    >>> from reidassoc.testing import toy_scene
    >>> cross = Pgm()(toy_scene()).cross
    >>> sorted(set(cross.visible.hard.tolist())) == [-1, *range(8)]
    True
    """

    paper: ClassVar[str] = "Wu and Ye, CVPR 2023"

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own
        partner = in_rounds(torch.exp(-cosine_table(*own.map(lambda clusters: clusters.centroids))))
        return Association(cross=cross_labels(own, partner))
