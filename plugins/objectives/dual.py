"""Dual association: SALCR's global loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from reidassoc import Bank, Banks, Batch, Modality, Objective, Scene, SoftLabels, Targets
from reidassoc.interfaces import Sampling
from reidassoc.ops.losses import soft_cross_entropy
from reidassoc.types import STREAMS


@dataclass(frozen=True, kw_only=True)
class Dual(Objective):
    """Contrast every stream with a visible and an infrared bank, by its label in either space.

    One cross-entropy per bank, a mean over all rows of all streams. All streams feed both banks, their rows in an order
    drawn anew each step. Source: SALCR, IJCV 2025, arXiv 2504.19244, the loss of its dual association.
    """

    paper: ClassVar[str] = "SALCR, IJCV 2025, arXiv 2504.19244"
    sampling: ClassVar[Sampling] = "paired"
    needs: ClassVar[frozenset[str]] = frozenset({"cross"})
    gives: ClassVar[frozenset[str]] = frozenset({"agnostic bank"})

    temperature: Annotated[float, Field(gt=0, description="τ of the banks")] = 0.05
    momentum: Annotated[float, Field(ge=0, le=1, description="μ of the banks")] = 0.1

    def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]:
        return [
            Bank(
                name=f"dual.{space}",
                space=space,
                role="agnostic",
                start=scene.prototypes(targets, space),
                fed_by=tuple(STREAMS),
                shuffled=True,
                temperature=self.temperature,
                momentum=self.momentum,
            )
            for space in Modality
        ]

    def __call__(self, batch: Batch, banks: Banks) -> Mapping[str, Tensor]:
        feature = torch.cat([view.feature for view in batch])
        terms = {}
        for space in Modality:
            labels = [batch.labels(view, space) for view in batch]
            terms[str(space)] = soft_cross_entropy(banks[f"dual.{space}"].logits(feature), SoftLabels.joined(labels))
        return terms
