"""CMA: clusters are matched by how many of their images are alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from reidassoc import Association, Associator, Modality, Scene
from reidassoc.ops.assignment import cosine_table, cross_labels, greedy_pairs, mixed_prototypes, similar_pairs


@dataclass(frozen=True, kw_only=True)
class Cma(Associator):
    """Match the clusters that share most pairs of similar images across the modalities, one-to-one.

    Cross-modality Memory Aggregation: Yang et al., "Augmented dual-contrastive aggregation learning for unsupervised
    visible-infrared person re-identification", ADCA, ACM MM 2022. Every pair of images with a cosine of at least
    ``floor`` counts for its pair of clusters; pairs of clusters are accepted by descending count (of equals the one with the
    more similar centroids), each cluster once. The banks of matched clusters start from ``own`` times the cluster's
    centroid plus the rest of its partner's. Unmatched clusters and outliers have no cross label.

    >>> from reidassoc.testing import toy_scene
    >>> sorted(Cma()(toy_scene()).prototypes)
    ['infrared', 'visible']
    """

    paper: ClassVar[str] = "Yang et al., ADCA, ACM MM 2022"
    recipe: ClassVar[str] = "adca"

    floor: Annotated[float, Field(ge=-1, le=1, description="least cosine of two images that count")] = 0.5
    own: Annotated[float, Field(ge=0, le=1, description="share of a matched cluster's own centroid in its start")] = 0.1

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own
        centroids = own.map(lambda clusters: clusters.centroids)
        count = similar_pairs(scene.features.map(lambda features: features.x), own, floor=self.floor)
        partner = greedy_pairs(count.cpu(), cosine_table(*centroids))
        start = mixed_prototypes(centroids, partner, own=self.own)
        return Association(cross=cross_labels(own, partner), prototypes={str(m): start[m] for m in Modality})
