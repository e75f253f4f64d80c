"""Mixing soft labels with their own hard decision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from reidassoc import Refiner, Scene, SoftLabels, Targets


@dataclass(frozen=True, kw_only=True)
class Mix(Refiner):
    """Sharpen soft labels: β times the one-hot of their argmax, plus 1 − β times themselves.

    MULT's training targets (He et al., IJCV 2024, arXiv 2402.00672). Hard labels, rows without an opinion and weights
    stay as they are. ``cross`` is a β of its own for labels in the other modality's clusters: those are far less
    reliable than the own ones, and a hard wrong one harms more than a soft one.

    >>> from reidassoc.testing import toy_scene
    >>> targets = Targets.compose(toy_scene().clustering)
    >>> mixed = Mix(beta=0.5).refine(toy_scene(), targets)
    >>> bool((mixed.of("visible", "visible").prob == targets.of("visible", "visible").prob).all())
    True
    """

    paper = "He et al., IJCV 2024, arXiv 2402.00672"

    beta: Annotated[float, Field(ge=0, le=1, description="weight of the hard label")] = 0.7
    cross: Annotated[
        float | None, Field(ge=0, le=1, description="the same in the other modality's clusters; none = beta")
    ] = None

    def refine(self, scene: Scene, targets: Targets) -> Targets:
        cross = self.beta if self.cross is None else self.cross
        return targets.replaced(
            {
                (modality, space): self.mixed(labels, cross if space == modality.other else self.beta)
                for (modality, space), labels in targets.table.items()
            }
        )

    @staticmethod
    def mixed(labels: SoftLabels, beta: float) -> SoftLabels:
        """Sharpen one table of labels."""
        if labels.count == 0:
            return labels
        best = labels.value.argmax(dim=1, keepdim=True)
        certain = (labels.value.sum(dim=1, keepdim=True) > 0).to(labels.value.dtype)
        return replace(labels, value=((1 - beta) * labels.value).scatter_add(1, best, beta * certain))
