"""RPNR's matching of clusters: optimal transport between prototypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import ot
import torch
from pydantic import Field
from torch import Tensor

from reidassoc import OUTLIER, Association, Associator, Pair, Scene
from reidassoc.ops.assignment import cosine_table, cross_labels

TOLERANCE = 1e-9  # of the plan's column sums
MAX_ROUNDS = 5000


@dataclass(frozen=True, kw_only=True)
class Rpnr(Associator):
    """Give every cluster the one of the other modality to which optimal transport moves most of its mass.

    Optimal Transport Prototype Matching: Yin et al., "Robust pseudo-label learning with neighbor relation for unsupervised
    visible-infrared person re-identification", RPNR, ACM MM 2024, arXiv 2405.05613. Clusters have uniform mass, the cost is
    exp(−cosine) of their centroids, and the entropy's weight is ``regularisation``. Visible clusters take the largest entry of
    their row of the plan, infrared ones that of their column. Own labels are the clusterer's; outliers have no cross label.

    >>> from reidassoc.testing import toy_scene
    >>> bool((Rpnr()(toy_scene()).cross.visible.hard[:48] >= 0).all())
    True
    """

    paper: ClassVar[str] = "Yin et al., RPNR, ACM MM 2024, arXiv 2405.05613"

    regularisation: Annotated[float, Field(gt=0, description="weight of the entropy")] = 5.0

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own
        partner = self.match(torch.exp(-cosine_table(*own.map(lambda clusters: clusters.centroids))))
        return Association(cross=cross_labels(own, partner))

    def match(self, cost: Tensor) -> Pair[Tensor]:
        """Partners (K,) and (L,) int64 of the rows and columns of a (K, L) cost; −1 if the other side is empty."""
        if 0 in cost.shape:
            return Pair(*(torch.full((size,), OUTLIER, dtype=torch.int64) for size in cost.shape))
        mass = [torch.full((size,), 1 / size, dtype=cost.dtype) for size in cost.shape]
        plan = ot.sinkhorn(
            *mass,
            cost,
            self.regularisation,
            method="sinkhorn_log",
            numItermax=MAX_ROUNDS,
            stopThr=TOLERANCE,
            warn=False,
        )
        return Pair(plan.argmax(dim=1), plan.argmax(dim=0))
