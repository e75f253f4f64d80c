"""The scene: all that a method may look at when it associates or refines the labels of an epoch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from reidassoc.ops.affinity import affinity
from reidassoc.types import Clustering, Features, Pair, Targets


@dataclass(frozen=True)
class Scene:
    """One epoch's features and clusters of both modalities. True identities are not in it.

    Args:
        epoch: number of the epoch, counted from the run's first one, stage 1 included.
        seed: of the run; a method that draws at random seeds its generator from (seed, epoch).
        features: unit features of all training images, outliers included.
        clustering: what the clusterer made of them.
        previous: the targets of the last epoch, if there was one.
        losses: (N,) float32 loss of each sample in the last epoch, if the recipe asks for it.
    """

    epoch: int
    seed: int
    features: Pair[Features]
    clustering: Clustering
    previous: Targets | None = None
    losses: Pair[Tensor] | None = None

    def affinity(self, *, k1: int = 30, k2: int = 6) -> Pair[Tensor]:
        """Return 1 − Jaccard distance of each modality as sparse CSR (N, N); computed once per epoch."""
        return self.features.map(lambda features: affinity(features, k1=k1, k2=k2))
