"""OCLR: online cross-memory label refinement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from reidassoc import Banks, Batch, Refiner
from reidassoc.errors import RecipeError
from reidassoc.ops.losses import cross_prediction


@dataclass(frozen=True, kw_only=True)
class Oclr(Refiner):
    """Make each stream's agnostic prediction agree with what the other banks of its space say of its twin view.

    For every agnostic bank, every specific or cross bank B of the same space and every stream s:
    the cross-entropy of softmax(s → agnostic) against softmax((twin of s → B) / sharpening), a mean over the batch;
    the sum of all. No labels are read, and gradients flow into both sides. Works with any objective that declares banks of
    these roles. Source: He et al., MULT, IJCV 2024, arXiv 2402.00672; SALCR detaches the target.
    """

    paper: ClassVar[str] = "He et al., IJCV 2024, arXiv 2402.00672"
    needs: ClassVar[frozenset[str]] = frozenset({"agnostic bank", "specific bank|cross bank"})

    sharpening: Annotated[float, Field(gt=0, le=1, description="divides the target's logits")] = 0.2
    detach_target: Annotated[bool, Field(description="let no gradient into the target, as SALCR does")] = False

    def losses(self, batch: Batch, banks: Banks) -> Mapping[str, Tensor]:
        terms = []
        for agnostic in banks.select("agnostic"):
            for other in banks.select("specific", "cross", space=agnostic.bank.space):
                for view in batch:
                    target = other.logits(batch.twin(view).feature)
                    target = target.detach() if self.detach_target else target
                    logits = agnostic.logits(view.feature)
                    terms.append(cross_prediction(logits, target, sharpening=self.sharpening).mean())
        if not terms:
            raise RecipeError(
                "oclr compares an agnostic bank with specific or cross banks of its space, and the stage's objectives "
                "declare none; take an objective that does, such as amirl"
            )
        return {"agreement": torch.stack(terms).sum()}
