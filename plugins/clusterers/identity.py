"""The true identities as clusters: supervised training in the same engine. Diagnosis only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from reidassoc import Clusterer, Clustering, Clusters, Features, Modality, Pair
from reidassoc.ops.partition import by_first_member
from reidassoc.ops.prototypes import clusters_of


@dataclass(frozen=True, kw_only=True)
class Identity(Clusterer):
    """Group images of one modality by their true identities: with the associator oracle, supervised training.

    For diagnosis only; every result of it is flagged. Images whose identity is unknown (negative) are outliers.

    >>> from reidassoc.testing import toy_features, toy_identity
    >>> clustering = Identity()(toy_features(), epoch=0, seed=0, previous=None, identity=toy_identity())
    >>> clustering.own.visible.count
    11
    """

    needs: ClassVar[frozenset[str]] = frozenset({"identity"})

    def __call__(
        self,
        features: Pair[Features],
        *,
        epoch: int,
        seed: int,
        previous: Clustering | None,
        identity: Pair[Tensor] | None = None,
    ) -> Clustering:
        if identity is None:
            raise ValueError("identity needs true identities: call it with identity=Pair(visible, infrared)")
        for modality in Modality:
            count, shape = len(features[modality]), tuple(identity[modality].shape)
            if shape != (count,):
                raise ValueError(f"identity of the {modality} samples must be ({count},), got {shape}")
        return Clustering(own=Pair.build(lambda m: self.cluster(features[m], identity[m])))

    def cluster(self, features: Features, identity: Tensor) -> Clusters:
        """Cluster one modality."""
        labels = by_first_member(identity).to(features.x.device)
        return clusters_of(features.x, labels)
