"""Labels are averaged over the neighbours of their own modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from reidassoc import Modality, Pair, Refiner, Scene, SoftLabels, Targets
from reidassoc.ops.transition import TransitionMatrix


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
        within: Pair[TransitionMatrix] = scene.affinity(k1=self.k1, k2=self.k2).map(TransitionMatrix.of_affinity)
        return targets.replaced(
            {key: self.averaged(labels, within[Modality(key[0])]) for key, labels in targets.table.items()}
        )

    def averaged(self, labels: SoftLabels, within: TransitionMatrix) -> SoftLabels:
        """One table of labels after the rounds."""
        prob = labels.prob
        y = prob * labels.labelled[:, None]
        for _ in range(self.rounds):
            y = ((within @ y) + y) / 2
        total = y.sum(dim=1, keepdim=True)
        y = torch.where(total > 0, y / total.clamp(min=torch.finfo(y.dtype).tiny), y)
        changed = labels.weight > 0 if self.fill else labels.labelled
        return SoftLabels(torch.where(changed[:, None], y, prob), labels.weight)
