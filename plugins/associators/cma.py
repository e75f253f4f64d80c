"""CMA: clusters are matched by how many of their images are alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from reidassoc import Association, Associator, Modality, Scene
from reidassoc.ops.assignment import cosine_table, cross_labels, greedy_pairs, mixed_prototypes
from reidassoc.ops.memory_limit import block_rows
from reidassoc.ops.precision import full_float32

BLOCK_ELEMENTS = 1 << 24  # similarities held at once, at most: 64 MiB of float32


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
        partner = greedy_pairs(self.count(scene).cpu(), cosine_table(*centroids))
        start = mixed_prototypes(centroids, partner, own=self.own)
        return Association(cross=cross_labels(own, partner), prototypes={str(m): start[m] for m in Modality})

    def count(self, scene: Scene) -> Tensor:
        """(K_v, K_r) int64: the pairs of similar images of each pair of clusters."""
        own = scene.clustering.own
        # By cluster, so that a running sum along a row holds every cluster's count between two of its entries.
        rows, columns = own.map(lambda c: c.clustered[torch.sort(c.labels[c.clustered], stable=True).indices])
        sizes = torch.bincount(own.infrared.labels[columns], minlength=own.infrared.count)
        count = sizes.new_zeros(own.visible.count, own.infrared.count)
        if 0 in (len(rows), len(columns)):
            return count
        theirs, ends = scene.features.infrared.x[columns], sizes.cumsum(0)
        with full_float32(theirs.device):
            for some in torch.split(rows, block_rows(BLOCK_ELEMENTS, len(columns))):
                alike = scene.features.visible.x[some] @ theirs.T >= self.floor
                running = torch.nn.functional.pad(alike.cumsum(dim=1, dtype=torch.int32), (1, 0)).long()
                count.index_add_(0, own.visible.labels[some], running[:, ends] - running[:, ends - sizes])
        return count
