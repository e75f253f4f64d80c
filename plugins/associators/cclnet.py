"""CCLNet's matching of clusters: one-to-one, by similarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from reidassoc import OUTLIER, Association, Associator, Modality, Pair, Scene
from reidassoc.ops.assignment import cosine_table, cross_labels, mixed_prototypes, one_to_one


@dataclass(frozen=True, kw_only=True)
class Cclnet(Associator):
    """Match clusters one-to-one at the largest total similarity, and keep the pairs that are similar enough.

    The matching of CCLNet: Chen et al., "Unveiling the power of CLIP in unsupervised visible-infrared person
    re-identification", ACM MM 2023. Similarity is the cosine of centroids. The banks of matched clusters start from ``own``
    times the cluster's centroid plus the rest of its partner's. Own labels are the clusterer's; clusters without a partner
    and outliers have no cross label.

    >>> from reidassoc.testing import toy_scene
    >>> cross = Cclnet()(toy_scene()).cross
    >>> sorted(set(cross.visible.hard.tolist())) == [-1, *range(8)]
    True
    """

    paper: ClassVar[str] = "Chen et al., CCLNet, ACM MM 2023"

    floor: Annotated[float, Field(ge=-1, le=1, description="least cosine of a pair that is kept")] = 0.0
    own: Annotated[float, Field(ge=0, le=1, description="share of a matched cluster's own centroid in its start")] = 0.1

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own
        centroids = own.map(lambda clusters: clusters.centroids)
        similarity = cosine_table(*centroids)
        kept = torch.nn.functional.pad(similarity >= self.floor, (0, 1, 0, 1))  # partner −1 meets what is appended
        matched = one_to_one(-similarity)
        partner = Pair.build(
            lambda m: torch.where(
                (kept if m is Modality.VISIBLE else kept.T)[torch.arange(len(matched[m])), matched[m]],
                matched[m],
                OUTLIER,
            )
        )
        start = mixed_prototypes(centroids, partner, own=self.own)
        return Association(cross=cross_labels(own, partner), prototypes={str(m): start[m] for m in Modality})
