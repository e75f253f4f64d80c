"""Unison: clusters are matched by unbalanced transport, in a metric that the clusters themselves teach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from reidassoc import OUTLIER, Association, Associator, Clusters, Features, Modality, Pair, Scene, SoftLabels
from reidassoc.ops.assignment import of_samples
from reidassoc.ops.prototypes import centroids, updated_centroids

MAX_ROUNDS = 1000  # of the scaling
TOLERANCE = 1e-6  # of its scales' logarithms
FLAT = 1e-12  # a scatter without extent


@dataclass(frozen=True, kw_only=True)
class Unison(Associator):
    """Match clusters by unbalanced transport in a metric learnt from clusters and anchors; merge what meets; abstain in doubt.

    Ours. Five steps:

    1. *Centre*: each camera's (or modality's) mean is taken off the features; of images of unknown camera, the modality's.
    2. *Metric*: features are whitened by the scatter within clusters, T = W + shrinkage · I (W of mean eigenvalue 1), so that
       directions in which images of one cluster differ count little. Then, for ``rounds`` rounds, the mutually nearest clusters
       of the two modalities are anchors, and the scatter of their differences joins T: directions in which the modalities
       differ count little, too.
    3. *Transport*: cosine similarities of centroids, less each cluster's mean similarity to its ``hubs`` nearest (no cluster
       is everybody's neighbour), are the negative costs of an entropic transport whose masses are the cluster sizes, so that
       two halves of a split cluster fit its whole, and which may leave mass untransported (``relax``): people seen in one
       modality only.
    4. *Mutual consistency*: the confidence of a pair is the geometric mean of its shares in its row and in its column of the
       plan. A cluster's partner is its row's largest entry, if the confidence is at least ``floor``; else it has none.
    5. *Merge*: clusters with a common partner that answers one of them become that one; the answering one. Outliers take the
       own and the cross label of the nearest cluster of their modality.

    Own labels (merged, outliers filled) and the prototypes of the spaces are new.

    >>> from reidassoc.testing import toy_scene
    >>> cross = Unison()(toy_scene()).cross
    >>> sorted(set(cross.visible.hard.tolist())) == [*range(8)]
    True
    """

    paper: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset({"cameras"})

    centre: Annotated[Literal["camera", "modality", "none"], Field(description="whose mean is taken off")] = "camera"
    metric: Annotated[bool, Field(description="whiten by the scatter within clusters (and of anchors)")] = True
    shrinkage: Annotated[float, Field(gt=0, description="share of the identity in the scatter")] = 0.5
    rounds: Annotated[int, Field(ge=0, description="times that anchors teach the metric")] = 2
    hubs: Annotated[int, Field(ge=0, description="neighbours in the correction of hubs; 0 = none")] = 5
    entropy: Annotated[float, Field(gt=0, description="weight of the plan's entropy")] = 0.1
    relax: Annotated[float, Field(gt=0, description="price of mass that is not transported; large = balanced")] = 0.5
    floor: Annotated[float, Field(ge=0, le=1, description="confidence below which a cluster has no partner")] = 0.3
    merge: Annotated[bool, Field(description="join clusters that have the same partner")] = True
    outliers: Annotated[bool, Field(description="label the clusterer's outliers, too")] = True

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own
        if any(clusters.count == 0 for clusters in own):
            cross = Pair.build(
                lambda m: SoftLabels.one_hot(torch.full_like(own[m].labels, OUTLIER), own[m.other].count)
            )
            return Association(cross=cross)
        centred = scene.features.map(self.centred)
        x = self.whitened(centred, own) if self.metric else centred
        plan = self.log_plan(self.similarity(x, own), own)
        partner = self.partners(plan)
        final = self.merged(partner) if self.merge else own.map(lambda c: torch.arange(c.count, device=c.labels.device))
        home = Pair.build(lambda m: self.filled(x[m], own[m]))
        labels = Pair.build(lambda m: of_samples(home[m], final[m]))
        cross = Pair.build(
            lambda m: SoftLabels.one_hot(
                of_samples(of_samples(home[m], partner[m]), final[m.other]), own[m.other].count
            )
        )
        return Association(
            cross=cross,
            own=Pair.build(lambda m: SoftLabels.one_hot(labels[m], own[m].count)),
            prototypes={str(m): updated_centroids(scene.features[m].x, labels[m], own[m].centroids) for m in Modality},
        )

    def centred(self, features: Features) -> Tensor:
        """(N, D) float64 unit rows, the mean of their camera or modality taken off."""
        x = features.x.double()
        group = features.camera if self.centre == "camera" else torch.zeros_like(features.camera)
        if self.centre == "none" or not len(x):
            return x
        number = torch.unique(group, return_inverse=True)[1]
        mean = centroids(x, number, int(number.max()) + 1)[number]
        return F.normalize(x - torch.where(group[:, None] < 0, x.mean(0), mean), dim=1)

    def whitened(self, x: Pair[Tensor], own: Pair[Clusters]) -> Pair[Tensor]:
        """The features, unit rows, in the metric that clusters and anchors teach."""
        width = x.visible.shape[1]
        within = sum((scatter(x[m], own[m]) for m in Modality), x.visible.new_zeros(width, width))
        identity = torch.eye(len(within), dtype=within.dtype, device=within.device)
        start = Pair.build(lambda m: F.normalize(means(x[m], own[m]), dim=1))
        total = scaled(within)
        moved = x
        for number in range(self.rounds + 1):
            root = torch.linalg.cholesky(torch.linalg.inv(total + self.shrinkage * identity))
            moved = x.map(lambda rows: F.normalize(rows @ root, dim=1))  # noqa: B023
            if number == self.rounds:
                break
            similarity = self.similarity(moved, own)
            forth, back = similarity.argmax(dim=1), similarity.argmax(dim=0)
            anchor = (back[forth] == torch.arange(len(forth), device=forth.device)).nonzero().flatten()
            apart = start.visible[anchor] - start.infrared[forth[anchor]]
            total = scaled(within) + scaled(apart.T @ apart)
        return moved

    def similarity(self, x: Pair[Tensor], own: Pair[Clusters]) -> Tensor:
        """(K_v, K_r) cosine of centroids, twice, less both sides' mean with their nearest; the cosine itself if no hubs."""
        unit = Pair.build(lambda m: F.normalize(means(x[m], own[m]), dim=1))
        cosine = unit.visible @ unit.infrared.T
        if not self.hubs:
            return cosine
        near = Pair(cosine, cosine.T).map(lambda s: s.topk(min(self.hubs, s.shape[1]), dim=1).values.mean(dim=1))
        return 2 * cosine - near.visible[:, None] - near.infrared

    def log_plan(self, similarity: Tensor, own: Pair[Clusters]) -> Tensor:
        """(K_v, K_r) logarithm of the transport plan between clusters, their sizes as masses (Chizat et al., Math. Comp. 2018)."""
        mass = own.map(lambda c: torch.bincount(c.labels[c.clustered], minlength=c.count).double())
        mass = mass.map(lambda size: size / size.sum())
        log_mass = mass.map(torch.log)
        kernel = (similarity - similarity.max()) / self.entropy
        power = self.relax / (self.relax + self.entropy)  # 1: balanced
        row, column = torch.zeros_like(mass.visible), torch.zeros_like(mass.infrared)
        for _ in range(MAX_ROUNDS):
            before = row
            row = power * (log_mass.visible - torch.logsumexp(kernel + column, dim=1))
            column = power * (log_mass.infrared - torch.logsumexp(kernel.T + row, dim=1))
            if bool(((row - before).abs() <= TOLERANCE).all()):
                break
        return row[:, None] + kernel + column

    def partners(self, log_plan: Tensor) -> Pair[Tensor]:
        """(K,) int64 partner of every cluster, −1 = none, from the logarithm of the plan."""
        confidence = (torch.softmax(log_plan, dim=1) * torch.softmax(log_plan, dim=0)).sqrt()
        sides = Pair((log_plan, confidence), (log_plan.T, confidence.T))

        def chosen(side: tuple[Tensor, Tensor]) -> Tensor:
            best = side[0].argmax(dim=1)
            sure = side[1].gather(1, best[:, None])[:, 0] >= self.floor
            return torch.where(sure, best, OUTLIER)

        return sides.map(chosen)

    def merged(self, partner: Pair[Tensor]) -> Pair[Tensor]:
        """(K,) int64: the cluster that each becomes: the one with which its partner answers, if that one chose it, too."""

        def one(modality: Modality) -> Tensor:
            mine, theirs = partner[modality], partner[modality.other]
            answer = of_samples(mine, theirs)  # what my partner chose
            mutual = (answer != OUTLIER) & (of_samples(answer, mine) == mine)
            return torch.where(mutual, answer, torch.arange(len(mine), device=mine.device))

        return Pair.build(one)

    def filled(self, x: Tensor, clusters: Clusters) -> Tensor:
        """(N,) int64 cluster of every sample; outliers join the nearest one."""
        if not self.outliers:
            return clusters.labels
        nearest = (x @ F.normalize(means(x, clusters), dim=1).T).argmax(dim=1)
        return torch.where(clusters.labels == OUTLIER, nearest, clusters.labels)


def means(x: Tensor, clusters: Clusters) -> Tensor:
    """(K, D) mean of every cluster's rows."""
    return centroids(x, clusters.labels, clusters.count)


def scatter(x: Tensor, clusters: Clusters) -> Tensor:
    """(D, D) mean outer product of the clustered rows' differences from their cluster's mean."""
    rows = clusters.clustered
    apart = x[rows] - means(x, clusters)[clusters.labels[rows]]
    return apart.T @ apart / max(1, len(rows))


def scaled(matrix: Tensor) -> Tensor:
    """A scatter matrix with mean eigenvalue 1; zeros stay zeros."""
    trace = matrix.diagonal().mean()
    return torch.where(trace > FLAT, matrix / trace.clamp(min=FLAT), torch.zeros_like(matrix))
