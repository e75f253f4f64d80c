"""MULT: labels spread along affinities within and across the modalities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from reidassoc import Association, Associator, Modality, Pair, Scene, SoftLabels
from reidassoc.ops.memory_limit import dense_fits
from reidassoc.ops.precision import full_float32
from reidassoc.ops.sparse import row_normalised
from reidassoc.ops.sparse_labels import blend, top_softmax
from reidassoc.ops.sparse_labels import change as top_change
from reidassoc.ops.sparse_transport import NEIGHBOURS, destinations, sparse_transport
from reidassoc.ops.transition import Averaging
from reidassoc.ops.transport import transport
from reidassoc.types import TopLabels


@dataclass(frozen=True, kw_only=True)
class Mult(Associator):
    """Spread soft labels along affinities within and across the modalities until they agree with both.

    Modality-Unified Label Transfer: He, Cheng, Wang, Gao, "Exploring homogeneous and heterogeneous consistent label
    associations for unsupervised visible-infrared person ReID", IJCV 2024, arXiv 2402.00672. In each label space every
    sample, outliers too, starts from a soft label; rounds of averaging over the other modality (optimal transport) and
    over its own (Jaccard affinity) follow. Both own and cross labels come out soft; the published training mixes them
    with their hard ones (refiner ``mix``).

    Where the cross-modality kernel or a label matrix would exceed the memory limit (see ``reidassoc.ops.memory_limit``), the
    kernel keeps each sample's nearest of the other modality, and labels their largest entries: nearly the same labels, in
    memory that grows with N.

    >>> from reidassoc.testing import toy_scene
    >>> association = Mult()(toy_scene())
    >>> association.cross.visible.count == toy_scene().clustering.own.infrared.count
    True
    """

    paper = "He et al., IJCV 2024, arXiv 2402.00672"
    needs = frozenset({"affinity"})

    alpha: Annotated[float, Field(ge=0, le=1, description="how strongly a sample is held to its start")] = 0.2
    temperature: Annotated[float, Field(gt=0, description="τ of the starting soft labels")] = 0.05
    strength: Annotated[float, Field(gt=0, description="λ of the optimal transport")] = 25.0
    rounds: Annotated[int, Field(ge=0, description="transfer rounds at most")] = 20
    tolerance: Annotated[float, Field(ge=0, description="stop once labels change by no more, relative L1")] = 0.01
    k1: Annotated[int | None, Field(ge=1, description="k1 of the Jaccard affinity; none = the clusterer's")] = None
    k2: Annotated[int | None, Field(ge=1, description="k2 of the Jaccard affinity; none = the clusterer's")] = None
    truncation: Annotated[
        float, Field(ge=0, lt=1, description="share of a row that a sparse cross affinity may drop; 0 = exact")
    ] = 1e-3
    cross_neighbours: Annotated[
        int | None,
        Field(ge=1, description="pairs of a sample in a sparse cross kernel; none = whole kernel, 100 where too large"),
    ] = None

    def __call__(self, scene: Scene) -> Association:
        return self.on_near_pairs(scene) if self.sparse(scene) else self.on_all_pairs(scene)

    def sparse(self, scene: Scene) -> bool:
        """Whether the labels are spread over near pairs alone: if that is asked for, or the whole does not fit."""
        rows, count = scene.features.map(len), scene.clustering.own.map(lambda clusters: clusters.count)
        if 0 in (*rows, *count):
            return False
        fits = dense_fits(*rows) and dense_fits(max(rows), max(count))
        return self.cross_neighbours is not None or not fits

    def on_all_pairs(self, scene: Scene) -> Association:
        within = scene.affinity(k1=self.k1, k2=self.k2).map(Averaging.of_affinity)
        fast = self.truncation > 0
        plan = transport(scene.features.visible.x, scene.features.infrared.x, strength=self.strength, fast=fast)
        across = Pair(plan, plan.transposed).map(lambda p: Averaging.of_plan(p, lost=self.truncation))
        space = Pair.build(lambda own: self.transfer(own, *self.start(own, scene), within, across))
        # space.visible holds (own, cross) labels in the visible space: the cross ones are of infrared samples.
        return Association(
            own=space.map(lambda labels: SoftLabels(labels[0])),
            cross=space.swapped.map(lambda labels: SoftLabels(labels[1])),
        )

    def start(self, own: Modality, scene: Scene) -> tuple[Tensor, Tensor]:
        """First labels in the space of `own`: a softmax over its centroids; transport from the other modality."""
        centroids = scene.clustering.own[own].centroids
        with full_float32(centroids.device):
            y_own = torch.softmax(scene.features[own].x @ centroids.T / self.temperature, dim=1)
        moved = transport(scene.features[own.other].x, centroids, strength=self.strength).row_argmax()
        return y_own, SoftLabels.one_hot(moved, len(centroids)).prob

    def transfer(
        self, own: Modality, own_start: Tensor, other_start: Tensor, within: Pair[Averaging], across: Pair[Averaging]
    ) -> tuple[Tensor, Tensor]:
        """Labels of both modalities in the space of `own`, after the rounds."""
        y_own, y_other = own_start, other_start
        anybody = len(y_own) > 0 and len(y_other) > 0  # else there is nothing to agree with
        for _ in range(self.rounds if anybody else 0):
            before = y_own, y_other
            y_own = (1 - self.alpha) * (across[own] @ y_other) + self.alpha * own_start
            y_other = (1 - self.alpha) * (across[own.other] @ y_own) + self.alpha * other_start
            y_own = (within[own] @ y_own + y_own) / 2
            y_other = (within[own.other] @ y_other + y_other) / 2
            if max(change(y_own, before[0]), change(y_other, before[1])) <= self.tolerance:
                break
        return y_own, y_other

    def on_near_pairs(self, scene: Scene) -> Association:
        """The same on a sparse cross kernel, with labels that keep their largest entries."""
        within = scene.affinity(k1=self.k1, k2=self.k2).map(row_normalised)
        near = NEIGHBOURS if self.cross_neighbours is None else self.cross_neighbours
        x = scene.features.map(lambda features: features.x)
        plan = sparse_transport(x.visible, x.infrared, strength=self.strength, neighbours=near)
        across = Pair(*plan.averages(self.truncation))
        del plan

        def space(own: Modality) -> tuple[TopLabels, TopLabels]:
            centroids = scene.clustering.own[own].centroids
            own_start = top_softmax(x[own], centroids, temperature=self.temperature)
            moved = destinations(x[own.other], centroids, strength=self.strength)[:, None]
            other_start = TopLabels(moved, x[own.other].new_ones(moved.shape), len(centroids))
            y, z = own_start, other_start
            for _ in range(self.rounds):
                before = y, z
                y = blend(across[own], z, own_start, hold=self.alpha)
                z = blend(across[own.other], y, other_start, hold=self.alpha)
                y, z = blend(within[own], y, y, hold=0.5), blend(within[own.other], z, z, hold=0.5)
                if max(top_change(y, before[0]), top_change(z, before[1])) <= self.tolerance:
                    break
            return y, z

        found = Pair.build(space)
        return Association(own=found.map(lambda labels: labels[0]), cross=found.swapped.map(lambda labels: labels[1]))


def change(new: Tensor, old: Tensor) -> float:
    """Relative L1 change of label matrices."""
    return float((new - old).abs().sum() / old.sum().clamp(min=1e-12))
