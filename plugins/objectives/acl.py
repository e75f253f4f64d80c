"""ACL: PGM's alternate cross contrastive learning."""

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
from reidassoc.types import FEEDERS, FEEDING_ORDER


def visited_in(epoch: int) -> Modality:
    """The modality whose bank the other one is compared with: the visible one in odd epochs, counted from the run's first."""
    return Modality.VISIBLE if epoch % 2 == 1 else Modality.INFRARED


@dataclass(frozen=True, kw_only=True)
class Acl(Objective):
    """Contrast each modality with its own bank, and by turns one of them with the other's bank, by its cross labels.

    Odd epochs: infrared features against the visible bank; even ones: visible features against the infrared bank. Each
    term is one mean over a modality's rows. Source: Wu and Ye, PGM, CVPR 2023.
    """

    paper: ClassVar[str] = "Wu and Ye, PGM, CVPR 2023"
    sampling: ClassVar[Sampling] = "own"
    needs: ClassVar[frozenset[str]] = frozenset({"cross"})
    gives: ClassVar[frozenset[str]] = frozenset({"specific bank"})

    cross_weight: Annotated[float, Field(ge=0, description="of the cross term")] = 0.25
    feed_cross: Annotated[bool, Field(description="let the cross features feed the bank that they visit, too")] = True
    temperature: Annotated[float, Field(gt=0, description="τ of the banks")] = 0.05
    momentum: Annotated[float, Field(ge=0, le=1, description="μ of the banks")] = 0.1

    def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]:
        def bank(own: Modality) -> Bank:
            visitors = FEEDERS[own.other] if self.feed_cross and own is visited_in(scene.epoch) else ()
            return Bank(
                name=f"acl.{own}",
                space=own,
                role="specific",
                start=scene.prototypes(targets, own),
                fed_by=tuple(sorted({*visitors, *FEEDERS[own]}, key=FEEDING_ORDER.index)),
                temperature=self.temperature,
                momentum=self.momentum,
            )

        return [bank(own) for own in Modality]

    def __call__(self, batch: Batch, banks: Banks) -> Mapping[str, Tensor]:
        visited = visited_in(batch.epoch)
        terms = {str(own): self.loss(batch, banks, own, own) for own in Modality}
        return {**terms, "cross": self.cross_weight * self.loss(batch, banks, visited.other, visited)}

    def loss(self, batch: Batch, banks: Banks, modality: Modality, space: Modality) -> Tensor:
        """A modality's streams against the bank of a space."""
        losses = [
            soft_cross_entropy(banks[f"acl.{space}"].logits(view.feature), batch.labels(view, space))
            for view in batch
            if view.modality is modality
        ]
        return torch.stack(losses).mean()
