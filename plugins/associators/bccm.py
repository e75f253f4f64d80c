"""MBCCM: many-to-many bilateral matching of clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from reidassoc import Association, Associator, Modality, Pair, Scene, SoftLabels
from reidassoc.ops.assignment import cosine_table, rows_of_samples, tiled
from reidassoc.types import OUTLIER


@dataclass(frozen=True, kw_only=True)
class Bccm(Associator):
    """Match every cluster with one of the other modality at the least total cost, each direction by itself.

    Many-to-many Bilateral Cross-Modality Cluster Matching: Cheng et al., "Efficient bilateral cross-modality cluster
    matching for unsupervised visible-infrared person ReID", ACM MM 2023, arXiv 2305.12673. The cost is the squared distance
    of unit centroids. From K to L clusters, a partner may be taken ⌊K / L⌋ + 1 times. With ``link`` a cluster's label is
    uniform over all opposite clusters that are no farther than its partner. Own labels are the clusterer's; outliers have no
    cross label.

    >>> from reidassoc.testing import toy_scene
    >>> cross = Bccm()(toy_scene()).cross
    >>> bool((cross.infrared.hard[:48] >= 0).all())
    True
    """

    paper: ClassVar[str] = "Cheng et al., MBCCM, ACM MM 2023, arXiv 2305.12673"
    recipe: ClassVar[str] = "mbccm"

    link: Annotated[bool, Field(description="share a label among all clusters no farther than the match")] = False

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own
        similarity = cosine_table(*own.map(lambda clusters: clusters.centroids))
        distance = Pair(2 - 2 * similarity, (2 - 2 * similarity).T)

        def label(modality: Modality) -> SoftLabels:
            return SoftLabels(rows_of_samples(own[modality].labels, self.match(distance[modality])))

        return Association(cross=Pair.build(label))

    def match(self, distance: Tensor) -> Tensor:
        """(K, L) float32: the share of every opposite cluster in each cluster's label; rows sum to 1."""
        partner = tiled(distance)
        if not self.link or OUTLIER in partner:
            return SoftLabels.one_hot(partner, distance.shape[1]).prob
        linked = (distance <= distance.gather(1, partner[:, None])).float()
        return linked / linked.sum(dim=1, keepdim=True)
