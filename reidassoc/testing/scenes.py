"""Toy scenes: small, quick, deterministic, and awkward where real epochs are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from reidassoc.interfaces.scene import Scene
from reidassoc.ops.prototypes import centroids
from reidassoc.types import (
    OUTLIER,
    TRACKLET,
    Association,
    Clustering,
    Clusters,
    Features,
    Modality,
    Pair,
    SoftLabels,
    Targets,
)

CAMERAS = Pair((1, 2, 4, 5), (3, 6))  # as SYSU-MM01 numbers them: neither from 0 nor without a gap


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
        previous: what the scene tells of the last epoch: nothing; labels of each modality in its own space, as at the end
            of stage 1; or cross labels, too. There were other clusters then: see `last`.
        cameras: whether images say which camera took them, and belong to tracklets.
    """

    clusters: Pair[int] = field(default_factory=lambda: Pair(8, 8))
    samples: int = 6
    outliers: int = 3
    copies: int = 1
    noise: float = 0.5
    gap: float = 0.3
    width: int = 32
    seed: int = 0
    previous: Literal["none", "own", "cross"] = "none"
    cameras: bool = False

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
            x = x.repeat_interleave(self.copies, dim=0)
            if not self.cameras:
                return Features(x)
            known = torch.tensor(CAMERAS[modality])
            camera = known[torch.arange(len(x)) // 2 % len(known)]
            return Features(x, camera=camera, extra={TRACKLET: 10 * self.identity[modality] + camera})

        return Pair.build(one)

    @cached_property
    def clustering(self) -> Clustering:
        def one(modality: Modality) -> Clusters:
            identity, count = self.identity[modality], self.clusters[modality]
            labels = torch.where(identity < count, identity, OUTLIER)
            return Clusters(labels, centroids(self.features[modality].x, labels, count))

        return Clustering(own=Pair.build(one))

    @cached_property
    def last(self) -> Clustering:
        """The last epoch's clusters: each visible outlier was one, and the last infrared one was none yet."""

        def one(modality: Modality) -> Clusters:
            identity, count, most = self.identity[modality], self.clusters[modality], max(self.clusters)
            if modality is Modality.VISIBLE:
                labels, count = torch.where(identity < count, identity, count + identity - most), count + self.outliers
            else:
                count = max(0, count - 1)
                labels = torch.where(identity < count, identity, OUTLIER)
            return Clusters(labels, centroids(self.features[modality].x, labels, count))

        return Clustering(own=Pair.build(one))

    def targets(self, device: torch.device | str = "cpu") -> Targets | None:
        """The last epoch's targets, as a scene has them."""
        if self.previous == "none":
            return None

        def one(modality: Modality) -> SoftLabels:
            identity, count = self.identity[modality], self.last.own[modality.other].count
            known = identity < min(count, self.clusters[modality.other])
            return SoftLabels.one_hot(torch.where(known, identity, OUTLIER), count)

        found = Targets.compose(self.last, Association(cross=Pair.build(one)) if self.previous == "cross" else None)
        return found.map(lambda labels: SoftLabels(labels.prob.to(device, copy=True)))

    def scene(self, *, epoch: int = 0, device: torch.device | str = "cpu") -> Scene:
        """A fresh scene: nothing that is written into it, or remembered with it, is seen by the next one."""

        def fresh(f: Features) -> Features:
            extra = {name: rows.clone().to(device) for name, rows in f.extra.items()}
            return Features(f.x.clone().to(device), camera=f.camera.clone().to(device), extra=extra)

        features = self.features.map(fresh)
        own = self.clustering.own.map(lambda c: Clusters(c.labels.clone().to(device), c.centroids.clone().to(device)))
        later = 0 if self.previous == "none" else 1  # before the first epoch there was none
        stage_epoch = 1 if self.previous == "cross" else 0
        clustering, previous = Clustering(own=own), self.targets(device)
        return Scene(max(epoch, later), self.seed, features, clustering, previous, stage_epoch=stage_epoch)


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
    "previous_own": Toy(clusters=Pair(6, 5), samples=4, previous="own"),
    "previous_cross": Toy(clusters=Pair(5, 6), samples=4, previous="cross"),
    "cameras": Toy(clusters=Pair(5, 6), samples=4, cameras=True),
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
    """The scene with its samples in another order; clusters keep their numbers, now and in the last epoch."""

    def clusters(modality: Modality) -> Clusters:
        mine = scene.clustering.own[modality]
        return Clusters(mine.labels[order[modality]], mine.centroids)

    features = Pair.build(lambda modality: scene.features[modality].take(order[modality]))
    clustering, previous = Clustering(own=Pair.build(clusters)), scene.previous
    if previous is not None:
        previous = replace(previous, table={key: labels.take(order[key[0]]) for key, labels in previous.table.items()})
    return replace(scene, features=features, clustering=clustering, previous=previous)


def renumbered(scene: Scene) -> Scene:
    """The scene with every cluster's number moved down by one, and the first one last; outliers stay outliers.

    The last epoch's clusters keep their numbers, which have nothing to do with today's.
    """

    def clusters(mine: Clusters) -> Clusters:
        labels = torch.where(mine.labels < 0, mine.labels, (mine.labels - 1) % max(1, mine.count))
        return Clusters(labels, mine.centroids.roll(-1, 0))

    # Fresh features, as below.
    features = scene.features.map(lambda f: Features(f.x, f.index, f.camera, f.extra))
    return replace(scene, features=features, clustering=Clustering(own=scene.clustering.own.map(clusters)))


def swapped(scene: Scene) -> Scene:
    """The scene with its modalities exchanged."""
    own, previous = scene.clustering.own.swapped, scene.previous
    if previous is not None:
        name = {str(m): str(m.other) for m in Modality}
        table = {(m.other, name.get(space, space)): labels for (m, space), labels in previous.table.items()}
        previous = replace(previous, table=table)
    # Fresh features: what was remembered with the old ones must not be mistaken for an answer.
    features = scene.features.swapped.map(lambda f: Features(f.x, f.index, f.camera, f.extra))
    return replace(scene, features=features, clustering=Clustering(own=own), previous=previous)
