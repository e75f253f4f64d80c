"""MyIdea: how noisy labels are repaired, once per epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from reidassoc import Refiner, Scene, SoftLabels, Targets


@dataclass(frozen=True, kw_only=True)
class MyIdea(Refiner):
    """Let a sample count as much as its label is sure: its weight is a power of its largest probability."""

    power: Annotated[float, Field(ge=0, description="0: all count the same")] = 1.0

    def refine(self, scene: Scene, targets: Targets) -> Targets:
        return targets.map(self.weighted)

    def weighted(self, labels: SoftLabels) -> SoftLabels:
        """Weigh the rows of one table of labels."""
        if labels.count == 0:
            return labels
        return SoftLabels(labels.prob, labels.weight * labels.prob.amax(1) ** self.power)
