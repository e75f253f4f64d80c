"""Toy scenes: small, quick, deterministic, and awkward where real epochs are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from reidassoc.ops.prototypes import centroids
from reidassoc.scene import Scene
from reidassoc.types import OUTLIER, Clustering, Clusters, Features, Modality, Pair


@dataclass(frozen=True)
class Toy:
    """A little world: identities seen in both modalities, and a clustering that is right about them.

    Args:
        clusters: number of clusters per modality. Identity i is cluster i wherever it has one.
        samples: images per cluster.
        outliers: further images per modality, of further identities, in no cluster.
        copies: how often every image occurs; 2 or more makes exact duplicates.
        noise: length of the noise beside an identity's unit direction.
        gap: length of the offset between the modalities.
        width: D.
        seed: of all draws.
    """

    clusters: Pair[int] = field(default_factory=lambda: Pair(8, 8))
    samples: int = 6
    outliers: int = 3
    copies: int = 1
    noise: float = 0.5
    gap: float = 0.3
    width: int = 32
    seed: int = 0

    @cached_property
    def identity(self) -> Pair[Tensor]:
        """(N,) int64 true identities per modality."""
        most = max(self.clusters)
        return self.clusters.map(
            lambda count: torch.cat(
                [
                    torch.arange(count).repeat_interleave(self.samples),
                    most + torch.arange(self.outliers),
                ]
            ).repeat_interleave(self.copies)
        )

    @cached_property
    def features(self) -> Pair[Features]:
        generator = torch.Generator().manual_seed(self.seed)
        people = F.normalize(torch.randn(max(self.clusters) + self.outliers, self.width, generator=generator), dim=1)

        def one(modality: Modality) -> Features:
            offset = self.gap * F.normalize(torch.randn(1, self.width, generator=generator), dim=1)
            identity = self.identity[modality][:: self.copies]
            noise = torch.randn(len(identity), self.width, generator=generator) / self.width**0.5
            x = F.normalize(people[identity] + offset + self.noise * noise, dim=1)
            return Features(x.repeat_interleave(self.copies, dim=0))

        return Pair.build(one)

    @cached_property
    def clustering(self) -> Clustering:
        def one(modality: Modality) -> Clusters:
            identity, count = self.identity[modality], self.clusters[modality]
            labels = torch.where(identity < count, identity, OUTLIER)
            return Clusters(labels, centroids(self.features[modality].x, labels, count))

        return Clustering(own=Pair.build(one))

    def scene(self, *, epoch: int = 0, device: torch.device | str = "cpu") -> Scene:
        """A fresh scene: nothing that is written into it, or remembered with it, is seen by the next one."""
        features = self.features.map(lambda f: Features(f.x.clone().to(device)))
        own = self.clustering.own.map(lambda c: Clusters(c.labels.clone().to(device), c.centroids.clone().to(device)))
        return Scene(epoch, self.seed, features, Clustering(own=own))


CASES: dict[str, Toy] = {
    "ordinary": Toy(),
    "more_infrared": Toy(clusters=Pair(5, 9)),
    "far_more_visible": Toy(clusters=Pair(11, 4)),
    "one_cluster": Toy(clusters=Pair(1, 1)),
    "one_visible": Toy(clusters=Pair(1, 6)),
    "no_visible": Toy(clusters=Pair(0, 5)),
    "no_infrared": Toy(clusters=Pair(5, 0)),
    "all_outliers": Toy(clusters=Pair(0, 0), outliers=10),
    "duplicates": Toy(clusters=Pair(4, 3), samples=3, copies=4),
    "two_samples": Toy(clusters=Pair(1, 1), samples=2, outliers=0),
    "one_sample": Toy(clusters=Pair(1, 1), samples=1, outliers=0),
}
"""The scenes that every associator and refiner must survive, by name."""


def toy_features(seed: int = 0) -> Pair[Features]:
    """The features of the ordinary case."""
    return replace(CASES["ordinary"], seed=seed).features


def toy_identity(seed: int = 0) -> Pair[Tensor]:
    """The true identities of the ordinary case."""
    return replace(CASES["ordinary"], seed=seed).identity


def toy_scene(seed: int = 0, *, epoch: int = 0) -> Scene:
    """The ordinary case: eight clusters per modality, three outliers each."""
    return replace(CASES["ordinary"], seed=seed).scene(epoch=epoch)


def permuted(scene: Scene, order: Pair[Tensor]) -> Scene:
    """The scene with its samples in another order; clusters keep their numbers."""

    def clusters(modality: Modality) -> Clusters:
        mine = scene.clustering.own[modality]
        return Clusters(mine.labels[order[modality]], mine.centroids)

    features = Pair.build(lambda modality: scene.features[modality].take(order[modality]))
    return replace(scene, features=features, clustering=Clustering(own=Pair.build(clusters)))


def renumbered(scene: Scene) -> Scene:
    """The scene with every cluster's number moved down by one, and the first one last; outliers stay outliers."""

    def clusters(mine: Clusters) -> Clusters:
        labels = torch.where(mine.labels < 0, mine.labels, (mine.labels - 1) % max(1, mine.count))
        return Clusters(labels, mine.centroids.roll(-1, 0))

    # Fresh features, as below.
    features = scene.features.map(lambda f: Features(f.x, f.index, f.camera, f.extra))
    return replace(scene, features=features, clustering=Clustering(own=scene.clustering.own.map(clusters)))


def swapped(scene: Scene) -> Scene:
    """The scene with its modalities exchanged."""
    own = scene.clustering.own.swapped
    # Fresh features: what was remembered with the old ones must not be mistaken for an answer.
    features = scene.features.swapped.map(lambda f: Features(f.x, f.index, f.camera, f.extra))
    return replace(scene, features=features, clustering=Clustering(own=own))
