"""CMC's objective: three contrastive losses, on each modality's clusters and on those of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from reidassoc import SHARED, Bank, Banks, Batch, Modality, Objective, Scene, SoftLabels, Targets, View
from reidassoc.interfaces import Sampling
from reidassoc.ops.losses import soft_cross_entropy
from reidassoc.types import FEEDERS, FEEDING_ORDER

FED_BY = {**{str(modality): FEEDERS[modality] for modality in Modality}, SHARED: FEEDING_ORDER}  # by space


@dataclass(frozen=True, kw_only=True)
class Joint(Objective):
    """Contrast every image with a bank of its modality's clusters, and with one of the clusters that hold both modalities.

    L_V + L_R + L_VR, each one cross-entropy, a mean over all rows that have a label in that space. A shared cluster's
    bank starts from the average of its two modality means. Batches are drawn by default from each modality's own labels:
    no loss compares samples of a batch with each other, so none needs the same identity in both modalities; drawing from
    the shared labels would never show the clusters that one modality alone has found, and could not train at all while
    there is no shared one. ``draw`` has to agree with the other objectives of a stage: say ``paired`` beside ``sca``.
    Source: Shi et al., MMM, ECCV 2024, arXiv 2401.06825, cross-modality clustering.
    """

    paper: ClassVar[str] = "Shi et al., ECCV 2024, arXiv 2401.06825"
    sampling: ClassVar[Sampling] = "own"  # unless `draw` says otherwise
    needs: ClassVar[frozenset[str]] = frozenset({"shared"})
    gives: ClassVar[frozenset[str]] = frozenset({"specific bank", "joint bank"})
    variants: ClassVar[tuple[str, ...]] = ("draw='paired'",)

    temperature: Annotated[float, Field(gt=0, description="τ of the banks")] = 0.05
    momentum: Annotated[float, Field(ge=0, le=1, description="μ of the banks")] = 0.1
    draw: Annotated[Sampling, Field(description="from which labels batches are drawn")] = "own"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampling", self.draw)

    def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]:
        return [
            Bank(
                name=f"joint.{space}",
                space=space,
                role="joint" if space == SHARED else "specific",
                start=scene.prototypes(targets, space),
                fed_by=FED_BY[space],
                temperature=self.temperature,
                momentum=self.momentum,
            )
            for space in spaces(targets)
        ]

    def __call__(self, batch: Batch, banks: Banks) -> Mapping[str, Tensor]:
        return {space: self.loss(batch, banks, space) for space in spaces(batch.targets)}

    def per_sample(self, view: View, batch: Batch, banks: Banks) -> Tensor:
        """The mean of a row's cross-entropies in the spaces in which it has a label; NaN if in none."""
        total, count = torch.zeros_like(view.z[:, 0]), torch.zeros_like(view.z[:, 0])
        for space in spaces(batch.targets):
            if space in {str(view.modality), SHARED}:
                labels = batch.labels(view, space)
                loss = -(labels.prob * F.log_softmax(banks[f"joint.{space}"].logits(view.feature), dim=1)).sum(1)
                total, count = total + loss * labels.labelled, count + labels.labelled
        return total / count  # 0 / 0 is NaN

    def loss(self, batch: Batch, banks: Banks, space: str) -> Tensor:
        """One cross-entropy over the rows of all streams that feed the space's bank."""
        views = [view for view in batch if view.stream in FED_BY[space]]
        labels = [batch.labels(view, space) for view in views]
        logits = banks[f"joint.{space}"].logits(torch.cat([view.feature for view in views]))
        return soft_cross_entropy(logits, SoftLabels.joined(labels))


def spaces(targets: Targets) -> list[str]:
    """The spaces of an epoch: without the shared one where the labels of an epoch before it had to be kept."""
    both = all(targets.has(modality, SHARED) for modality in Modality)
    return [str(modality) for modality in Modality] + [SHARED] * both
