"""FGSAL: SALCR's contrast of part features, each searched for in its own and in paired images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from reidassoc import Bank, Banks, Batch, Modality, Objective, Scene, SoftLabels, Targets
from reidassoc.errors import RecipeError
from reidassoc.interfaces import Sampling
from reidassoc.ops.losses import soft_cross_entropy
from reidassoc.ops.part_features import unit_parts
from reidassoc.ops.prototypes import centroids
from reidassoc.types import FEEDERS


@dataclass(frozen=True, kw_only=True)
class Fgsal(Objective):
    """Contrast part features with part banks of both label spaces, wherever their query finds them.

    Fine-grained semantic-aligned learning. Each modality is a side (visible: the plain and the augmented stream), with
    banks of its own in both spaces for every part. A part's query is put to its own map and to the maps of the paired
    streams; per part, side and space one cross-entropy, a mean over the side's rows and over these kinds of query; summed
    over the spaces and the sides, a mean over parts. Banks start from the part centroids of the space's own modality under
    the clusterer's labels. Image i of every stream has to show the same pseudo-identity. Source: SALCR, IJCV 2025,
    arXiv 2504.19244; its released code reads the augmented stream's first view from the second, which is not done here.

    Raises:
        RecipeError: the features or the network's output have no part features.
    """

    paper: ClassVar[str] = "SALCR, IJCV 2025, arXiv 2504.19244"
    sampling: ClassVar[Sampling] = "paired"
    needs: ClassVar[frozenset[str]] = frozenset({"cross", "parts"})

    temperature: Annotated[float, Field(gt=0, description="τ of the banks")] = 0.05
    momentum: Annotated[float, Field(ge=0, le=1, description="μ of the banks")] = 0.1

    def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]:
        declared = []
        for space in Modality:
            parts = unit_parts(scene.features[space], space, "fgsal")
            clusters = scene.clustering.own[space]
            for part in range(parts.shape[1]):
                start = centroids(parts[:, part], clusters.labels, clusters.count)
                declared += [
                    Bank(
                        name=f"fgsal.{side}.{space}.{part}",
                        space=space,
                        role="specific" if side is space else "cross",
                        start=start,
                        fed_by=FEEDERS[side],
                        part=part,
                        momentum=self.momentum,
                        temperature=self.temperature,
                    )
                    for side in Modality
                ]
        return declared

    def __call__(self, batch: Batch, banks: Banks) -> Mapping[str, Tensor]:
        return {str(side): self.loss(batch, banks, side) for side in Modality}

    def loss(self, batch: Batch, banks: Banks, side: Modality) -> Tensor:
        """One side's part features against its banks of both spaces."""
        views = [view for view in batch if view.modality is side]
        kinds = [len(view.parts) for view in views]
        if 0 in kinds:
            raise RecipeError(
                f"fgsal needs part features, and the network gave none for the {views[kinds.index(0)].stream} stream; take a "
                "network that gives them, such as two_stream(parts=3)"
            )
        parts = F.normalize(torch.cat([x for view in views for x in view.parts.values()]), dim=2)
        terms = []
        for space in Modality:
            known = [batch.labels(view, space) for view in views]
            stacked = SoftLabels.joined(
                [labels for labels, kind in zip(known, kinds, strict=True) for _ in range(kind)]
            )
            terms += [
                soft_cross_entropy(banks[f"fgsal.{side}.{space}.{part}"].logits(parts[:, part]), stacked)
                for part in range(parts.shape[1])
            ]
        return torch.stack(terms).sum() / parts.shape[1]
