"""Cross labels count as far as the sample is near the cluster that they name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field

from reidassoc import OUTLIER, Modality, Refiner, Scene, SoftLabels, Targets
from reidassoc.ops.precision import full_float32


@dataclass(frozen=True, kw_only=True)
class Proximity(Refiner):
    """Multiply a cross label's weight by e^((s − s_max) / T).

    s is the cosine between a sample and the prototype of the cluster that its cross label names, s_max the largest cosine of any
    cluster there: a label that names the nearest cluster keeps its weight. Distributions stay as they are, as do labels
    without an opinion, and targets without cross labels. Losses divide by the sum of weights, so that by itself this only says
    which labels count more than others; ``amirl(per_row=true)`` divides by rows, and a doubtful matching as a whole pulls
    less. Ours: a matching at random does little harm then.

    >>> from reidassoc.testing import toy_scene
    >>> from reidassoc import registry
    >>> scene = toy_scene()
    >>> targets = Targets.compose(scene.clustering, registry.build("associators", "nearest")(scene))
    >>> weight = Proximity().refine(scene, targets).of("visible", "infrared").weight
    >>> bool((weight > 0).all() and (weight <= 1).all())
    True
    """

    paper: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset({"cross"})

    temperature: Annotated[float, Field(gt=0, description="T, of cosines: smaller is stricter")] = 0.5

    def refine(self, scene: Scene, targets: Targets) -> Targets:
        return targets.replaced(
            {
                (modality, space): self.weighed(scene, targets, modality)
                for modality, space in targets.table
                if space == modality.other
            }
        )

    def weighed(self, scene: Scene, targets: Targets, modality: Modality) -> SoftLabels:
        """The cross labels of one modality with their new weights."""
        labels = targets.of(modality, modality.other)
        if labels.count == 0:
            return labels
        named = labels.hard
        prototypes = F.normalize(scene.prototypes(targets, modality.other), dim=1)
        with full_float32(prototypes.device):
            cosine = scene.features[modality].x @ prototypes.T
        gap = cosine.gather(1, named.clamp(min=0)[:, None])[:, 0] - cosine.amax(dim=1)
        share = torch.where(named == OUTLIER, 1.0, torch.exp(gap / self.temperature))
        return labels.with_weight(labels.weight * share)
