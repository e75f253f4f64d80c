"""MULT on the nearest pairs alone, for sets whose whole matrices don't fit in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from reidassoc import Association, Modality, Pair, Scene, SoftLabels
from reidassoc.ops.near_pairs import TopRows, blend, change, destinations, sparse_transport, top_softmax
from reidassoc.ops.sparse import row_normalised
from reidassoc_plugins.associators.mult import Mult


@dataclass(frozen=True, kw_only=True)
class MultNear(Mult):
    """Spread soft labels as mult does, over each sample's nearest of the other modality, in memory that grows with N.

    He, Cheng, Wang, Gao, IJCV 2024, arXiv 2402.00672, with two savings of ours: the cross-modality kernel keeps each sample's
    ``neighbours`` nearest of the other modality, all other pairs at their average cost; label rows keep their 32 largest
    entries. Nearly the labels of ``mult``.

    >>> from reidassoc.testing import toy_scene
    >>> MultNear()(toy_scene()).cross.visible.count == toy_scene().clustering.own.infrared.count
    True
    """

    recipe: ClassVar[str] = "mult"

    neighbours: Annotated[int, Field(ge=1, description="pairs of a sample in the cross kernel")] = 100

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own
        if 0 in (*scene.features.map(len), *own.map(lambda clusters: clusters.count)):
            return super().__call__(scene)
        x = scene.features.map(lambda features: features.x)
        within = scene.affinity(k1=self.k1, k2=self.k2).map(row_normalised)
        plan = sparse_transport(x.visible, x.infrared, strength=self.strength, neighbours=self.neighbours)
        across = Pair(*plan.averages(self.truncation))
        space = Pair.build(lambda m: self.spread(m, own[m].centroids, x, within, across))
        return Association(own=space.map(lambda labels: labels[0]), cross=space.swapped.map(lambda labels: labels[1]))

    def spread(
        self, own: Modality, centroids: Tensor, x: Pair[Tensor], within: Pair[Tensor], across: Pair[Tensor]
    ) -> tuple[SoftLabels, SoftLabels]:
        """Labels of both modalities in the space of `own`, after the rounds."""
        count = len(centroids)
        own_start = top_softmax(x[own], centroids, temperature=self.temperature)
        moved = destinations(x[own.other], centroids, strength=self.strength)[:, None]
        other_start = TopRows(moved, x[own.other].new_ones(moved.shape))
        y, z = own_start, other_start
        for _ in range(self.rounds):
            before = y, z
            y = blend(across[own], z, own_start, hold=self.alpha, count=count)
            z = blend(across[own.other], y, other_start, hold=self.alpha, count=count)
            y, z = (blend(within[m], rows, rows, hold=0.5, count=count) for m, rows in ((own, y), (own.other, z)))
            if max(change(y, before[0]), change(z, before[1])) <= self.tolerance:
                break
        return SoftLabels(y.value, index=y.cluster, count=count), SoftLabels(z.value, index=z.cluster, count=count)
