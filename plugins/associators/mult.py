"""MULT: labels spread along affinities within and across the modalities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from reidassoc import Association, Associator, Modality, Pair, Scene, SoftLabels
from reidassoc.ops.memory_limit import require_dense
from reidassoc.ops.prototypes import inner_products
from reidassoc.ops.transition import TransitionMatrix
from reidassoc.ops.transport import transport


@dataclass(frozen=True, kw_only=True)
class Mult(Associator):
    """Spread soft labels along affinities within and across the modalities until they agree with both.

    Modality-Unified Label Transfer: He, Cheng, Wang, Gao, "Exploring homogeneous and heterogeneous consistent label
    associations for unsupervised visible-infrared person ReID", IJCV 2024, arXiv 2402.00672. In each label space every
    sample, outliers too, starts from a soft label; rounds of averaging over the other modality (optimal transport) and
    over its own (Jaccard affinity) follow. Both own and cross labels come out soft; the published training mixes them
    with their hard ones (refiner ``mix``).

    Raises:
        RecipeError: (when called) the cross-modality kernel or a label matrix exceeds the memory limit; use ``mult_near``.

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

    def __call__(self, scene: Scene) -> Association:
        rows, count = scene.features.map(len), scene.clustering.own.map(lambda clusters: clusters.count)
        require_dense(*rows, otherwise="mult_near")
        require_dense(max(rows), max(count), otherwise="mult_near")
        within = scene.affinity(k1=self.k1, k2=self.k2).map(TransitionMatrix.of_affinity)
        fast = self.truncation > 0
        plan = transport(scene.features.visible.x, scene.features.infrared.x, strength=self.strength, fast=fast)
        across = Pair(plan, plan.transposed).map(lambda p: TransitionMatrix.of_plan(p, lost=self.truncation))
        space = Pair.build(lambda own: self.transfer(own, self.start(own, scene), within, across))
        # space.visible holds (own, cross) labels in the visible space: the cross ones are of infrared samples.
        return Association(own=space.map(lambda labels: labels[0]), cross=space.swapped.map(lambda labels: labels[1]))

    def start(self, own: Modality, scene: Scene) -> tuple[Tensor, Tensor]:
        """First labels in the space of `own`: a softmax over its centroids; transport from the other modality."""
        centroids = scene.clustering.own[own].centroids
        y_own = torch.softmax(inner_products(scene.features[own].x, centroids) / self.temperature, dim=1)
        moved = transport(scene.features[own.other].x, centroids, strength=self.strength).row_argmax()
        return y_own, SoftLabels.one_hot(moved, len(centroids)).prob

    def transfer(
        self, own: Modality, start: tuple[Tensor, ...], within: Pair[TransitionMatrix], across: Pair[TransitionMatrix]
    ) -> tuple[SoftLabels, SoftLabels]:
        """Labels of both modalities in the space of `own`, after the rounds."""
        own_start, other_start = y_own, y_other = start
        anybody = len(y_own) > 0 and len(y_other) > 0  # else there is nothing to agree with
        for _ in range(self.rounds if anybody else 0):
            before = y_own, y_other
            y_own = (1 - self.alpha) * (across[own] @ y_other) + self.alpha * own_start
            y_other = (1 - self.alpha) * (across[own.other] @ y_own) + self.alpha * other_start
            y_own = (within[own] @ y_own + y_own) / 2
            y_other = (within[own.other] @ y_other + y_other) / 2
            if max(change(y_own, before[0]), change(y_other, before[1])) <= self.tolerance:
                break
        return SoftLabels(y_own), SoftLabels(y_other)


def change(new: Tensor, old: Tensor) -> float:
    """Relative L1 change of label matrices."""
    return float((new - old).abs().sum() / old.sum().clamp(min=1e-12))
