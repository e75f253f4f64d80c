"""The scene: all that a method may look at when it associates or refines the labels of an epoch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from reidassoc.errors import RecipeError
from reidassoc.ops.affinity import affinity
from reidassoc.types import SHARED, Clustering, Features, Modality, Pair, Targets


@dataclass(frozen=True)
class Scene:
    """One epoch's features and clusters of both modalities. True identities are not in it.

    Args:
        epoch: number of the epoch, counted from the run's first one, stage 1 included.
        seed: of the run; a method that draws at random seeds its generator from (seed, epoch).
        features: unit features of all training images, outliers included.
        clustering: what the clusterer made of them.
        previous: the targets of the last epoch, if there was one.
        losses: (N,) float32 loss of each sample at the end of the last epoch, NaN for a sample without one; there if a
            part of that epoch's stage needs ``losses`` and an objective of it can tell them.
        stage_epoch: number of the epoch within its stage.
    """

    epoch: int
    seed: int
    features: Pair[Features]
    clustering: Clustering
    previous: Targets | None = None
    losses: Pair[Tensor] | None = None
    stage_epoch: int = 0

    def affinity(self, *, k1: int | None = None, k2: int | None = None) -> Pair[Tensor]:
        """Return 1 − Jaccard distance of each modality as sparse CSR (N, N); computed once per epoch.

        Args:
            k1: neighbours that make up a neighbourhood; None = the clusterer's, or the published 30 if that has none.
            k2: neighbours over which those are averaged; None = likewise, 6.
        """
        sizes = {"k1": self.clustering.k1 if k1 is None else k1, "k2": self.clustering.k2 if k2 is None else k2}
        known = {name: size for name, size in sizes.items() if size is not None}
        return self.features.map(lambda features: affinity(features, **known))

    def prototypes(self, targets: Targets, space: str) -> Tensor:
        """Return from what the banks of a label space start, (K, D): the associator's prototypes, else the centroids.

        A shared cluster's prototype is the average of its two modality means.

        Raises:
            RecipeError: neither the associator nor the clusterer made clusters of that name.
        """
        space = str(space)
        if space in targets.prototypes:
            return targets.prototypes[space]
        if space in {str(modality) for modality in Modality}:
            return self.clustering.own[space].centroids
        both = self.clustering.shared if space == SHARED else self.clustering.extra.get(space)
        if both is None:
            raise RecipeError(f"no clusters of the space '{space}': take a clusterer or an associator that makes them")
        return (both.visible.centroids + both.infrared.centroids) / 2
