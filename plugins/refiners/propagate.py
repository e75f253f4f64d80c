"""Labels are averaged over the neighbours of their own modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field

from reidassoc import Modality, Pair, Refiner, Scene, SoftLabels, Targets
from reidassoc.ops.sparse_labels import KEPT, blend
from reidassoc.ops.transition import Averaging
from reidassoc.types import TopLabels


@dataclass(frozen=True, kw_only=True)
class Propagate(Refiner):
    """Average every sample's labels with those of its neighbours of the same modality, a few rounds.

    Y ← ½ (A Y + Y), A the row-normalised Jaccard affinity, in every label space: the homogeneous half of MULT's label
    transfer (He et al., IJCV 2024, arXiv 2402.00672), after any associator. Rows are scaled to sum 1 at the end. Samples
    without an opinion get one from their neighbours if ``fill``; weights stay as they are.

    >>> from reidassoc.testing import toy_scene
    >>> targets = Targets.compose(toy_scene().clustering)
    >>> Propagate(k1=6).refine(toy_scene(), targets).of("visible", "visible").prob.shape
    torch.Size([51, 8])
    """

    paper: ClassVar[str] = "He et al., IJCV 2024, arXiv 2402.00672"
    needs: ClassVar[frozenset[str]] = frozenset({"affinity"})

    rounds: Annotated[int, Field(ge=0, description="rounds of averaging")] = 1
    fill: Annotated[bool, Field(description="label samples without an opinion by their neighbours")] = True
    k1: Annotated[int | None, Field(ge=1, description="k1 of the Jaccard affinity; none = the clusterer's")] = None
    k2: Annotated[int | None, Field(ge=1, description="k2 of the Jaccard affinity; none = the clusterer's")] = None

    def refine(self, scene: Scene, targets: Targets) -> Targets:
        within: Pair[Averaging] = scene.affinity(k1=self.k1, k2=self.k2).map(Averaging.of_affinity)
        return targets.replaced(
            {key: self.averaged(labels, within[Modality(key[0])]) for key, labels in targets.table.items()}
        )

    def averaged(self, labels: SoftLabels, within: Averaging) -> SoftLabels:
        """One table of labels after the rounds."""
        if isinstance(labels, TopLabels):
            return self.averaged_top(labels, within)
        y = labels.prob * labels.opinion[:, None]
        for _ in range(self.rounds):
            y = ((within @ y) + y) / 2
        total = y.sum(dim=1, keepdim=True)
        y = torch.where(total > 0, y / total.clamp(min=torch.finfo(y.dtype).tiny), y)
        kept = labels.opinion if not self.fill else labels.weight > 0
        return SoftLabels(torch.where(kept[:, None], y, labels.prob), labels.weight)

    def averaged_top(self, labels: TopLabels, within: Averaging) -> SoftLabels:
        """The same for labels that keep the largest entries of each row."""
        keep = max(KEPT, labels.index.shape[1])
        y = TopLabels(labels.index, labels.value * labels.opinion[:, None], labels.count, labels.weight)
        for _ in range(self.rounds):
            y = blend(within.sparse, y, y, hold=0.5, keep=keep)
        total = y.value.sum(dim=1, keepdim=True)
        value = torch.where(total > 0, y.value / total.clamp(min=torch.finfo(total.dtype).tiny), y.value)
        kept = labels.opinion if not self.fill else labels.weight > 0
        more = value.shape[1] - labels.index.shape[1]
        index = torch.where(kept[:, None], y.index, F.pad(labels.index, (0, more)))
        value = torch.where(kept[:, None], value, F.pad(labels.value, (0, more)))
        return TopLabels(index, value, labels.count, labels.weight)
