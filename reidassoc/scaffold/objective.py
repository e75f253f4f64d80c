"""MyIdea: what training minimises."""

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


@dataclass(frozen=True, kw_only=True)
class MyIdea(Objective):
    """Contrast every image with one bank per label space, which images of both modalities feed."""

    sampling: ClassVar[Sampling] = "paired"  # half of a batch's identities from either label space
    needs: ClassVar[frozenset[str]] = frozenset({"cross"})  # labels across the modalities
    gives: ClassVar[frozenset[str]] = frozenset({"agnostic bank"})  # the roles of the banks, for refiners

    temperature: Annotated[float, Field(gt=0, description="τ of the banks")] = 0.05
    momentum: Annotated[float, Field(ge=0, le=1, description="μ of the banks")] = 0.1

    def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]:
        return [
            Bank(
                name=f"my_idea.{space}",
                space=space,
                role="agnostic",
                start=scene.prototypes(targets, space),
                fed_by=("visible", "augmented", "infrared"),
                temperature=self.temperature,
                momentum=self.momentum,
            )
            for space in Modality
        ]

    def __call__(self, batch: Batch, banks: Banks) -> Mapping[str, Tensor]:
        return {
            str(space): torch.stack([self.loss(batch, banks, space, s) for s in batch.views]).mean()
            for space in Modality
        }

    def loss(self, batch: Batch, banks: Banks, space: Modality, stream: str) -> Tensor:
        """The loss of one stream's images in one label space."""
        view = batch[stream]
        return soft_cross_entropy(banks[f"my_idea.{space}"].logits(view.feature), batch.labels(view, space))
