"""AMIRL: MULT's alternating learning of modality-invariant features."""

from __future__ import annotations

from collections import defaultdict
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


def space_of(epoch: int) -> Modality:
    """The label space of an epoch: the visible clusters in even ones, counted from the run's first."""
    return Modality.VISIBLE if epoch % 2 == 0 else Modality.INFRARED


@dataclass(frozen=True, kw_only=True)
class Amirl(Objective):
    """Contrast every stream with specific, cross and agnostic banks, in the visible space in even epochs, else the infrared.

    In the epoch's space S, each term a soft cross-entropy against the soft targets:
    *specific*: every modality against the bank of its own clusters, which it alone feeds;
    *cross*: the other modality against a bank of S's clusters, which it alone feeds;
    *agnostic*: all streams against a bank of S's clusters, which all feed.
    Terms of streams are summed. Source: He et al., MULT, IJCV 2024, arXiv 2402.00672.
    """

    paper: ClassVar[str] = "He et al., IJCV 2024, arXiv 2402.00672"
    sampling: ClassVar[Sampling] = "paired"
    needs: ClassVar[frozenset[str]] = frozenset({"cross"})
    gives: ClassVar[frozenset[str]] = frozenset({"specific bank", "cross bank", "agnostic bank"})

    temperature: Annotated[float, Field(gt=0, description="τ of the banks")] = 0.05
    momentum: Annotated[float, Field(ge=0, le=1, description="μ of the banks")] = 0.1
    per_row: Annotated[
        bool, Field(description="divide losses by rows, not by the labels' weights: doubted labels pull less")
    ] = False

    def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]:
        space = space_of(scene.epoch)

        def bank(role: str, of: Modality, fed_by: tuple[str, ...]) -> Bank:
            return Bank(
                name=f"amirl.{role}.{of}",
                space=of,
                role=role,
                start=scene.prototypes(targets, of),
                fed_by=fed_by,
                temperature=self.temperature,
                momentum=self.momentum,
            )

        return [
            *(bank("specific", own, FEEDERS[own]) for own in Modality),
            bank("cross", space, FEEDERS[space.other]),
            bank("agnostic", space, FEEDING_ORDER),
        ]

    def __call__(self, batch: Batch, banks: Banks) -> Mapping[str, Tensor]:
        space = space_of(batch.epoch)
        terms: dict[str, list[Tensor]] = defaultdict(list)
        for view in batch:
            own = view.modality
            compared = [("specific", own), ("agnostic", space)]
            if own is not space:
                compared.append(("cross", space))
            for role, of in compared:
                logits = banks[f"amirl.{role}.{of}"].logits(view.feature)
                loss = soft_cross_entropy(logits, batch.labels(view, of), per_row=self.per_row)
                terms[f"{role}_{own}"].append(loss)
        return {name: torch.stack(losses).sum() for name, losses in terms.items()}
