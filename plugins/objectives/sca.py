"""SCA: MMM's soft alignment of features to centres that trust some samples more than others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from reidassoc import SHARED, Bank, Banks, Batch, Modality, Objective, Scene, SoftLabels, Targets
from reidassoc.interfaces import Sampling
from reidassoc.ops.confidence import confidence, prototype_loss
from reidassoc.ops.mmd import mmd_by_label, same_label
from reidassoc.ops.seeds import NUMPY_SEEDS, seed_for


@dataclass(frozen=True, kw_only=True)
class Sca(Objective):
    """Pull features to their identity's trusted centre, and the two modalities of an identity towards each other.

    Labels of both modalities are read in one space. A mixture of two Gaussians over a modality's losses (of the last epoch
    where the scene has them, else of its features against the space's prototypes) says how far each sample is to be
    trusted: w. *Intra*: distance of a feature to the centre Σ w·f / Σ w of its modality and label in the batch, a w-weighted
    mean over rows; squared L2 (paper) or L1 (released code). *Inter*: MMD² between the modalities' features of the same
    label, a mean over the labels of the batch, in both directions, the other side held fixed. Streams of a modality count
    together. Source: Shi et al., MMM, ECCV 2024, arXiv 2401.06825, soft cluster-level alignment.
    """

    paper: ClassVar[str] = "Shi et al., ECCV 2024, arXiv 2401.06825"
    sampling: ClassVar[Sampling] = "paired"  # unless `draw` says otherwise
    needs: ClassVar[frozenset[str]] = frozenset({"cross", "losses"})  # `shared` for `cross` if `space` is shared
    variants: ClassVar[tuple[str, ...]] = ("space='shared', draw='shared'",)

    intra: Annotated[float, Field(ge=0, description="weight of the intra term")] = 0.5
    inter: Annotated[float, Field(ge=0, description="weight of the inter term")] = 0.05
    inter_from: Annotated[
        int, Field(ge=0, description="epoch of the stage from which the inter term counts (paper: 15, code: 0)")
    ] = 0
    distance: Annotated[Literal["squared_l2", "l1"], Field(description="to the centre (paper, code)")] = "squared_l2"
    space: Annotated[Literal["visible", "infrared", "shared"], Field(description="of the common labels")] = "infrared"
    temperature: Annotated[float, Field(gt=0, description="τ of the losses that the mixture sees")] = 0.05
    draw: Annotated[Sampling, Field(description="from which labels batches are drawn")] = "paired"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampling", self.draw)
        object.__setattr__(self, "needs", frozenset({"shared" if self.space == SHARED else "cross", "losses"}))

    def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]:
        for modality in Modality:
            self.trust(scene, targets, modality)  # once per epoch, on the host: so no step has to wait for it
        return ()

    def __call__(self, batch: Batch, banks: Banks) -> Mapping[str, Tensor]:
        features, labels, weights, pulled = [], [], [], []
        for modality in Modality:
            views = [view for view in batch if view.modality is modality]
            known = [batch.labels(view, self.space) for view in views]
            trust = self.trust(batch.scene, batch.targets, modality)
            x = torch.cat([view.feature for view in views])
            label = torch.cat([rows.hard for rows in known])
            sure = torch.cat([trust[view.rows] * rows.weight for view, rows in zip(views, known, strict=True)])
            features.append(x)
            labels.append(label)
            weights.append(sure.to(x.dtype))
            pulled.append(self.to_centre(x, label, sure.to(x.dtype)))
        weight = torch.cat(weights) * (torch.cat(labels) >= 0)
        terms = {"intra": self.intra * (weight * torch.cat(pulled)).sum() / weight.sum().clamp_min(1e-12)}
        if batch.scene.stage_epoch >= self.inter_from:
            (visible, infrared), (of_visible, of_infrared) = features, labels
            there = mmd_by_label(visible, infrared.detach(), of_visible, of_infrared)
            back = mmd_by_label(visible.detach(), infrared, of_visible, of_infrared)
            terms["inter"] = self.inter * (there + back)
        return terms

    def to_centre(self, x: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        """(B,) distances of the rows to their label's weighted centre among them."""
        share = same_label(label) * weight
        offset = x - share @ x / share.sum(1, keepdim=True).clamp_min(1e-12)
        return offset.square().sum(1) if self.distance == "squared_l2" else offset.abs().sum(1)

    def trust(self, scene: Scene, targets: Targets, modality: Modality) -> Tensor:
        """(N,) float32 in [0, 1]: w of a modality's samples, remembered with the epoch's features."""
        labels = targets.of(modality, self.space)

        def make() -> tuple[SoftLabels, Tensor]:
            if scene.losses is not None:
                losses = scene.losses[modality]
            else:
                prototypes = scene.prototypes(targets, self.space)
                losses = prototype_loss(scene.features[modality].x, prototypes, labels, temperature=self.temperature)
            seed = seed_for(scene.seed, scene.epoch, "sca", modality) % NUMPY_SEEDS
            return labels, confidence(losses, labels.labelled, seed=seed)  # the labels are kept: their id is the key

        return scene.features[modality].memo(("sca", self, id(labels), scene.epoch), make)[1]
