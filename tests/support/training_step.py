"""Batches and bank updates by hand, for tests of objectives and refiners."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from reidassoc.interfaces.banks import Bank, Banks, Feed, LiveBank
from reidassoc.interfaces.batch import Batch, View
from reidassoc.interfaces.scene import Scene
from reidassoc.ops.banks import plan_rounds
from reidassoc.types import STREAMS, Clustering, Clusters, Features, Modality, Pair, SoftLabels, Targets

Table = Mapping[tuple[Modality, str], SoftLabels]
V, R = Modality.VISIBLE, Modality.INFRARED


def a_scene(centroids: Pair[Tensor], samples: Pair[int], *, epoch: int = 0) -> Scene:
    """A scene whose clusters have the given centroids; its features and labels are of no account."""
    features = Pair.build(lambda m: Features(torch.zeros(samples[m], centroids[m].shape[1])))
    own = Pair.build(lambda m: Clusters(torch.full((samples[m],), -1), centroids[m]))
    return Scene(epoch, 0, features, Clustering(own))


def a_batch(z: Mapping[str, Tensor], table: Table, scene: Scene) -> Batch:
    """A batch of the first rows of each modality."""
    views = {stream: View(stream, torch.arange(len(rows)), rows) for stream, rows in z.items()}
    return Batch(views, scene.epoch, scene, Targets(table))


def feed_for(bank: Bank, batch: Batch, *streams: str) -> Feed:
    """What a bank takes in from some streams, in the given order."""
    views = [batch[stream] for stream in streams]
    labels = torch.cat([batch.labels(view, bank.space).hard for view in views])
    features = torch.cat([view.feature.detach() for view in views])
    return Feed(features, labels, plan_rounds(labels.numpy()))


def update(banks: Banks, batch: Batch) -> None:
    """Feed every bank as an engine does after a step."""
    banks.update({live.bank.name: feed_for(live.bank, batch, *live.bank.fed_by) for live in banks if live.bank.fed_by})


def random_step(
    *, rows: int = 6, width: int = 8, clusters: tuple[int, int] = (5, 4), epoch: int = 0, seed: int = 0
) -> tuple[Scene, Batch]:
    """A batch of random features with random soft labels in both spaces, float64."""
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    count = {V: clusters[0], R: clusters[1]}
    scene = a_scene(Pair(some(count[V], width), some(count[R], width)), Pair(rows, rows), epoch=epoch)
    table = {(m, str(s)): SoftLabels(some(rows, count[s]).softmax(1)) for m in Modality for s in Modality}
    z = {stream: some(rows, width).requires_grad_() for stream in STREAMS}
    return scene, a_batch(z, table, scene)


def double(banks: Banks) -> Banks:
    """The same banks in float64, for exact comparisons."""
    return Banks({live.bank.name: LiveBank(live.bank, live.vectors.double()) for live in banks})


def hard_step(
    *, rows: int = 8, width: int = 4, clusters: int = 3, epoch: int = 0, losses: Pair[Tensor] | None = None
) -> Batch:
    """A batch with hard labels in the infrared space, an outlier in each modality."""
    scene, batch = random_step(rows=rows, width=width, clusters=(clusters, clusters), epoch=epoch)
    generator = torch.Generator().manual_seed(7)
    features = scene.features.map(lambda f: Features(F.normalize(torch.randn(rows, width, generator=generator), dim=1)))
    own = scene.clustering.own.map(lambda c: Clusters(c.labels, c.centroids.float()))
    scene = Scene(epoch, 0, features, Clustering(own), losses=losses, stage_epoch=epoch)
    labels = {V: torch.tensor([-1, 0, 0, 1, 1, 1, 2, 2])[:rows], R: torch.tensor([0, 0, 0, -1, 1, 1, 0, 1])[:rows]}
    table = {(m, "infrared"): SoftLabels.one_hot(labels[m], clusters) for m in Modality}
    return Batch(batch.views, epoch, scene, Targets(table))
