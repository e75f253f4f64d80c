"""Dual contrastive learning: the objective of stage 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from reidassoc import Bank, Banks, Batch, Modality, Objective, Scene, Targets
from reidassoc.interfaces import Sampling
from reidassoc.ops.losses import soft_cross_entropy
from reidassoc.types import FEEDERS


@dataclass(frozen=True, kw_only=True)
class Dcl(Objective):
    """Contrast each modality's images with the bank of its own clusters; visible ones are seen plain and augmented.

    One cross-entropy per modality, a mean over all its rows; outliers are left out. Source: Yang et al., ADCA,
    ACM MM 2022, on the cluster bank of Dai et al., Cluster Contrast, ACCV 2022.
    """

    paper: ClassVar[str] = "Yang et al., ADCA, ACM MM 2022"
    sampling: ClassVar[Sampling] = "own"
    gives: ClassVar[frozenset[str]] = frozenset({"specific bank"})

    temperature: Annotated[float, Field(gt=0, description="τ of the banks")] = 0.05
    momentum: Annotated[float, Field(ge=0, le=1, description="μ of the banks")] = 0.1

    def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]:
        return [
            Bank(
                name=f"dcl.{own}",
                space=own,
                role="specific",
                start=scene.prototypes(targets, own),
                fed_by=FEEDERS[own],
                temperature=self.temperature,
                momentum=self.momentum,
            )
            for own in Modality
        ]

    def __call__(self, batch: Batch, banks: Banks) -> Mapping[str, Tensor]:
        return {str(own): self.loss(batch, banks, own) for own in Modality}

    def loss(self, batch: Batch, banks: Banks, own: Modality) -> Tensor:
        """The mean over a modality's streams, which show the same images."""
        losses = [
            soft_cross_entropy(banks[f"dcl.{own}"].logits(view.feature), batch.labels(view, own))
            for view in batch
            if view.modality is own
        ]
        return torch.stack(losses).mean()
