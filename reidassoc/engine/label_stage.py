"""The label stage of an epoch: features, clusters, scene, targets, and what to do when clusters are missing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from reidassoc.interfaces.scene import Scene
from reidassoc.ops.prototypes import centroids
from reidassoc.pipeline import cluster, target, with_affinity_of
from reidassoc.recipe.compose import Method
from reidassoc.recipe.model import Stage
from reidassoc.types import SHARED, Clustering, Clusters, Features, Modality, Pair, Targets

KEPT_LABELS = "epochs with the last epoch's labels"
RELAXED = "epochs with a relaxed clusterer"
SKIPPED = "epochs without training"
FALLBACKS = {  # what is said of an epoch that counts as such
    KEPT_LABELS: "a modality has no cluster: the last epoch's labels are kept",
    RELAXED: "a modality has no cluster: the clusterer is relaxed",
    SKIPPED: "a modality has no cluster: nothing is trained",
}


@dataclass(frozen=True)
class Given:
    """What the labels of an epoch are made from; see :class:`reidassoc.interfaces.scene.Scene` for the fields."""

    features: Pair[Features]
    epoch: int
    stage_epoch: int
    seed: int
    previous: Targets | None = None
    losses: Pair[Tensor] | None = None

    def scene(self, clustering: Clustering) -> Scene:
        """The scene that a clustering makes."""
        return Scene(
            self.epoch, self.seed, self.features, clustering, self.previous, self.losses, stage_epoch=self.stage_epoch
        )


@dataclass(frozen=True)
class Labelled:
    """An epoch's scene and targets, and whether its labels were made anew."""

    scene: Scene
    targets: Targets
    fresh: bool = True


def label(
    method: Method,
    stage: Stage,
    given: Given,
    *,
    counts: Counter[str],
    identity: Pair[Tensor] | None = None,
) -> Labelled | None:
    """Return the epoch's scene and targets, or None if there is nothing to train on.

    With ``relabel: once`` the labels of the stage's first epoch are kept. Where the clustering leaves a modality without a
    cluster: the last epoch's labels are kept if there are any; else the clusterer is relaxed once; else the epoch is
    skipped. Each case is counted.
    """
    previous = given.previous
    kept = None if previous is None else with_affinity_of(method.clusterer, clustering_of(previous, given.features))
    find = partial(cluster, features=given.features, epoch=given.epoch, seed=given.seed, identity=identity)
    if stage.relabel == "once" and given.stage_epoch > 0 and previous is not None and kept is not None:
        return Labelled(given.scene(kept), replace(previous, prototypes={}), fresh=False)
    clustering = find(method.clusterer, previous=kept)
    if not clustering.usable and previous is not None and kept is not None and kept.usable:
        counts[KEPT_LABELS] += 1
        scene = given.scene(replace(kept, k1=clustering.k1, k2=clustering.k2))
        return Labelled(scene, target(method, scene, identity=identity))
    if not clustering.usable and (relaxed := method.clusterer.relaxed()) is not None:
        counts[RELAXED] += 1
        clustering = find(relaxed, previous=None)
    if not clustering.usable:
        counts[SKIPPED] += 1
        return None
    scene = given.scene(clustering)
    return Labelled(scene, target(method, scene, identity=identity))


def clustering_of(targets: Targets, features: Pair[Features]) -> Clustering:
    """The clusters that the own (and shared) labels of some targets make, with the centroids of today's features."""

    def clusters(modality: Modality, space: str) -> Clusters:
        labels = targets.of(modality, space)
        hard = labels.hard.to(features[modality].x.device)
        return Clusters(hard, centroids(features[modality].x, hard, labels.count))

    shared = None
    if all(targets.has(modality, SHARED) for modality in Modality):
        shared = Pair.build(lambda modality: clusters(modality, SHARED))
    return Clustering(Pair.build(lambda modality: clusters(modality, modality)), shared)
